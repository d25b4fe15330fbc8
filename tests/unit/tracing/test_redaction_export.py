"""The exporter hands on redacted copies, leaves the originals alone, and fails closed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, Status, StatusCode
from opentelemetry.trace.span import TraceState

from guidance_agent.core.types import CustomerProfile
from guidance_agent.tracing.redaction import FAILED, Redactor
from guidance_agent.tracing.redaction_export import RedactingSpanExporter, TraceNames, names_of_customer


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


def one_span(exporter: RedactingSpanExporter, text: str, names: TraceNames | None = None) -> ReadableSpan:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    linked = SpanContext(7, 8, is_remote=True, trace_state=TraceState([("a", "07700900123"), ("b", "kept")]))
    span = provider.get_tracer("tests").start_span("guidance", links=[Link(linked, {"why": text})])
    if names is not None:
        names.add(span.get_span_context().trace_id, ["Margaret Holloway"])
    span.set_attribute("input.value", text)
    span.set_attribute("llm.token_count.prompt", 12_345_678)
    span.add_event("gate", {"why": text})
    span.set_status(Status(StatusCode.ERROR, text))
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def test_a_copy_is_redacted_and_the_span_itself_stays_as_it_is() -> None:
    kept = Kept()
    original = one_span(RedactingSpanExporter(kept), "call 07700 900123")
    (copy,) = kept.spans
    assert copy.attributes == {"input.value": "call [PHONE]", "llm.token_count.prompt": 12_345_678}
    assert copy.events[0].attributes == {"why": "call [PHONE]"} and copy.status.description == "call [PHONE]"
    assert copy.links[0].attributes == {"why": "call [PHONE]"}
    assert dict(copy.links[0].context.trace_state) == {"b": "kept"}
    assert (copy.context, copy.name, copy.start_time, copy.end_time, copy.resource) == (
        original.context,
        original.name,
        original.start_time,
        original.end_time,
        original.resource,
    )
    assert original.attributes is not None and original.attributes["input.value"] == "call 07700 900123"


def test_the_names_of_a_trace_reach_the_exporter_and_are_in_no_span() -> None:
    kept, names = Kept(), TraceNames()
    one_span(RedactingSpanExporter(kept, names=names), "margaret could wait", names)
    assert "margaret" not in kept.spans[0].to_json().lower()


def test_trusted_systems_get_full_text_cut_to_the_same_length() -> None:
    kept = Kept()
    one_span(RedactingSpanExporter(kept, redact=False, max_length=60), "call 07700 900123 " + "x" * 100)
    assert kept.spans[0].attributes is not None
    value = kept.spans[0].attributes["input.value"]
    assert isinstance(value, str) and value.startswith("call 07700 900123") and value.endswith("characters in all]")


def test_a_redactor_that_breaks_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ValueError("07700 900123")

    for method in ("redact", "names_in"):
        monkeypatch.setattr(Redactor, method, broken)
    kept = Kept()
    one_span(RedactingSpanExporter(kept), "call 07700 900123")
    assert "900123" not in kept.spans[0].to_json()
    assert kept.spans[0].name == FAILED


def test_a_span_that_cannot_be_copied_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ValueError("07700 900123")

    monkeypatch.setattr(RedactingSpanExporter, "_copy", broken)
    kept = Kept()
    one_span(RedactingSpanExporter(kept), "call 07700 900123")
    assert kept.spans == []


def test_the_registry_of_names_is_bounded_and_drops_the_oldest() -> None:
    names = TraceNames(limit=100)
    for trace_id in range(1, 1_001):
        names.add(trace_id, ["Ada"])
        names.add(trace_id, ["Grace", " "])
    assert len(names) == 100
    assert names.of(900) == () and names.of(1_000) == ("Ada", "Grace")


def test_the_names_of_a_customer_are_theirs_and_their_relatives() -> None:
    customer = CustomerProfile(
        customer_id="c-8812",
        first_name="Janet",
        partner="married to Ottoline",
        dependants="Tom and Emily",
        location="England",
    )
    names = names_of_customer(customer)
    assert names[:2] == ("Janet", "c-8812") and {"ottoline", "tom", "emily"} <= set(names)
    assert "england" not in {name.lower() for name in names}

"""No personal data in the bytes that leave the process, wherever in a span it was planted."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from guidance_agent.tracing import Tracing
from guidance_agent.tracing.export import ExportThread
from guidance_agent.tracing.otlp import Endpoint, OtlpSink
from guidance_agent.tracing.preparing import NoRedaction, Preparation
from guidance_agent.tracing.preparing import Redactor as TextRedactor
from guidance_agent.tracing.redaction import RULES, Redactor
from guidance_agent.tracing.redaction_spans import SpanRedaction
from tests.collector import Collector
from tests.personal_data.corpus import Planted, planted

PLANTED = planted()
WITHIN = 55.0


def export(texts: Sequence[Planted], redactor: TextRedactor) -> dict[str, str]:
    """Send one trace for each text, with the text in every place of a span that can hold one; return what arrived."""
    with Collector() as collector:
        sink = OtlpSink(Endpoint(f"{collector.url}/v1/traces", compress=True), {"service.name": "tests"}, version="1")
        tracing = Tracing(ExportThread(sink, Preparation(redactor)))
        traces = {text.id: with_text(tracing, text) for text in texts}
        assert tracing.flush(WITHIN)
        tracing.close()
        received = spans_in(collector.bodies)
    return {name: received[trace] for name, trace in traces.items()}


def with_text(tracing: Tracing, planted_text: Planted) -> str | None:
    text = planted_text.text
    span = tracing.span(f"guidance {text}", "LLM")
    span.share({"session.id": text}, names=planted_text.known)
    odd: dict[str, object] = {
        "app.raw": text.encode(),
        "app.nested": {"below": {"note": text}, text[:60]: "key"},
    }
    span.set(
        {
            "input.value": text,
            "output.value": f"You said: {text}",
            "metadata": json.dumps({"note": text, "tokens": 12345}),
            "app.note": json.dumps({"inner": json.dumps({"note": text})}, ensure_ascii=False),
            "llm.input_messages.0.message.content": text,
            "llm.output_messages.0.message.content": f"Thank you for that.\n\n{text}\n",
            "llm.invocation_parameters": json.dumps({"stop": [text], "temperature": 0.2}),
            "llm.prompt_template.variables": json.dumps({"question": text}, ensure_ascii=False),
            "tool.parameters": repr({"query": text}),
            "retrieval.documents.0.document.content": f"- {text}",
            "tag.tags": ["one", text],
            f"app.key.{text[:60]}": 1,
            "llm.token_count.prompt": 8_812,
            **odd,  # type: ignore[dict-item]
        }
    )
    span.event(f"gate {text}", {"why": text, "texts": [text, text], f"app.key.{text[:60]}": 1})
    span.fail(ValueError(f"This cannot be answered: {text}"))
    span.end(outcome="failed")
    return span.trace_id


def spans_in(bodies: Sequence[bytes]) -> dict[str | None, str]:
    """Return the bytes of each span by its trace, as text."""
    return {
        span.trace_id.hex(): span.SerializeToString().decode("utf-8", "replace")
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def leaks(texts: Sequence[Planted], received: dict[str, str]) -> dict[str, list[str]]:
    return {text.id: shown for text in texts if (shown := text.leaks_in(received[text.id]))}


def test_no_planted_text_leaves_the_process_from_any_place_of_a_span() -> None:
    received = export(PLANTED, SpanRedaction())
    assert received.keys() == {text.id for text in PLANTED}
    assert leaks(PLANTED, received) == {}
    assert not any("REDACTION FAILED" in span for span in received.values())


def test_the_switch_for_trusted_systems_sends_full_text_so_the_search_can_see_a_leak() -> None:
    received = export(PLANTED, NoRedaction())
    assert leaks(PLANTED, received).keys() == {text.id for text in PLANTED}


@pytest.mark.parametrize("rule", ["phone", "known_name", "announced_name", "card"])
def test_a_rule_that_is_missing_shows_in_the_exported_bytes(rule: str) -> None:
    kinds = {"phone": "phone", "known_name": "known name", "announced_name": "announced name", "card": "card"}
    texts = [text for text in PLANTED if text.kind == kinds[rule]]
    assert leaks(texts, export(texts, SpanRedaction(Redactor(without=[rule]))))


@pytest.mark.parametrize("rule", [*RULES, "known_name"])
def test_every_rule_is_needed_by_a_text_of_the_corpus(rule: str) -> None:
    redactor = Redactor(without=[rule])
    assert any(text.leaks_in(redactor.redact(text.text, known=text.known)) for text in PLANTED)


def test_the_corpus_is_large_and_of_every_kind() -> None:
    assert len(PLANTED) >= 250
    kinds = {text.kind for text in PLANTED}
    assert {"known name", "ni number", "phone", "email", "sort code", "account number", "postcode", "card"} <= kinds
    assert {"date of birth", "iban", "passport", "nhs number", "plan number", "address", "secret"} <= kinds


def test_each_word_planted_is_in_its_text() -> None:
    assert all(marker in text.text for text in PLANTED for marker in text.markers)

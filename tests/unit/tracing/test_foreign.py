"""An application's own OpenTelemetry: its spans are above ours, and with its provider ours are its spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import ProxyTracerProvider, StatusCode

from guidance_agent.settings import Settings, TraceSettings
from guidance_agent.tracing import NEW_TRACE, SpanContext, Tracing
from guidance_agent.tracing.export import ExportLimits, ExportThread
from guidance_agent.tracing.foreign import ForeignTracer, application_provider
from guidance_agent.tracing.memory import tracing_in_memory
from guidance_agent.tracing.otlp import OtlpSink
from guidance_agent.tracing.preparing import NoRedaction, Preparation, Redactor
from guidance_agent.tracing.setup import open_tracing
from guidance_agent.tracing.sinks import ForeignSink

WITHIN = 5.0


class NotingExporter(InMemorySpanExporter):
    """Notes on which thread it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.threads.add(threading.get_ident())
        return super().export(spans)


class Application:
    """A provider of an application that exports where a span ends, and our tracing over it."""

    def __init__(self, redactor: Redactor | None = None, **provider: Any) -> None:
        self.exporter = NotingExporter()
        self.provider = TracerProvider(**provider)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        exporter = ExportThread(ForeignSink(), Preparation(redactor or NoRedaction()), ExportLimits(delay=0.01))
        self.tracing = Tracing(exporter, foreign=ForeignTracer(self.provider, version="1"))

    def spans(self) -> dict[str, ReadableSpan]:
        assert self.tracing.flush(WITHIN)
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def application() -> Iterator[Application]:
    made = Application()
    yield made
    made.tracing.close(WITHIN)
    made.provider.shutdown()


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def test_our_spans_become_the_applications(application: Application) -> None:
    tracing = application.tracing
    root = tracing.span("turn", "AGENT", attributes={"input.value": "Can I?"})
    with tracing.current(root):
        child = tracing.span("guidance", "LLM", link=SpanContext(5, 6))
        child.event("attempt", {"number": 1})
        child.fail(ValueError("no"))
        child.end(outcome="failed")
    root.end(outcome="closed_early")
    spans = application.spans()
    turn, answer = spans["turn"], spans["guidance"]
    assert turn.attributes is not None and answer.attributes is not None
    assert turn.attributes["input.value"] == "Can I?"
    assert turn.attributes["openinference.span.kind"] == "AGENT"
    assert turn.status.status_code is StatusCode.OK
    assert answer.status.status_code is StatusCode.ERROR
    assert answer.status.description == "ValueError: no"
    assert [event.name for event in answer.events] == ["attempt", "exception"]
    assert [link.context.trace_id for link in answer.links] == [5]
    assert answer.parent is not None
    assert answer.parent.span_id == context_of(turn).span_id
    assert root.traceparent == f"00-{context_of(turn).trace_id:032x}-{context_of(turn).span_id:016x}-01"
    assert turn.start_time is not None and turn.end_time is not None
    assert turn.start_time <= turn.end_time


def test_its_exporter_runs_on_our_thread_and_sees_what_is_redacted() -> None:
    class Out:
        def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
            return value.replace("Janet", "[NAME]")

    application = Application(Out())
    span = application.tracing.span("turn", "AGENT", attributes={"input.value": "Janet asks"})
    span.fail(ValueError("Janet"))
    span.end()
    found = application.spans()["turn"]
    assert "Janet" not in found.to_json()
    assert application.exporter.threads == {
        thread.ident for thread in threading.enumerate() if thread.name == "guidance-agent tracing"
    }
    application.tracing.close(WITHIN)


def test_what_its_instrumentations_make_stands_below_our_span(application: Application) -> None:
    tracing, theirs = application.tracing, application.provider.get_tracer("theirs")
    root = tracing.span("turn", "AGENT")
    with tracing.current(root):
        theirs.start_span("http request").end()
    theirs.start_span("elsewhere").end()
    root.end()
    spans = application.spans()
    parent = spans["http request"].parent
    assert parent is not None
    assert parent.span_id == context_of(spans["turn"]).span_id
    assert spans["elsewhere"].parent is None


def test_a_turn_stands_below_the_applications_current_span(application: Application) -> None:
    theirs = application.provider.get_tracer("theirs")
    with theirs.start_as_current_span("request"):
        application.tracing.span("turn", "AGENT").end()
        application.tracing.span("batch item", "LLM", parent=NEW_TRACE).end()
    spans = application.spans()
    parent = spans["turn"].parent
    assert parent is not None
    assert parent.span_id == context_of(spans["request"]).span_id
    assert spans["batch item"].parent is None


def test_with_our_own_exporter_too_the_applications_span_is_above() -> None:
    tracing, sink = tracing_in_memory()
    theirs = TracerProvider().get_tracer("theirs")
    with theirs.start_as_current_span("request") as request:
        tracing.span("turn", "AGENT").end()
    tracing.flush(WITHIN)
    assert sink.spans[0].parent is not None
    assert sink.spans[0].parent.span_id == request.get_span_context().span_id
    assert sink.spans[0].context.trace_id == request.get_span_context().trace_id
    tracing.close(WITHIN)


def test_what_the_application_does_not_sample_is_not_made() -> None:
    application = Application(sampler=ALWAYS_OFF)
    span = application.tracing.span("turn", "AGENT", attributes={"input.value": "Can I?"})
    assert not span.is_recording
    assert span.traceparent is not None and span.traceparent.endswith("-00")
    with application.tracing.current(span):
        child = application.tracing.span("guidance", "LLM")
        assert not child.is_recording
        assert child.trace_id == span.trace_id
    span.end()
    assert application.spans() == {}
    application.tracing.close(WITHIN)


def test_an_application_without_a_provider_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert application_provider() is None
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", ProxyTracerProvider())
    assert application_provider() is None
    provider = TracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    assert application_provider() is provider
    monkeypatch.delitem(__import__("sys").modules, "opentelemetry.trace")
    assert application_provider() is None


def test_the_applications_provider_is_taken_unless_we_have_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    settings = Settings.load(data_dir=tmp_path)
    for own, expected in ((None, ForeignSink), ("http://127.0.0.1:1", OtlpSink)):
        chosen = settings.model_copy(update={"trace": TraceSettings(endpoint=own)})
        tracing = open_tracing(chosen, environ, version="1")
        assert isinstance(tracing.outlet, ExportThread)
        assert isinstance(tracing.outlet._sink, expected)
        tracing.close(WITHIN)

"""No personal data in the bytes that leave the process, wherever in a span it was planted."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.trace.span import TraceState

from guidance_agent.tracing.redaction import RULES, Redactor
from guidance_agent.tracing.redaction_export import RedactingSpanExporter, TraceNames
from tests.personal_data.corpus import Planted, planted

PLANTED = planted()


class Collector:
    """A server on loopback that keeps what it is sent."""

    def __init__(self) -> None:
        bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self._bodies = bodies

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def received(self) -> dict[int, str]:
        """Return the bytes of each span by its trace, as text."""
        spans: dict[int, str] = {}
        for body in self._bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        text = span.SerializeToString().decode("utf-8", "replace")
                        spans[int.from_bytes(span.trace_id, "big")] = text
        return spans

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def export(
    collector: Collector, texts: Sequence[Planted], *, redactor: Redactor | None = None, redact: bool = True
) -> dict[str, str]:
    """Send one trace for each text, with the text in every place of a span that can hold one; return what arrived."""
    names = TraceNames()
    sender = OTLPSpanExporter(endpoint=collector.endpoint, compression=Compression.Gzip, timeout=10)
    exporter = RedactingSpanExporter(sender, redactor=redactor, names=names, redact=redact)
    provider = TracerProvider(resource=Resource.create({"service.name": "guidance"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096, max_export_batch_size=64))
    tracer = provider.get_tracer("tests")
    traces = {text.id: with_text(tracer, text, names) for text in texts}
    provider.shutdown()
    received = collector.received()
    return {name: received[trace] for name, trace in traces.items()}


def with_text(tracer: Tracer, planted_text: Planted, names: TraceNames) -> int:
    text = planted_text.text
    state = TraceState([("vendor", text)]) if text.isascii() and text.isalnum() else TraceState()
    linked = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    span = tracer.start_span(f"guidance {text}", links=[Link(linked, {"app.link.why": text})])
    names.add(span.get_span_context().trace_id, planted_text.known)
    span.set_attributes(
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
            "app.raw": text.encode(),
            "app.nested": {"below": {"note": text}, text[:60]: "key"},
            f"app.key.{text[:60]}": 1,
            "exception.escaped": False,
            "llm.token_count.prompt": 8_812,
        }
    )
    span.add_event(f"gate {text}", {"why": text, "texts": [text, text]})
    try:
        raise ValueError(f"This cannot be answered: {text}")
    except ValueError as error:
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, f"ValueError: {text}"))
    span.end()
    return span.get_span_context().trace_id


def leaks(texts: Sequence[Planted], received: dict[str, str]) -> dict[str, list[str]]:
    return {text.id: shown for text in texts if (shown := text.leaks_in(received[text.id]))}


def test_no_planted_text_leaves_the_process_from_any_place_of_a_span(collector: Collector) -> None:
    received = export(collector, PLANTED)
    assert received.keys() == {text.id for text in PLANTED}
    assert leaks(PLANTED, received) == {}
    assert not any("REDACTION FAILED" in span for span in received.values())


def test_the_switch_for_trusted_systems_sends_full_text_so_the_search_can_see_a_leak(collector: Collector) -> None:
    received = export(collector, PLANTED, redact=False)
    assert leaks(PLANTED, received).keys() == {text.id for text in PLANTED}


@pytest.mark.parametrize("rule", ["phone", "known_name", "announced_name", "card"])
def test_a_rule_that_is_missing_shows_in_the_exported_bytes(collector: Collector, rule: str) -> None:
    kinds = {"phone": "phone", "known_name": "known name", "announced_name": "announced name", "card": "card"}
    texts = [text for text in PLANTED if text.kind == kinds[rule]]
    assert leaks(texts, export(collector, texts, redactor=Redactor(without=[rule])))


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

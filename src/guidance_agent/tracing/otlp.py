"""OTLP over HTTP: spans as protocol buffers, posted to a collector.

`requests` and the protocol's messages are imported when the first batch leaves, on the exporter's thread. They are used
without OpenTelemetry's SDK: its exporter tells neither why a batch failed nor whether another try is worth it, retries
with waits of its own, and logs every failure.
"""

from __future__ import annotations

import email.utils
import gzip
import importlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from guidance_agent.tracing.export import Sent
from guidance_agent.tracing.preparing import FinishedEvent, FinishedSpan, Sendable
from guidance_agent.tracing.span import SpanContext

if TYPE_CHECKING:
    import requests
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1 import trace_pb2

__all__ = ["Endpoint", "OtlpSink", "encode"]

_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_REASON = 200
_LONGEST_ANSWER = 65_536
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Endpoint(NamedTuple):
    """Where spans go.

    Attributes:
        url: The whole address, path included.
        headers: Sent with every batch.
        compress: Whether batches are compressed with gzip.
        certificate: File of the authorities that the collector's certificate is checked with; None is the system's.
        client_certificate: File of the client's certificate, and of its key where that is another file.
    """

    url: str
    headers: Mapping[str, str] = {}
    compress: bool = False
    certificate: str | None = None
    client_certificate: str | tuple[str, str] | None = None


class OtlpSink:
    """Posts batches to a collector over one connection that is kept.

    Args:
        endpoint: Where to.
        resource: What is said of the process that the spans come from.
        version: Version of the package.
    """

    def __init__(self, endpoint: Endpoint, resource: Mapping[str, str], *, version: str) -> None:
        self._endpoint = endpoint
        self._resource = dict(resource)
        self._version = version
        self._session: requests.Session | None = None

    def send(self, spans: Sequence[FinishedSpan], timeout: float) -> Sent:
        body = encode(spans, self._resource, version=self._version).SerializeToString()
        headers = {"content-type": "application/x-protobuf", **self._endpoint.headers}
        if self._endpoint.compress:
            body, headers["content-encoding"] = gzip.compress(body, 5), "gzip"
        try:
            answer = self._opened().post(
                self._endpoint.url, data=body, headers=headers, timeout=timeout, allow_redirects=False, stream=True
            )
            with answer:
                content = answer.raw.read(_LONGEST_ANSWER, decode_content=True)
        except ValueError as error:  # an address or a header that cannot be sent
            return Sent(0, refused=len(spans), problem=f"{self._place} cannot be asked ({type(error).__name__})")
        except Exception as error:  # whatever is between here and the collector may be gone in a minute
            return Sent(0, problem=self._why(error), try_again=True)
        return self._read(answer.status_code, answer.headers, content, len(spans))

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _opened(self) -> requests.Session:
        if self._session is None:
            import requests

            session, endpoint = requests.Session(), self._endpoint
            # A proxy of the environment is for what is outside; and it would see what stays on this machine.
            session.trust_env = urlsplit(endpoint.url).hostname not in _LOOPBACK
            if endpoint.certificate is not None:
                session.verify = endpoint.certificate
            session.cert = endpoint.client_certificate
            self._session = session
        return self._session

    def _why(self, error: Exception) -> str:
        place = self._place
        name = type(error).__name__
        if name == "SSLError":
            return f"the certificate of {place} cannot be verified"
        if "Timeout" in name:
            return f"{place} does not answer"
        return f"{place} cannot be reached ({name})"

    @property
    def _place(self) -> str:
        parts = urlsplit(self._endpoint.url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def _read(self, status: int, headers: Mapping[str, str], content: bytes, count: int) -> Sent:
        if 200 <= status < 300:
            return _partly(content, count)
        place = self._place
        if status in _TRY_AGAIN:
            return Sent(
                0, problem=f"{place} answers with {status}", try_again=True, after=_seconds(headers.get("retry-after"))
            )
        hint = {
            401: "a key is missing or wrong; set PHOENIX_API_KEY or OTEL_EXPORTER_OTLP_HEADERS",
            403: "the key may not write; set PHOENIX_API_KEY or OTEL_EXPORTER_OTLP_HEADERS",
            404: "nothing takes traces there; Phoenix and most collectors take them at the path /v1/traces",
            405: "nothing takes traces there; Phoenix and most collectors take them at the path /v1/traces",
            413: "the batch is too large for it",
            415: "it does not take OTLP as protocol buffers over HTTP",
        }.get(status, "see the collector's log")
        return Sent(0, refused=count, problem=f"{place} answers with {status}: {hint}")


def _partly(content: bytes, count: int) -> Sent:
    """Read which spans a collector has left out of a batch that it took."""
    if not content:
        return Sent(count)
    message = _messages("collector.trace.v1.trace_service_pb2").ExportTraceServiceResponse()
    try:
        message.ParseFromString(content)
    except Exception:  # an answer that is no OTLP, such as a page of a proxy: nothing says that a span was left out
        return Sent(count)
    rejected = min(count, max(0, message.partial_success.rejected_spans))
    reason = str(message.partial_success.error_message)[:_LONGEST_REASON]
    problem = f"the collector left out spans: {reason or 'it does not say why'}" if rejected else ""
    return Sent(count - rejected, refused=rejected, problem=problem)


def _seconds(retry_after: str | None) -> float | None:
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(0.0, seconds), 300.0) if seconds == seconds else None


def _messages(name: str) -> Any:
    return importlib.import_module(f"opentelemetry.proto.{name}")


def encode(spans: Sequence[FinishedSpan], resource: Mapping[str, str], *, version: str) -> ExportTraceServiceRequest:
    """Return a batch as the protocol's message."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1 import trace_pb2

    scope = trace_pb2.ScopeSpans(
        scope=InstrumentationScope(name="guidance_agent", version=version), spans=[_span(span) for span in spans]
    )
    of_process = trace_pb2.ResourceSpans(resource=Resource(attributes=_pairs(resource)), scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[of_process])


def _span(span: FinishedSpan) -> trace_pb2.Span:
    from opentelemetry.proto.trace.v1 import trace_pb2

    made = trace_pb2.Span(
        trace_id=span.context.trace_id.to_bytes(16, "big"),
        span_id=span.context.span_id.to_bytes(8, "big"),
        parent_span_id=b"" if span.parent is None else span.parent.span_id.to_bytes(8, "big"),
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.started,
        end_time_unix_nano=span.finished,
        attributes=_pairs(span.attributes),
        events=[_event(event) for event in span.events],
    )
    if span.link is not None:
        made.links.append(_link(span.link))
    if span.status is not None:
        made.status.code = trace_pb2.Status.STATUS_CODE_OK if span.status else trace_pb2.Status.STATUS_CODE_ERROR
        made.status.message = span.message
    return made


def _event(event: FinishedEvent) -> trace_pb2.Span.Event:
    from opentelemetry.proto.trace.v1 import trace_pb2

    return trace_pb2.Span.Event(name=event.name, time_unix_nano=event.at, attributes=_pairs(event.attributes))


def _link(link: SpanContext) -> trace_pb2.Span.Link:
    from opentelemetry.proto.trace.v1 import trace_pb2

    return trace_pb2.Span.Link(trace_id=link.trace_id.to_bytes(16, "big"), span_id=link.span_id.to_bytes(8, "big"))


def _pairs(attributes: Mapping[str, Sendable]) -> list[KeyValue]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

    def value_of(value: Sendable) -> AnyValue:
        if isinstance(value, bool):
            return AnyValue(bool_value=value)
        if isinstance(value, int):
            return AnyValue(int_value=value)
        if isinstance(value, float):
            return AnyValue(double_value=value)
        if isinstance(value, str):
            return AnyValue(string_value=value)
        return AnyValue(array_value=ArrayValue(values=[value_of(item) for item in value]))

    return [KeyValue(key=key, value=value_of(value)) for key, value in attributes.items()]

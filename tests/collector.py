"""A collector of spans on a real socket, for tests and benchmarks: it counts, keeps, refuses or says nothing."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["Collector", "Received", "black_hole", "free_port"]


class Received(NamedTuple):
    """A span as it came in."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    status: int
    message: str
    started: int
    finished: int
    links: list[tuple[str, str]]


class Collector:
    """Takes OTLP over HTTP on a loopback port; a context manager that owns its threads.

    Attributes:
        status: What it answers with.
        delay: Seconds before it answers.
        headers: Sent with every answer.
        rejected: Spans that it says it left out of each batch.
        requests: Headers of what came, by lower-case names.
        keeps: Whether it keeps what it counts.
    """

    def __init__(self, port: int = 0, *, keeps: bool = True) -> None:
        self.status = 200
        self.delay = 0.0
        self.headers: dict[str, str] = {}
        self.rejected = 0
        self.keeps = keeps
        self.spans: list[Received] = []
        self.resources: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.requests: list[dict[str, str]] = []
        self.count = 0
        self._lock = threading.Lock()
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Collector:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(collector.delay)
                answer = collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                self.send_response(collector.status)
                for name, value in collector.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # whoever asked has gone, which tests make happen

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None and self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        with self._lock:
            self.requests.append({"path": path, **headers})
            if self.status != 200:
                return b""
            request = ExportTraceServiceRequest.FromString(body)
            response = ExportTraceServiceResponse()
            response.partial_success.rejected_spans = self.rejected
            for of_resource in request.resource_spans:
                if self.keeps:
                    self.bodies.append(body)
                    self.resources.append(_values(of_resource.resource.attributes))
                for of_scope in of_resource.scope_spans:
                    self.count += len(of_scope.spans)
                    if self.keeps:
                        self.spans += [_received(span) for span in of_scope.spans]
            return bytes(response.SerializeToString())

    def named(self, name: str) -> list[Received]:
        with self._lock:
            return [span for span in self.spans if span.name == name]

    def wait_for(self, count: int, timeout: float = 10.0) -> int:
        """Return how many spans came, as soon as they are this many or the time is up."""
        until = time.monotonic() + timeout
        while self.count < count and time.monotonic() < until:
            time.sleep(0.01)
        return self.count


def _received(span: Any) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_values(span.attributes),
        events=[(event.name, _values(event.attributes)) for event in span.events],
        status=span.status.code,
        message=span.status.message,
        started=span.start_time_unix_nano,
        finished=span.end_time_unix_nano,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The application's own OpenTelemetry: its current span as our parent, and its provider in place of our exporter.

With a provider of the application, each of our spans stands for one of its spans. That is begun at once, because it
makes the ids and the application's sampler decides on it; what it carries, and its end, come from the exporter's thread
after redaction. So no processor of the application ever runs on the event loop because of us, or sees what we redact.

Nothing here imports OpenTelemetry: where the application has not, there is nothing of it to be found.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guidance_agent.tracing.span import Span, SpanContext

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer, TracerProvider

__all__ = ["ForeignTracer", "application_provider", "current_foreign_context"]


def _loaded() -> Any:
    return sys.modules.get("opentelemetry.trace")


def current_foreign_context() -> SpanContext | None:
    """Return where the application's own current span stands; None when it has none."""
    trace = _loaded()
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return SpanContext(context.trace_id, context.span_id, sampled=context.trace_flags.sampled)


def application_provider() -> TracerProvider | None:
    """Return the tracer provider that the application has set; None where it has none."""
    trace = _loaded()
    if trace is None:
        return None
    provider: TracerProvider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return provider


class ForeignTracer:
    """Begins spans with the application's provider."""

    def __init__(self, provider: TracerProvider, *, version: str) -> None:
        self._tracer: Tracer = provider.get_tracer("guidance_agent", version)

    def start(
        self, name: str, parent: SpanContext | None, started: int, link: SpanContext | None
    ) -> tuple[OtelSpan | None, SpanContext]:
        """Begin a span and return it with its place; no span where the application does not record it."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, set_span_in_context

        above = Context() if parent is None else set_span_in_context(_placeholder(parent), Context())
        links = None if link is None else [Link(_otel_context(link))]
        span = self._tracer.start_span(name, context=above, start_time=started, links=links)
        context = span.get_span_context()
        place = SpanContext(context.trace_id, context.span_id, sampled=context.trace_flags.sampled)
        return (span if span.is_recording() else None), place

    def attach(self, span: Span) -> Token[Context]:
        """Make the application's span current, so that what its instrumentations see stands below it."""
        from opentelemetry.context import attach
        from opentelemetry.trace import set_span_in_context

        return attach(set_span_in_context(_placeholder(span.context)))

    def detach(self, token: object) -> None:
        """Undo `attach`."""
        from opentelemetry.context import detach

        detach(token)  # type: ignore[arg-type]


def finish(
    span: OtelSpan,
    *,
    attributes: Mapping[str, Any],
    events: list[tuple[str, int, Mapping[str, Any]]],
    failed: bool | None,
    message: str,
    finished: int,
) -> None:
    """Give the application's span what ours carries, and end it."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attributes(attributes)
    for name, at, values in events:
        span.add_event(name, values, timestamp=at)
    if failed is not None:
        span.set_status(Status(StatusCode.ERROR, message) if failed else Status(StatusCode.OK))
    span.end(end_time=finished)


def _otel_context(context: SpanContext) -> Any:
    from opentelemetry.trace import SpanContext as OtelContext
    from opentelemetry.trace import TraceFlags

    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return OtelContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)


def _placeholder(context: SpanContext) -> Any:
    from opentelemetry.trace import NonRecordingSpan

    return NonRecordingSpan(_otel_context(context))

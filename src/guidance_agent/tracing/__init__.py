"""Tracing: every model call, retrieval, decision of the gate and verdict as a span, for Phoenix and other back ends.

`Tracing` makes spans, `NO_TRACING` makes none and has the same methods. See `specs/tracing.md`.
"""

from __future__ import annotations

from guidance_agent.tracing.span import NO_SPAN, Attributes, Outcome, Span, SpanContext, SpanKind
from guidance_agent.tracing.tracer import NEW_TRACE, NO_TRACING, Tracing

__all__ = [
    "NEW_TRACE",
    "NO_SPAN",
    "NO_TRACING",
    "Attributes",
    "Outcome",
    "Span",
    "SpanContext",
    "SpanKind",
    "Tracing",
]

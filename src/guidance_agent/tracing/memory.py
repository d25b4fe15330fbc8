"""A sink that keeps what it is given, for tests and for looking at what would leave."""

from __future__ import annotations

from collections.abc import Sequence

from guidance_agent.tracing.export import ExportLimits, ExportThread, Sent
from guidance_agent.tracing.preparing import FinishedSpan, NoRedaction, Preparation, Redactor
from guidance_agent.tracing.tracer import Tracing

__all__ = ["MemorySink", "tracing_in_memory"]


class MemorySink:
    """Keeps finished spans, as they would have left: redacted and cut."""

    def __init__(self) -> None:
        self.spans: list[FinishedSpan] = []

    def send(self, spans: Sequence[FinishedSpan], timeout: float) -> Sent:
        self.spans.extend(spans)
        return Sent(len(spans))

    def close(self) -> None:
        pass

    def named(self, name: str) -> list[FinishedSpan]:
        """Return the spans of this name, in the order of their ends."""
        return [span for span in self.spans if span.name == name]


def tracing_in_memory(redactor: Redactor | None = None, *, user_key: bytes = b"test") -> tuple[Tracing, MemorySink]:
    """Return a tracing and the sink that collects its spans; `tracing.flush(seconds)` brings them there."""
    sink = MemorySink()
    limits = ExportLimits(delay=0.01)
    return Tracing(ExportThread(sink, Preparation(redactor or NoRedaction()), limits), user_key=user_key), sink

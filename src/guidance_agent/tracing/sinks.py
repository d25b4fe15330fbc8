"""Two sinks without a collector: lines for the console, and the application's own spans."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TextIO

from guidance_agent.tracing.export import Sent
from guidance_agent.tracing.foreign import finish
from guidance_agent.tracing.preparing import FinishedSpan

__all__ = ["ConsoleSink", "ForeignSink"]

_NANO = 1_000_000_000


class ConsoleSink:
    """Writes one line of JSON for each span.

    Args:
        stream: Where to; None is the standard error, which leaves what a command prints to those who read it.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def send(self, spans: Sequence[FinishedSpan], timeout: float) -> Sent:
        stream = self._stream or sys.stderr
        for span in spans:
            stream.write(json.dumps(_as_json(span), ensure_ascii=False) + "\n")
        stream.flush()
        return Sent(len(spans))

    def close(self) -> None:
        pass


def _as_json(span: FinishedSpan) -> dict[str, object]:
    status = {None: "unset", True: "ok", False: "error"}[span.status]
    return {
        "span": span.name,
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_id": None if span.parent is None else f"{span.parent.span_id:016x}",
        "seconds": round((span.finished - span.started) / _NANO, 6),
        "status": f"{status}: {span.message}" if span.message else status,
        "attributes": span.attributes,
        "events": [
            {"event": event.name, "after": round((event.at - span.started) / _NANO, 6), "attributes": event.attributes}
            for event in span.events
        ],
    }


class ForeignSink:
    """Gives the application's spans what ours carry, and ends them; where they go is the application's business."""

    def send(self, spans: Sequence[FinishedSpan], timeout: float) -> Sent:
        for span in spans:
            if span.original.foreign is not None:
                finish(
                    span.original.foreign,
                    attributes=span.attributes,
                    events=[(event.name, event.at, event.attributes) for event in span.events],
                    failed=None if span.status is None else not span.status,
                    message=span.message,
                    finished=span.finished,
                )
        return Sent(len(spans))

    def close(self) -> None:
        pass

"""A span while it is open, and where it stands in its trace.

A span only collects. Nothing that takes time happens to it before it has ended and the exporter's thread has it: values
are redacted, cut and encoded there. Every method may be called at any time and on any thread, after the end too, when
it does nothing; none raises.

Times are those of the wall clock at the root's start, carried forward by the monotonic clock: a clock that is set
during a turn moves none of its spans against the others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from guidance_agent.tracing import attributes as names

if TYPE_CHECKING:
    from opentelemetry.trace import Span as ForeignSpan

__all__ = [
    "NO_SPAN",
    "Attributes",
    "Outcome",
    "Span",
    "SpanContext",
    "SpanEvent",
    "SpanKind",
    "SpanOwner",
    "Value",
    "read_traceparent",
]

Value: TypeAlias = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float] | None
Attributes: TypeAlias = Mapping[str, Value]
SpanKind = Literal["AGENT", "CHAIN", "EMBEDDING", "EVALUATOR", "GUARDRAIL", "LLM", "RETRIEVER", "TOOL"]
Outcome = Literal["completed", "closed_early", "cancelled", "failed", "truncated"]

LONGEST_KEPT = 33_024
"""Characters that a span keeps of one text: the most that is ever exported of it, and a margin for redaction."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class SpanContext(NamedTuple):
    """Where a span stands: what a child needs to know of it, here or in another process."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The context in the form of the W3C's header of this name, 55 characters."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.sampled else '00'}"


def read_traceparent(value: str | None) -> SpanContext | None:
    """Return what a stored traceparent says; None when it is none that can be read."""
    match = _TRACEPARENT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None or match.string.startswith("ff"):
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, sampled=bool(int(match[3], 16) & 1))


class CutText(NamedTuple):
    """The beginning of a text that was too long to keep, and how long it was."""

    text: str
    length: int


class SpanEvent(NamedTuple):
    """Something that happened at a moment, in nanoseconds since the epoch."""

    name: str
    at: int
    attributes: Attributes


class Anchor(NamedTuple):
    """One moment by two clocks: the wall's and the monotonic one, in nanoseconds."""

    wall: int
    monotonic: int

    @classmethod
    def now(cls) -> Anchor:
        return cls(time.time_ns(), time.perf_counter_ns())

    def time(self) -> int:
        """Return the present time, in nanoseconds since the epoch."""
        return self.wall + time.perf_counter_ns() - self.monotonic


class SpanOwner(Protocol):
    """Who takes a span that has ended."""

    def ended(self, span: Span) -> None:
        """Take the span. Called once for each, on any thread; must neither block nor raise."""

    def fault(self, error: Exception) -> None:
        """Note that something went wrong which must not reach the caller."""


class Span:
    """One piece of work in a trace. Made by `Tracing.span`.

    Attributes:
        name: What was done.
        kind: What sort of work, in OpenInference's words.
        context: Where it stands.
        parent: Where its parent stands; None for the root of a trace.
        link: Where the span stands that this one came of, in another trace.
        attributes: What it carries.
        events: What happened meanwhile.
        names: The customer's own names, which redaction looks for.
        started: Nanoseconds since the epoch.
        finished: The same of its end; None while it is open.
        status: None says nothing, True is well, False is an error.
        message: What the error was.
        size: About how many characters it holds.
        foreign: The application's own span that this one stands for, if there is one.
        parented: Whether another span has it as its parent.
        left: Whether whoever wanted the work has left early, so that what is cancelled below it was not needed.
    """

    __slots__ = (
        "_owner",
        "_shared",
        "anchor",
        "attributes",
        "context",
        "events",
        "finished",
        "foreign",
        "kind",
        "left",
        "link",
        "message",
        "name",
        "names",
        "parent",
        "parented",
        "size",
        "started",
        "status",
    )

    is_recording = True

    def __init__(
        self,
        owner: SpanOwner | None,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        *,
        parent: SpanContext | None,
        anchor: Anchor,
        started: int,
        link: SpanContext | None = None,
        shared: dict[str, Value] | None = None,
        names: tuple[str, ...] = (),
        foreign: ForeignSpan | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.context = context
        self.parent = parent
        self.link = link
        self.anchor = anchor
        self.started = started
        self.finished: int | None = None
        self.attributes: dict[str, Value | CutText] = dict(shared) if shared else {}
        self.events: list[SpanEvent] = []
        self.names = names
        self.status: bool | None = None
        self.message = ""
        self.size = 0
        self.foreign = foreign
        self.parented = False
        self.left = False
        self._owner = owner
        self._shared: dict[str, Value] = shared or {}

    @property
    def traceparent(self) -> str | None:
        """The span's place, to be stored and continued from elsewhere; at most 55 characters."""
        return self.context.traceparent

    @property
    def trace_id(self) -> str | None:
        return f"{self.context.trace_id:032x}"

    @property
    def span_id(self) -> str | None:
        return f"{self.context.span_id:016x}"

    @property
    def shared(self) -> dict[str, Value]:
        """What descendants are born with; to be read only."""
        return self._shared

    def set(self, attributes: Attributes) -> None:
        """Note attributes; None is left out, and a text that is too long is kept as far as it will be shown."""
        if self.finished is not None:
            return
        kept = self.attributes
        for key, value in attributes.items():
            if value is None:
                continue
            if type(value) is str:
                length = len(value)
                if length > LONGEST_KEPT:
                    kept[key] = CutText(value[:LONGEST_KEPT], length)
                    self.size += LONGEST_KEPT
                    continue
                self.size += length
            kept[key] = value

    def share(self, attributes: Attributes, *, names: Sequence[str] = ()) -> None:
        """Note attributes on this span and on every span that is begun below it from now on.

        Args:
            names: Names of the customer, which redaction looks for in all of these spans.
        """
        self.set(attributes)
        # A new one: spans that are open already have the old one.
        self._shared = {**self._shared, **{key: value for key, value in attributes.items() if value is not None}}
        self.names = tuple(dict.fromkeys((*self.names, *names)))

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note that something happened now."""
        if self.finished is None:
            self.events.append(SpanEvent(name, self.anchor.time(), attributes or {}))

    def fail(self, error: BaseException) -> None:
        """Note what the work failed with; the span's status becomes an error."""
        if self.finished is not None:
            return
        kind = type(error).__name__
        try:
            message = str(error)[:LONGEST_KEPT]
        except Exception as unprintable:
            message = f"{type(unprintable).__name__} while its message was made"
        self.event(names.EXCEPTION, {names.EXCEPTION_TYPE: kind, names.EXCEPTION_MESSAGE: message})
        self.status, self.message = False, f"{kind}: {message}"

    def end(self, *, outcome: Outcome | None = None, end: datetime | None = None) -> None:
        """End the span, once.

        Args:
            outcome: What became of it; `failed` and `truncated` make its status an error, the others leave it well.
            end: When it ended; None is now.
        """
        if self.finished is not None:
            return
        if outcome is not None:
            self.attributes[names.OUTCOME] = outcome
        if self.status is None:
            self.status = outcome not in ("failed", "truncated")
        finished = self.anchor.time() if end is None else nanoseconds(end)
        self.finished = max(self.started, finished)
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.ended(self)


class NoSpan(Span):
    """What stands in for a span where nothing is traced: it takes everything and keeps nothing."""

    __slots__ = ()

    is_recording = False

    def __init__(self, context: SpanContext | None = None) -> None:
        super().__init__(
            None,
            "",
            "CHAIN",
            context or SpanContext(0, 0, sampled=False),
            parent=None,
            anchor=Anchor(0, 0),
            started=0,
        )
        self.finished = 0

    @property
    def traceparent(self) -> str | None:
        return self.context.traceparent if self.context.trace_id else None

    @property
    def trace_id(self) -> str | None:
        return super().trace_id if self.context.trace_id else None

    @property
    def span_id(self) -> str | None:
        return super().span_id if self.context.trace_id else None

    def share(self, attributes: Attributes, *, names: Sequence[str] = ()) -> None:
        pass

    def continue_with(self, attributes: Attributes, names: Sequence[str]) -> None:
        """Have the spans below this one carry attributes, and redaction look for names in them."""
        self._shared = {key: value for key, value in attributes.items() if value is not None}
        self.names = tuple(names)


NO_SPAN = NoSpan()


def nanoseconds(moment: datetime) -> int:
    """Return a moment as nanoseconds since the epoch."""
    return int(moment.timestamp() * 1_000_000) * 1_000

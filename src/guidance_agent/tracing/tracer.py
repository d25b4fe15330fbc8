"""What the rest of the package traces with: `Tracing` makes spans, keeps the current one, and continues stored traces.

The current span is a context variable of ours: a task that is created inherits it, and the package never sets it around
a `yield`. `NO_TRACING` has the same methods and does nothing, so that no caller asks whether tracing is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from contextvars import ContextVar, Token
from datetime import datetime
from types import TracebackType
from typing import Final, Literal, Protocol, TypeAlias

from guidance_agent.tracing.attributes import LINK_SPAN_ID, LINK_TRACE_ID
from guidance_agent.tracing.faults import tell_fault
from guidance_agent.tracing.foreign import ForeignTracer, current_foreign_context
from guidance_agent.tracing.redaction_key import pseudonym
from guidance_agent.tracing.span import (
    NO_SPAN,
    Anchor,
    Attributes,
    NoSpan,
    Outcome,
    Span,
    SpanContext,
    SpanKind,
    nanoseconds,
    read_traceparent,
)

__all__ = ["CLOSE_SECONDS", "NEW_TRACE", "NO_TRACING", "Current", "NoTracing", "Outlet", "Parent", "Tracing"]

CLOSE_SECONDS: Final = 2.0
"""How long closing waits for what is still to be delivered."""

NEW_TRACE: Final = "new trace"
"""The parent of a span that begins a trace of its own, whatever is current."""

Parent: TypeAlias = "Span | SpanContext | Literal['new trace'] | None"

_current: ContextVar[Span] = ContextVar("guidance_agent_span", default=NO_SPAN)


class Outlet(Protocol):
    """Where spans go that have ended."""

    @property
    def has_room(self) -> bool:
        """Whether many more spans can end now without being dropped."""

    def put(self, span: Span) -> None:
        """Take a span; never blocks."""

    def flush(self, timeout: float) -> bool:
        """Return whether everything that was put before is delivered; blocks for at most `timeout` seconds."""

    def close(self, timeout: float) -> None:
        """Deliver what waits, for at most `timeout` seconds, and take nothing more; blocks."""


class Tracing:
    """Makes the spans of a process. Belongs to a runtime, which closes it last.

    Args:
        outlet: Where spans go that have ended.
        user_key: Key of the hash that stands for a customer's id.
        foreign: The application's own tracer, if its provider is used.
    """

    is_on = True

    def __init__(self, outlet: Outlet, *, user_key: bytes = b"", foreign: ForeignTracer | None = None) -> None:
        self.outlet = outlet
        self._user_key = user_key
        self._foreign = foreign
        self._faulted = False
        # A generator with a state would give the same ids to every process that is forked, or seeds it.
        self._ids = random.SystemRandom().getrandbits

    def span(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: Parent = None,
        attributes: Attributes | None = None,
        start: datetime | None = None,
        link: SpanContext | None = None,
    ) -> Span:
        """Begin a span and return it; it is not made current.

        Args:
            name: What is done.
            kind: What sort of work it is.
            parent: The span above it; None is the current one, and where there is none the application's own current
                span. `NEW_TRACE` begins a trace.
            attributes: What it carries from the beginning.
            start: When it began; None is now.
            link: A span of another trace that this one came of; its ids become attributes, too, because not every back
                end keeps links.
        """
        try:
            span = self._begin(name, kind, parent, start, link)
            if attributes:
                span.set(attributes)
            if link is not None:
                span.set(
                    {
                        LINK_TRACE_ID: f"{link.trace_id:032x}",
                        LINK_SPAN_ID: f"{link.span_id:016x}",
                    }
                )
        except Exception as error:
            self.fault(error)
            return NO_SPAN
        return span

    def current(self, span: Span) -> Current:
        """Return a context manager that makes a span the current one. No `yield` of a generator belongs into it."""
        return Current(span, self._foreign)

    @contextlib.contextmanager
    def work(
        self, name: str, kind: SpanKind, *, parent: Parent = None, attributes: Attributes | None = None
    ) -> Iterator[Span]:
        """Have a span that is current while the block runs and ends with it, by its outcome.

        What the block raises becomes the span's failure; a cancellation is none. No `yield` belongs into the block.
        """
        span = self.span(name, kind, parent=parent, attributes=attributes)
        outcome: Outcome = "completed"
        try:
            with self.current(span):
                yield span
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        except BaseException as error:
            outcome = "failed"
            span.fail(error)
            raise
        finally:
            span.end(outcome=outcome)

    def continued(
        self, traceparent: str | None, attributes: Attributes | None = None, *, names: Sequence[str] = ()
    ) -> Current:
        """Return a context manager in which spans go on with a trace that was stored; without one they begin another.

        Args:
            traceparent: What `Span.traceparent` was.
            attributes: What spans that begin in the block carry.
            names: Names of the customer, which redaction looks for in them.
        """
        above = NoSpan(read_traceparent(traceparent))
        above.continue_with(attributes or {}, names)
        return Current(above, self._foreign)

    @property
    def current_span(self) -> Span:
        """The current span; `NO_SPAN` where there is none."""
        return _current.get()

    def user_id(self, customer_id: str) -> str:
        """Return what stands for a customer in spans: the same for the same customer and key."""
        return pseudonym(customer_id, self._user_key)

    @property
    def has_room(self) -> bool:
        """Whether many more spans can end now without being dropped; whoever has very many asks before making them."""
        return self.outlet.has_room

    def flush(self, timeout: float) -> bool:
        """Return whether all ended spans are delivered. Blocks for at most `timeout` seconds: not on a loop."""
        return self.outlet.flush(timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Deliver what waits for at most `timeout` seconds, and stop. Blocks: not on a loop."""
        self.outlet.close(timeout)

    # What spans need.

    def ended(self, span: Span) -> None:
        try:
            self.outlet.put(span)
        except Exception as error:
            self.fault(error)

    def fault(self, error: Exception) -> None:
        """Tell the log once that tracing has a fault; what is traced goes on."""
        if not self._faulted:
            self._faulted = True
            tell_fault(error)

    def _begin(
        self, name: str, kind: SpanKind, parent: Parent, start: datetime | None, link: SpanContext | None
    ) -> Span:
        if parent is None:
            parent = _current.get()
        above: SpanContext | None = None
        anchor: Anchor | None = None
        shared = None
        names: tuple[str, ...] = ()
        if isinstance(parent, Span):
            shared, names = parent.shared, parent.names
            if parent.is_recording:
                parent.parented = True
                above, anchor = parent.context, parent.anchor
            elif parent.context.trace_id:
                above = parent.context
            elif parent is NO_SPAN:
                above = current_foreign_context()
        elif isinstance(parent, SpanContext):
            above = parent
        anchor = anchor or Anchor.now()
        started = anchor.time() if start is None else nanoseconds(start)
        foreign = None
        if self._foreign is not None:
            foreign, context = self._foreign.start(name, above, started, link)
            if foreign is None:
                return NoSpan(context)
        else:
            trace_id = above.trace_id if above is not None else self._ids(128) or 1
            context = SpanContext(trace_id, self._ids(64) or 1)
        return Span(
            self,
            name,
            kind,
            context,
            parent=above,
            anchor=anchor,
            started=started,
            link=link,
            shared=shared,
            names=names,
            foreign=foreign,
        )


class Current:
    """Makes a span current while the block runs."""

    __slots__ = ("_foreign", "_foreign_token", "_span", "_token")

    def __init__(self, span: Span, foreign: ForeignTracer | None) -> None:
        self._span = span
        self._foreign = foreign
        self._token: Token[Span] | None = None
        self._foreign_token: object | None = None

    def __enter__(self) -> Span:
        span = self._span
        if span is not NO_SPAN:
            self._token = _current.set(span)
            if self._foreign is not None:
                self._foreign_token = self._foreign.attach(span)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A coroutine that is collected while it waits is closed in somebody else's context, where nothing was set.
        if self._token is None or _current.get() is not self._span:
            return
        try:
            _current.reset(self._token)
        except ValueError:
            return
        if self._foreign is not None and self._foreign_token is not None:
            self._foreign.detach(self._foreign_token)


class NoTracing(Tracing):
    """Traces nothing."""

    is_on = False

    def __init__(self) -> None:
        super().__init__(_Nowhere())

    def span(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: Parent = None,
        attributes: Attributes | None = None,
        start: datetime | None = None,
        link: SpanContext | None = None,
    ) -> Span:
        return NO_SPAN

    def current(self, span: Span) -> Current:
        return _NOT_CURRENT

    @property
    def current_span(self) -> Span:
        return NO_SPAN

    def continued(
        self, traceparent: str | None, attributes: Attributes | None = None, *, names: Sequence[str] = ()
    ) -> Current:
        return _NOT_CURRENT

    def user_id(self, customer_id: str) -> str:
        return ""


class _Nowhere:
    has_room = False

    def put(self, span: Span) -> None:
        pass

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        pass


_NOT_CURRENT = Current(NO_SPAN, None)
NO_TRACING = NoTracing()

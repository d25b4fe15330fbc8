"""The exporter: one thread that takes the spans that have ended, makes them ready, and hands them to a sink.

What a span's end costs its caller is one append to a bounded queue. There is no lock between the two sides that a
caller could wait for: the queue is a `deque`, and the thread is woken through a `SimpleQueue`, whose `put` never blocks
and may be called from a finaliser in the middle of anything.

- The queue is bounded by spans and by characters. What does not fit is dropped, counted, and told once per spell.
- A batch that a collector cannot take now is kept and tried again, later and later; meanwhile the queue fills. What it
  refuses for good is counted and not tried again.
- The thread works in small pieces and pauses between them, because it shares the interpreter with the event loop.
- Closing delivers what waits within a deadline that is ours and not the sink's: a thread that hangs in a socket is left
  to the end of the process.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from guidance_agent.tracing.faults import tell_fault
from guidance_agent.tracing.preparing import FinishedSpan, Preparation
from guidance_agent.tracing.span import Span
from guidance_agent.tracing.tracer import CLOSE_SECONDS

__all__ = ["ExportLimits", "ExportThread", "Exported", "Sent", "Sink"]

_FIRST_RETRY, _LONGEST_RETRY = 1.0, 30.0
_BATCH_CHARACTERS = 1_000_000
_WORK, _WORK_OF_SPAN, _LONGEST_PAUSE = 0.002, 0.000_2, 0.01
"""Seconds: work after which the thread pauses as long, what a span counts besides its texts, the longest pause."""
_CLOSING_SEND = 0.75
_ROOM = 4
_TELL_EVERY = 60.0
_FULL, _STOP = "full", "stop"
_logger = logging.getLogger("guidance_agent.tracing")


class ExportLimits(NamedTuple):
    """How much waits, and how it leaves. `delay` and `timeout` are in seconds."""

    spans: int = 8_192
    characters: int = 64_000_000
    batch: int = 256
    delay: float = 1.0
    timeout: float = 2.0


class Sent(NamedTuple):
    """What became of a batch.

    Attributes:
        accepted: Spans that arrived.
        refused: Spans that will never be taken.
        problem: Why, in one line; empty when all arrived.
        try_again: Whether the batch may be taken later; neither of the counts then says anything.
        after: Seconds that the collector asked to be left alone.
    """

    accepted: int
    refused: int = 0
    problem: str = ""
    try_again: bool = False
    after: float | None = None


class Exported(NamedTuple):
    """What became of all spans that have ended.

    `dropped` found the queue full, `refused` were not wanted by the collector, `lost` could not be delivered before the
    end or were broken by a fault of tracing.
    """

    delivered: int
    waiting: int
    dropped: int
    refused: int
    lost: int


class Sink(Protocol):
    """Takes batches of spans on the exporter's thread."""

    def send(self, spans: Sequence[FinishedSpan], timeout: float) -> Sent:
        """Deliver a batch within about `timeout` seconds and tell what became of it."""

    def close(self) -> None:
        """Let go of connections."""


class _Flush(NamedTuple):
    done: threading.Event
    before: int


class ExportThread:
    """The queue and its thread, which begins with `start`, or with the first span."""

    def __init__(self, sink: Sink, preparation: Preparation, limits: ExportLimits | None = None) -> None:
        self._sink = sink
        self._preparation = preparation
        preparation.breathe = self._breathe
        self._limits = limits or ExportLimits()
        self._queue: deque[Span | _Flush] = deque()
        self._wake: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._awake = self._hurried = False
        self._characters_in = self._characters_out = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing_until: float | None = None
        self._closed = False
        self._stopped = threading.Event()
        self._pending: list[FinishedSpan] = []
        self._delivered = self._dropped = self._refused = self._lost = 0
        self._away = self._faulted = False
        self._told_drops, self._told_at = 0, -_TELL_EVERY
        self._refusals: set[str] = set()
        self._retry = _FIRST_RETRY
        self._worked = 0.0
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)
        _exporters.add(self)

    @property
    def counts(self) -> Exported:
        """What became of the spans so far."""
        waiting = sum(isinstance(item, Span) for item in tuple(self._queue)) + len(self._pending)
        return Exported(self._delivered, waiting, self._dropped, self._refused, self._lost)

    @property
    def has_room(self) -> bool:
        """Whether many more spans can end now: at most a quarter of what may wait does."""
        return (
            len(self._queue) * _ROOM <= self._limits.spans
            and (self._characters_in - self._characters_out) * _ROOM <= self._limits.characters
        )

    def start(self) -> None:
        """Start the thread before there is a span, whose end would else wait until it runs."""
        # Two threads may end the first spans together; neither waits for the other.
        if not self._runs and self._starting.acquire(blocking=False):
            try:
                if not self._runs:
                    self._thread = threading.Thread(target=self._run, name="guidance-agent tracing", daemon=True)
                    self._thread.start()
            finally:
                self._starting.release()

    @property
    def _runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def put(self, span: Span) -> None:
        limits = self._limits
        if (
            self._closed
            or len(self._queue) >= limits.spans
            or self._characters_in - self._characters_out >= limits.characters
        ):
            self._dropped += 1
            return
        self._queue.append(span)
        self._characters_in += span.size
        self._rouse()
        if len(self._queue) >= limits.batch and not self._hurried:
            self._hurried = True
            self._wake.put(_FULL)

    def flush(self, timeout: float) -> bool:
        """Return whether what was put before is delivered; blocks for at most `timeout` seconds."""
        if self._closed:
            return not self.counts.waiting
        mark = _Flush(threading.Event(), self._refused + self._lost)
        self._queue.append(mark)
        self._rouse()
        self._wake.put(_FULL)
        return mark.done.wait(timeout) and self._refused + self._lost == mark.before

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Deliver what waits within `timeout` seconds, and take nothing more; blocks."""
        if self._closed:
            return
        self._closing_until = time.monotonic() + timeout
        self._closed = True
        atexit.unregister(self._at_exit)
        if self._thread is None:
            return
        self._wake.put(_STOP)
        self._stopped.wait(timeout)
        left = self.counts
        if left.waiting:
            self._lost += left.waiting
            self._queue.clear()
            self._pending = []
        if left.waiting or left.dropped:
            _logger.warning(
                "Tracing ended with %d spans that could not be delivered and %d that were dropped before; %d arrived. "
                "Start the collector first, or set GUIDANCE_TRACING=off.",
                left.waiting,
                left.dropped,
                left.delivered,
            )

    def forked(self) -> None:
        """Begin anew in a process that was forked: what waits is the parent's to deliver."""
        self._queue.clear()
        self._pending = []
        self._wake = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._thread = None
        self._awake = self._hurried = False
        self._characters_in = self._characters_out = 0

    def _rouse(self) -> None:
        if self._awake:
            return
        self._awake = True
        self.start()
        self._wake.put("spans")

    # The thread

    def _run(self) -> None:
        try:
            while self._closing_until is None or self._queue or self._pending:
                if self._closing_until is None:
                    self._wake.get()
                    self._gather()
                self._awake = self._hurried = False
                while (self._queue or self._pending) and self._time_is_left:
                    self._step()
                self._tell_drops()
                if not self._time_is_left:
                    break
        finally:
            self._stopped.set()
            self._sink.close()

    @property
    def _time_is_left(self) -> bool:
        return self._closing_until is None or time.monotonic() < self._closing_until

    def _gather(self) -> None:
        """Wait until a batch has come together, for as long as that may take."""
        until = time.monotonic() + self._limits.delay
        while len(self._queue) < self._limits.batch and self._closing_until is None:
            left = until - time.monotonic()
            if left <= 0:
                return
            try:
                if self._wake.get(timeout=left) != "spans":
                    return
            except queue.Empty:
                return

    def _step(self) -> None:
        """Make the next batch ready and send it; wait where it has to be tried again."""
        if not self._pending:
            self._fill()
        batch = self._pending
        if not batch:
            return
        sent = self._send(batch)
        if sent is None:
            self._pending = []
            self._lost += len(batch)
            return
        if not sent.try_again:
            self._pending = []
            self._delivered += sent.accepted
            self._refused += sent.refused
            self._tell_of(sent)
            self._retry = _FIRST_RETRY
            return
        self._tell_of(sent)
        self._wait(max(self._retry, sent.after or 0.0), asked=sent.after)
        self._retry = min(2 * self._retry, _LONGEST_RETRY)

    def _fill(self) -> None:
        characters = 0
        flushes: list[_Flush] = []
        while self._queue and len(self._pending) < self._limits.batch and characters < _BATCH_CHARACTERS:
            item = self._queue.popleft()
            if isinstance(item, _Flush):
                if self._pending:
                    self._queue.appendleft(item)
                    break
                flushes.append(item)
                continue
            self._characters_out += item.size
            characters += item.size
            try:
                self._pending.append(self._preparation.prepare(item))
            except Exception as error:
                self._lost += 1
                self._tell_fault(error)
            self._breathe(_WORK_OF_SPAN)
        for flush in flushes:
            flush.done.set()

    def _breathe(self, worked: float) -> None:
        # Without it the event loop waits for a whole switch interval whenever it wants the interpreter back.
        self._worked += worked
        if self._worked >= _WORK and self._closing_until is None and len(self._queue) < self._limits.spans // 2:
            time.sleep(min(self._worked, _LONGEST_PAUSE))
            self._worked = 0.0

    def _send(self, batch: Sequence[FinishedSpan]) -> Sent | None:
        timeout = self._limits.timeout
        if self._closing_until is not None:
            timeout = max(0.05, min(timeout, _CLOSING_SEND, self._closing_until - time.monotonic()))
        try:
            return self._sink.send(batch, timeout)
        except Exception as error:
            self._tell_fault(error)
            return None

    def _wait(self, seconds: float, *, asked: float | None) -> None:
        until = time.monotonic() + seconds
        while self._closing_until is None and (left := until - time.monotonic()) > 0:
            try:
                if self._wake.get(timeout=left) == _STOP:
                    return
            except queue.Empty:
                return
        if self._closing_until is not None:
            # A collector that is away now is not there in a second; one that named a time may be.
            now = time.monotonic()
            if asked is None or now + asked >= self._closing_until:
                self._closing_until = now
            else:
                time.sleep(asked)

    # What the log is told, once each

    def _tell_of(self, sent: Sent) -> None:
        if sent.try_again:
            if not self._away:
                _logger.warning(
                    "Traces cannot be delivered: %s. Up to %d spans are kept and sent when the collector is there; "
                    "answers go on as ever.",
                    sent.problem,
                    self._limits.spans,
                )
            self._away = True
            return
        if self._away and sent.accepted:
            self._away = False
            _logger.warning("Traces are delivered again.")
        if sent.refused and sent.problem not in self._refusals:
            self._refusals.add(sent.problem)
            _logger.warning("Traces are refused: %s. Spans are lost until that is put right.", sent.problem)

    def _tell_drops(self) -> None:
        dropped, now = self._dropped, time.monotonic()
        if dropped == self._told_drops or now - self._told_at < _TELL_EVERY:
            return
        _logger.warning(
            "%d spans were dropped (%d in all): more end than the collector takes. Answers go on as ever.",
            dropped - self._told_drops,
            dropped,
        )
        self._told_drops, self._told_at = dropped, now

    def _tell_fault(self, error: Exception) -> None:
        if not self._faulted:
            self._faulted = True
            tell_fault(error)


_exporters: weakref.WeakSet[ExportThread] = weakref.WeakSet()


def _close_at_exit(found: weakref.ref[ExportThread]) -> None:
    exporter = found()
    if exporter is not None:
        exporter.close()


def _forked() -> None:
    for exporter in tuple(_exporters):
        exporter.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

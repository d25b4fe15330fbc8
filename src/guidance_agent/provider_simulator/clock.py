"""Time for the simulator: the system's, or one that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "Timer", "sleep_until"]


class Timer(Protocol):
    """What `call_at` returns; a cancelled timer never fires."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Seconds since the epoch and a way to wait for a moment; everything that takes time in the simulator uses it."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def call_at(self, moment: float, callback: Callable[[], None]) -> Timer:
        """Call back from the event loop when `now()` has reached `moment`, in the next iteration if it already has."""


async def sleep_until(clock: Clock, moment: float) -> None:
    """Return when `clock` has reached `moment`, at once when it already has."""
    if moment <= clock.now():
        return
    reached = asyncio.Event()
    timer = clock.call_at(moment, reached.set)
    try:
        await reached.wait()
    finally:
        timer.cancel()


class SystemClock:
    """Wall-clock seconds that never run backwards while the process lives."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def call_at(self, moment: float, callback: Callable[[], None]) -> Timer:
        loop = asyncio.get_running_loop()
        # An endless wait is cut to eleven days: event loops reject infinity.
        delay = min(moment - self.now(), 1_000_000.0)
        return loop.call_soon(callback) if delay <= 0 else loop.call_later(delay, callback)


class ManualClock:
    """A clock that stands still until `advance` is called; what waits for it wakes in the order of the moments."""

    def __init__(self, start: float = 1_795_000_000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, _ManualTimer]] = []

    def now(self) -> float:
        return self._now

    def call_at(self, moment: float, callback: Callable[[], None]) -> Timer:
        if moment <= self._now:
            return asyncio.get_running_loop().call_soon(callback)
        timer = _ManualTimer(callback)
        heapq.heappush(self._waiting, (moment, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`, firing on the way everything that falls due."""
        if seconds < 0:
            raise ValueError(f"a clock only moves forward, got {seconds!r} seconds; pass a positive number")
        until = self._now + seconds
        while self._waiting and self._waiting[0][0] <= until:
            moment, _, timer = heapq.heappop(self._waiting)
            self._now = moment
            timer.fire()
        self._now = until


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()

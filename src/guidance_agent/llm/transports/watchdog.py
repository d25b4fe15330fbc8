"""Time-outs of a stream that cost nothing per chunk.

One timer is armed at most, and it is not moved when something arrives: when it fires it looks at what has happened
meanwhile and sleeps again for the rest. Only time spent waiting for the provider counts; while the caller is busy with
what it has read, no time-out runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from guidance_agent.errors import TimeoutPhase
from guidance_agent.settings import TimeoutSettings

__all__ = ["Watchdog"]


class Watchdog:
    """Watches one answer and calls `abort` when the provider has been silent for too long.

    Args:
        loop: The loop the answer is read on.
        timeouts: Limits in seconds.
        first_event: What is left of the time for the first event.
        abort: Closes the answer; the read that waits then fails, and `expired` says which limit it was.
    """

    __slots__ = ("_abort", "_limit", "_loop", "_timeouts", "_timer", "_waited", "_waiting_since", "expired")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: TimeoutSettings,
        *,
        first_event: float,
        abort: Callable[[], None],
    ) -> None:
        self.expired: TimeoutPhase | None = None
        self._loop = loop
        self._timeouts = timeouts
        self._limit: tuple[TimeoutPhase, float] = ("first_event", max(0.0, first_event))
        self._abort = abort
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._waited = 0.0

    def wait_begins(self) -> None:
        now = self._waiting_since = self._loop.time()
        if self._timer is None:
            self._arm(self._deadline(now)[1])

    def wait_ends(self) -> None:
        if self._waiting_since is not None:
            self._waited += self._loop.time() - self._waiting_since
            self._waiting_since = None

    def first_arrived(self) -> None:
        """Note that the provider has begun to send: from now on the limit between events holds."""
        self._limit = ("between_events", self._timeouts.between_events)
        # The timer may be set for much later than that.
        self.stop()

    def content_arrived(self) -> None:
        self._waited = 0.0

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deadline(self, since: float) -> tuple[TimeoutPhase, float]:
        phase, limit = self._limit
        silent = since + limit
        if phase == "first_event":
            return phase, silent
        empty = since + self._timeouts.without_content - self._waited
        return ("without_content", empty) if empty < silent else (phase, silent)

    def _arm(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._waiting_since is None:
            return
        phase, deadline = self._deadline(self._waiting_since)
        if self._loop.time() < deadline:
            self._arm(deadline)
            return
        self.expired = phase
        self._abort()

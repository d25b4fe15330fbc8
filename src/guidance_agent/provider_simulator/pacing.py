"""When each chunk of an answer is due, and one timer that serves all streams."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from guidance_agent.provider_simulator.clock import Clock, Timer
from guidance_agent.provider_simulator.tokens import count_tokens

__all__ = ["Pace", "Pacer"]

_SLACK = 0.000_5


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first chunk, and between chunks: by tokens, or fixed when `interval` is given."""

    first: float = 0.0
    tokens_per_second: float | None = None
    interval: float | None = None

    def step(self, tokens: int) -> float:
        if self.interval is not None:
            return self.interval
        return tokens / self.tokens_per_second if self.tokens_per_second else 0.0

    def step_for(self, piece: str) -> float:
        if self.interval is not None or self.tokens_per_second is None:
            return self.step(0)
        return self.step(count_tokens(piece))


class Pacer:
    """Calls many steppers at their moments from a single timer.

    A stepper does what is due and returns the moment at which it wants to be called again, or None. One timer for all
    keeps hundreds of paced streams at a fraction of a core, which a sleeping task per stream would not.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[float], float | None]]] = []
        self._timer: Timer | None = None
        self._armed_for = float("inf")

    def add(self, stepper: Callable[[float], float | None], moment: float) -> None:
        heapq.heappush(self._queue, (moment, next(self._order), stepper))
        if moment < self._armed_for:
            self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for = float("inf")
        if self._queue:
            self._armed_for = self._queue[0][0]
            self._timer = self._clock.call_at(self._armed_for, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock.now()
        due = []
        while self._queue and self._queue[0][0] <= now + _SLACK:
            due.append(heapq.heappop(self._queue)[2])
        for stepper in due:
            again = stepper(now)
            if again is not None:
                heapq.heappush(self._queue, (again, next(self._order), stepper))
        self._arm()

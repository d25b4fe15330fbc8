"""The leave to send one call, and what its answer teaches about limits and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from guidance_agent.llm.limits_state import NOTHING, Amounts, Bounds, LimitState, Reserved
from guidance_agent.llm.messages import Usage
from guidance_agent.llm.providers.base import LimitedTokens
from guidance_agent.llm.transports.rate_headers import read_rate_headers

__all__ = ["CallSize", "Grant", "Learned"]

_WEIGHT = 0.2
_LEAST_RATIO, _MOST_RATIO = 0.02, 4.0


class CallSize(NamedTuple):
    """What a call is estimated to take before it is sent, in tokens."""

    input_tokens: float
    max_output_tokens: float
    counting: LimitedTokens = "all"


@dataclass(slots=True)
class Learned:
    """How a model's calls differ from their estimates: caches read, tokenisers cut otherwise, answers are short."""

    ratio: float = 1.0
    output_tokens: float = 256.0

    def expected(self, size: CallSize) -> Amounts:
        """Return what a call will take, by what earlier ones took."""
        output = min(size.max_output_tokens, self.output_tokens)
        tokens = size.input_tokens * self.ratio
        if size.counting == "all":
            tokens += output
        return Amounts(1.0, tokens, output)

    def note(self, size: CallSize, usage: Usage) -> Amounts:
        """Return what a call took, and remember it for the next."""
        written = usage.input_tokens + usage.cache_write_tokens
        taken = usage.total_input_tokens if size.counting == "all" else written
        if size.input_tokens:
            ratio = min(_MOST_RATIO, max(_LEAST_RATIO, taken / size.input_tokens))
            self.ratio += _WEIGHT * (ratio - self.ratio)
        self.output_tokens += _WEIGHT * (usage.output_tokens - self.output_tokens)
        tokens = taken + (usage.output_tokens if size.counting == "all" else 0)
        return Amounts(1.0, tokens, usage.output_tokens)


class GrantingQueue(Protocol):
    """What a grant needs of the queue that gave it."""

    bounds: Bounds
    learned: Learned

    def change(self, change: Callable[[LimitState, float], None], *, urgent: bool = False) -> None: ...


class Grant:
    """The leave to send one call. What becomes of the call is told to it, and reaches the store with the next look.

    Attributes:
        waited: Seconds that the call waited for it.
    """

    __slots__ = ("_amounts", "_queue", "_reserved", "_settled", "_size", "waited")

    def __init__(
        self, queue: GrantingQueue, size: CallSize, amounts: Amounts, reserved: Reserved, *, waited: float
    ) -> None:
        self.waited = waited
        self._queue = queue
        self._size = size
        self._amounts = amounts
        self._reserved = reserved
        self._settled = False

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take the headers of a successful answer into account."""
        told = read_rate_headers(headers)
        if told.limits == NOTHING:
            return
        bounds, reserved = self._queue.bounds, self._reserved

        def change(state: LimitState, now: float) -> None:
            if not state.refused_at and not any(bounds.per_minute):
                return
            state.tell(told.limits)
            state.correct(reserved.left, told.left, bounds, due=reserved.due, now=now)

        self._queue.change(change)

    def settle(self, usage: Usage | None) -> None:
        """Put what the call took in the place of its estimate; None where nobody knows."""
        if self._settled or usage is None or usage.estimated:
            return
        self._settled = True
        taken = self._queue.learned.note(self._size, usage)
        difference = Amounts(*(real - expected for real, expected in zip(taken, self._amounts, strict=True)))
        self._queue.change(lambda state, now: state.add(difference))

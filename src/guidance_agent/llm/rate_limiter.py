"""Which calls queue for a rate limit: those of models that the settings limit, or that a provider has refused (429)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from guidance_agent.core.clock import Clock
from guidance_agent.errors import QuotaExhaustedError, RateLimitedError
from guidance_agent.llm.limits import LimitQueue, LimitStore, LocalLimitStore, QueueStatus
from guidance_agent.llm.limits_grant import CallSize, Grant
from guidance_agent.llm.limits_state import NOTHING, Amounts, Bounds
from guidance_agent.llm.tokens import estimate_tokens
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.settings import Settings

__all__ = ["Admission", "RateLimiter"]

_TOKENS_PER_MESSAGE = 4


class Admission(NamedTuple):
    """The leave to send a call. `counts` is whether the wait was a part of the call's own deadline."""

    grant: Grant
    counts: bool


class RateLimiter:
    """The queues of all models; one look into a dictionary for a model that has none.

    Args:
        settings: Limits by provider and model, and which operations come first.
        clock: Measures waits.
        own: Runs a queue's own work as a task that closing the gateway waits for.
        store: Keeps the limits; None keeps them in this process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        own: Callable[..., asyncio.Task[object]],
        store: LimitStore | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._own = own
        self._store: LimitStore = store or LocalLimitStore(clock)
        self._queues: dict[str, LimitQueue | None] = {}

    @property
    def status(self) -> Mapping[str, QueueStatus]:
        """How the queues stand, by model with its provider."""
        return {model: queue.status for model, queue in self._queues.items() if queue is not None}

    def queue_of(self, call: PreparedCall) -> LimitQueue | None:
        """Return the queue that a call goes through; None where nothing limits it."""
        model = call.request.model
        try:
            return self._queues[model]
        except KeyError:
            bounds = self._bounds(call)
            queue = self._queues[model] = None if bounds.per_minute == NOTHING else self._queue(model, bounds)
            return queue

    async def admit(self, queue: LimitQueue, call: PreparedCall, within: float) -> Admission:
        """Return once `call` may be sent.

        Args:
            queue: The one that `queue_of` returned.
            call: What is to be sent.
            within: Seconds until the call's deadline. Work in the background may wait for as long as the settings say
                instead, and its deadline begins when it may go.

        Raises:
            LimitWaitError: the wait would be longer.
        """
        priority = self._settings.priority_of(call.request.operation)
        if priority == "chat":
            return Admission(await queue.enter(_size(call), priority, within), True)
        return Admission(await queue.enter(_size(call), priority, self._settings.limits.background_wait), False)

    def refused(self, call: PreparedCall, error: RateLimitedError) -> None:
        """Note that the provider refused a call with a 429: from now on calls of this model queue."""
        if isinstance(error, QuotaExhaustedError) or not self._settings.limits.adapt:
            return
        queue = self.queue_of(call)
        if queue is None:
            queue = self._queues[call.request.model] = self._queue(call.request.model, self._bounds(call))
        retry = self._settings.retry_for(call.endpoint.provider, call.request.operation)
        queue.refused(error, respect_retry_after=retry.respect_retry_after)

    async def aclose(self) -> None:
        """Let nobody wait any longer."""
        for queue in self._queues.values():
            if queue is not None:
                await queue.aclose()

    def _queue(self, model: str, bounds: Bounds) -> LimitQueue:
        return LimitQueue(model, bounds, store=self._store, clock=self._clock, own=self._own)

    def _bounds(self, call: PreparedCall) -> Bounds:
        found = self._settings.limits_for(call.endpoint.provider, call.model_id)
        per_minute = (found.requests_per_minute, found.tokens_per_minute, found.output_tokens_per_minute)
        return Bounds(per_minute=Amounts(*(limit or 0.0 for limit in per_minute)), burst=self._settings.limits.burst)


def _size(call: PreparedCall) -> CallSize:
    request = call.request
    counted = sum(estimate_tokens(message.content) + _TOKENS_PER_MESSAGE for message in request.messages)
    counted += sum(estimate_tokens(f"{tool.name} {tool.description} {dict(tool.parameters)}") for tool in request.tools)
    return CallSize(counted, request.max_tokens, call.traits.limited_tokens)

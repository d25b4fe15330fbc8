"""One call, tried until it gives its first token: retries at a model, then the fallbacks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from guidance_agent.core.clock import Clock
from guidance_agent.errors import (
    ConfigurationError,
    LimitWaitError,
    ModelError,
    ModelTimeoutError,
    RateLimitedError,
)
from guidance_agent.llm.call_record import CallRecorder
from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.rate_limiter import RateLimiter
from guidance_agent.llm.retry import RetrySchedule, may_fall_back
from guidance_agent.llm.transports.base import PreparedCall, Transport
from guidance_agent.settings import RetrySettings

__all__ = ["Door", "try_call"]

T = TypeVar("T")


class Door(Protocol):
    """What an attempt needs of the gateway."""

    clock: Clock
    rng: random.Random
    limiter: RateLimiter

    async def ready(self, request: ModelRequest) -> tuple[PreparedCall, Transport]:
        """Return the prepared call and the open way to its provider."""

    def retry_settings(self, provider: str, operation: str) -> RetrySettings:
        """Return how often and how long a provider is asked again for an operation."""


async def try_call(
    door: Door,
    request: ModelRequest,
    recorder: CallRecorder,
    once: Callable[[PreparedCall, Transport], Awaitable[T]],
) -> T:
    """Return what `once` returns at the first model and attempt where it does not fail.

    Raises:
        ModelError: what the requested model failed with last; notes on it say how the fallbacks failed.
        ConfigurationError: the requested model cannot be called as things are set up.
    """
    first: ModelError | None = None
    for model in (request.model, *request.fallbacks):
        try:
            call, transport = await door.ready(replace(request, model=model, fallbacks=()))
        except ConfigurationError as error:
            if first is None:
                raise
            first.add_note(f"The fallback {model!r} cannot be called: {error}")
            continue
        outcome = await _try_model(door, call, transport, recorder, once)
        if not isinstance(outcome, _Failed):
            return outcome
        if first is None:
            first = outcome.error
        else:
            first.add_note(f"The fallback {model!r} failed, too: {outcome.error}")
        if not may_fall_back(outcome.error):
            break
    if first is None:
        raise RuntimeError("no model was tried")
    raise first


class _Failed:
    def __init__(self, error: ModelError) -> None:
        self.error = error


async def _try_model(
    door: Door,
    call: PreparedCall,
    transport: Transport,
    recorder: CallRecorder,
    once: Callable[[PreparedCall, Transport], Awaitable[T]],
) -> T | _Failed:
    settings = door.retry_settings(call.endpoint.provider, call.request.operation)
    schedule = RetrySchedule(settings, started=door.clock.monotonic(), rng=door.rng)
    while True:
        grant = None
        if (queue := door.limiter.queue_of(call)) is not None:
            try:
                admission = await door.limiter.admit(queue, call, schedule.remaining(door.clock.monotonic()))
            except LimitWaitError as error:
                recorder.not_admitted(call, transport.name)
                return _Failed(error)
            grant = admission.grant
            if not admission.counts:
                schedule.postpone(grant.waited)
        recorder.begin_attempt(call, transport.name, grant)
        try:
            async with asyncio.timeout(schedule.remaining(door.clock.monotonic())):
                return await once(call, transport)
        except ModelError as error:
            failed = error
        except TimeoutError:
            failed = ModelTimeoutError(
                f"{call.endpoint.provider} did not answer for {call.request.model!r} within the retry deadline of "
                f"{settings.deadline:g} s. Ask again later, or raise 'retry.deadline'.",
                phase="first_event",
                provider=call.endpoint.provider,
                model=call.request.model,
                retryable=False,
            )
        if isinstance(failed, RateLimitedError):
            door.limiter.refused(call, failed)
        wait = schedule.wait_after(failed, door.clock.monotonic())
        recorder.attempt_failed(failed, wait)
        if wait is None:
            return _Failed(failed)
        await asyncio.sleep(wait)

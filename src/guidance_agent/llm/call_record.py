"""What is known about one call while it runs, and the one record that it leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from guidance_agent.core.clock import Clock
from guidance_agent.errors import ModelError, RateLimitedError
from guidance_agent.llm.cache_use import part_uses
from guidance_agent.llm.caching import CacheHistory, CallIdentity, cache_parts
from guidance_agent.llm.call_log import log_call
from guidance_agent.llm.call_trace import CallTrace
from guidance_agent.llm.limits_grant import Grant
from guidance_agent.llm.messages import (
    CacheOutcome,
    Cost,
    Delta,
    FinishReason,
    ModelCall,
    ModelRequest,
    Timing,
    UnitPrices,
    Usage,
)
from guidance_agent.llm.tokens import estimate_tokens
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

__all__ = ["CallRecorder", "Prices", "UsageSink"]

SIMULATOR_HEADER = "x-provider-simulator"

_CHARACTERS_PER_TOKEN = 4
_FREE = Cost(0.0, UnitPrices(input=0.0, output=0.0, source="local response cache"))
_logger = logging.getLogger("guidance_agent.llm")


class UsageSink(Protocol):
    """Takes the record of every call, exactly once, whatever became of the call."""

    def record(self, call: ModelCall) -> None:
        """Keep `call`. Runs on the event loop and must not block."""


class Prices(Protocol):
    """What calls cost. `ready` reads what is needed for that, off the event loop."""

    async def ready(self) -> None: ...

    def cost(self, model: str, usage: Usage, *, batch: bool = False) -> Cost | None: ...


class CallRecorder:
    """Collects the figures of one call; `finish` turns them into its record, once.

    The text itself is not kept: an answer may be long, and its length is all that an estimate needs. The call's span
    begins and ends with the recorder.
    """

    def __init__(
        self,
        request: ModelRequest,
        *,
        clock: Clock,
        prices: Prices,
        history: CacheHistory,
        sinks: Sequence[UsageSink],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.request = request
        self.trace = CallTrace(tracing, request)
        self.call: ModelCall | None = None
        self.model = request.model
        self.attempts = 0
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self.simulated = False
        self.request_id: str | None = None
        self.text_length = 0
        self._clock = clock
        self._prices = prices
        self._history = history
        self._sinks = sinks
        self._id = clock.new_id("call")
        self._started_at = clock.now()
        self._started = self._attempt_started = clock.monotonic()
        self._prepared: PreparedCall | None = None
        self._transport = ""
        self._first_token: float | None = None
        self._chunks = 0
        self._length = 0
        self._replayed = False
        self._grant: Grant | None = None
        self._limit_wait = 0.0
        self._rate_limited = 0

    def not_admitted(self, call: PreparedCall, transport: str) -> None:
        """Note that `call` is not sent, because it would queue for too long."""
        self._prepared = call
        self._transport = transport
        self.model = call.request.model

    def begin_attempt(self, call: PreparedCall, transport: str, grant: Grant | None = None) -> None:
        """Note that `call` is about to be sent; what an attempt before it reported no longer counts.

        `grant` is the leave to send it, where a rate limit is in force.
        """
        self._prepared = call
        self._grant = grant
        if grant is not None:
            self._limit_wait += grant.waited
        self._transport = transport
        self.model = call.request.model
        self.attempts += 1
        self._attempt_started = self._clock.monotonic()
        self.usage = None
        self.finish_reason = None
        self.request_id = None
        self._chunks = self._length = 0
        self.trace.attempt(
            self.attempts, model=call.request.model, provider=call.endpoint.provider, transport=transport
        )

    def attempt_failed(self, error: ModelError, wait: float | None) -> None:
        """Note that the attempt failed; `wait` is the time to the next one at this model, None where there is none."""
        self._rate_limited += isinstance(error, RateLimitedError)
        self.trace.attempt_failed(self.attempts, error, wait)

    def replayed(self, call: PreparedCall) -> None:
        """Note that the local response cache answers `call`: no provider is asked, and nothing is paid."""
        self._prepared = call
        self._transport = "response_cache"
        self.model = call.request.model
        self._replayed = True

    def answered(self, headers: Mapping[str, str], request_id: str | None) -> None:
        """Note the headers (lower-case names) and the request id of an answer."""
        self.simulated = SIMULATOR_HEADER in headers
        self.request_id = request_id
        if self._grant is not None:
            self._grant.answered(headers)

    def saw(self, deltas: Iterable[Delta]) -> None:
        """Note what the provider sent."""
        for delta in deltas:
            length = len(delta.text) + len(delta.reasoning)
            if delta.tool_call is not None:
                length += len(delta.tool_call.arguments)
                self._chunks += delta.pieces
            elif length:
                self._chunks += delta.pieces
            self._length += length
            if delta.usage is not None:
                self.usage = delta.usage
            if delta.finish_reason is not None:
                self.finish_reason = delta.finish_reason

    def released(self, deltas: Iterable[Delta]) -> bool:
        """Note what goes to the caller; return whether there was content yet, text or reasoning or a tool call."""
        traces = self.trace.span.is_recording
        for delta in deltas:
            self.text_length += len(delta.text)
            if traces:
                self.trace.released(delta.text, delta.reasoning)
            if self._first_token is None and (delta.text or delta.reasoning or delta.tool_call is not None):
                self._first_token = self._clock.monotonic() - self._started
        return self._first_token is not None

    @property
    def timing(self) -> Timing:
        total = self._clock.monotonic() - self._started
        rate = None
        usage = None if self._replayed else self.usage
        if usage is not None and self._first_token is not None and total > self._first_token:
            rate = usage.output_tokens / (total - self._first_token)
        return Timing(first_token=self._first_token, total=total, chunks=self._chunks, tokens_per_second=rate)

    def finish(self, outcome: str, error: BaseException | None = None) -> ModelCall:
        """Return the record of the call; the first call of this method decides it, and hands it to the sinks."""
        if self.call is not None:
            return self.call
        reported = self.usage
        self.usage = self._final_usage(completed=outcome == "completed")
        prepared = self._prepared
        usage = self.usage
        self.call = ModelCall(
            id=self._id,
            operation=self.request.operation,
            model=self.model,
            requested_model=self.request.model,
            provider=prepared.endpoint.provider if prepared is not None else self.model.partition("/")[0],
            transport=self._transport,
            started_at=self._started_at,
            outcome=outcome,
            finish_reason=self.finish_reason,
            attempts=self.attempts,
            timing=self.timing,
            usage=usage,
            cost=self._cost(usage),
            cache_outcome=self._cache_outcome(reported),
            cache_parts={} if prepared is None else cache_parts(prepared.plan),
            cache_use={} if prepared is None else part_uses(prepared.request, prepared.plan, reported),
            simulated=self.simulated,
            request_id=self.request_id or (error.request_id if isinstance(error, ModelError) else None),
            error=None if error is None else str(error),
            metadata=self.request.metadata,
            limit_wait=self._limit_wait,
            rate_limited=self._rate_limited,
        )
        if self._grant is not None:
            self._grant.settle(usage)
        self.trace.finish(self.call, error)
        log_call(self.call, self.trace.span.trace_id)
        for sink in self._sinks:
            try:
                sink.record(self.call)
            except Exception:
                # A ledger that fails must neither end the turn nor keep the record from the other sinks.
                _logger.exception("A usage sink failed: %s; the record of call %s is not in it.", sink, self.call.id)
        return self.call

    def _cost(self, usage: Usage | None) -> Cost | None:
        if self._replayed:
            return _FREE
        return None if usage is None else self._prices.cost(self.model, usage)

    def _final_usage(self, *, completed: bool) -> Usage | None:
        if self._replayed:
            return Usage()
        reported = self.usage
        if reported is not None and not reported.estimated:
            return reported
        if reported is None and not completed and not self._length:
            return None
        prompt = sum(estimate_tokens(message.content) for message in self.request.messages)
        output = -(-self._length // _CHARACTERS_PER_TOKEN)
        if reported is None:
            return Usage(input_tokens=prompt, output_tokens=output, estimated=True)
        # Before the end a provider's count of the output is only where it began; what it read and wrote is known.
        return replace(
            reported,
            input_tokens=reported.input_tokens if reported.total_input_tokens else prompt,
            output_tokens=max(output, reported.output_tokens),
        )

    def _cache_outcome(self, reported: Usage | None) -> CacheOutcome:
        if self._prepared is None:
            return "unknown"
        if self._replayed:
            return "local_hit"
        return self._history.observe(
            CallIdentity.of(self._prepared.endpoint, self._prepared.request),
            self._prepared.plan,
            reported,
            self._attempt_started,
            first_token_at=None if self._first_token is None else self._started + self._first_token,
        )

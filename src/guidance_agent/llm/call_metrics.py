"""Figures of model calls as OpenTelemetry metrics, where the application has configured a meter provider.

Nothing here imports OpenTelemetry: an application that measures has done so. Where it has not, a call pays one look
into the table of loaded modules. Attributes are names and labels of the program; nothing that anybody wrote is among
them.

Token usage and duration carry the names of OpenTelemetry's conventions for generative AI, the others begin with
`guidance.`. What is not known is not recorded, so that no zero stands for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from guidance_agent.llm.messages import Cost, ModelCall, Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, Meter, UpDownCounter

__all__ = ["CallMetrics", "cache_saving"]

_Names = dict[str, str | bool]

_SCOPE = "guidance_agent"
_PROXY = "_ProxyMeterProvider"


class _Instruments(NamedTuple):
    tokens: Histogram
    duration: Histogram
    first_token: Histogram
    pace: Histogram
    calls: Counter
    retried: Counter
    refused: Counter
    queued: Histogram
    cost: Counter
    saved: UpDownCounter


class CallMetrics:
    """A usage sink that records into the application's meter provider."""

    def __init__(self) -> None:
        self._provider: object = None
        self._instruments: _Instruments | None = None

    def record(self, call: ModelCall) -> None:
        instruments = self._of_application()
        if instruments is None:
            return
        operation = "embeddings" if call.operation == "embedding" else "chat"
        names: _Names = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": call.provider,
            "gen_ai.request.model": call.model.partition("/")[2] or call.model,
            "guidance.operation": call.operation,
            "guidance.simulated": call.simulated,
        }
        outcome, _, error = call.outcome.partition(":")
        ended: _Names = {**names, "guidance.outcome": outcome, **({"error.type": error} if error else {})}
        instruments.calls.add(1, ended)
        instruments.duration.record(call.timing.total, ended)
        if call.attempts > 1:
            instruments.retried.add(1, ended)
        if call.rate_limited:
            instruments.refused.add(call.rate_limited, names)
        if call.limit_wait:
            instruments.queued.record(call.limit_wait, names)
        if call.timing.first_token is not None:
            instruments.first_token.record(call.timing.first_token, names)
        if call.timing.tokens_per_second is not None and outcome == "completed":
            instruments.pace.record(call.timing.tokens_per_second, names)
        if call.usage is not None:
            _record_usage(instruments, call.usage, call.cost, names)

    def _of_application(self) -> _Instruments | None:
        metrics: Any = sys.modules.get("opentelemetry.metrics")
        if metrics is None:
            return None
        provider = metrics.get_meter_provider()
        if provider is not self._provider:
            self._provider = provider
            is_set = not isinstance(provider, metrics.NoOpMeterProvider) and type(provider).__name__ != _PROXY
            self._instruments = _made(provider.get_meter(_SCOPE)) if is_set else None
        return self._instruments


def cache_saving(usage: Usage, cost: Cost) -> float:
    """Return what caching saved of the cost of the input, in US dollars; negative where writes cost more."""
    prices = cost.prices
    read = prices.input if prices.cache_read is None else prices.cache_read
    write_5m = prices.input if prices.cache_write_5m is None else prices.cache_write_5m
    write_1h = prices.input if prices.cache_write_1h is None else prices.cache_write_1h
    return (
        usage.cache_read_tokens * (prices.input - read)
        + usage.cache_write_5m_tokens * (prices.input - write_5m)
        + usage.cache_write_1h_tokens * (prices.input - write_1h)
    )


def _record_usage(instruments: _Instruments, usage: Usage, cost: Cost | None, names: _Names) -> None:
    counted = (
        ("input", usage.total_input_tokens),
        ("output", usage.output_tokens),
        ("cache_read", usage.cache_read_tokens),
        ("cache_write", usage.cache_write_tokens),
    )
    for kind, tokens in counted:
        if tokens:
            instruments.tokens.record(tokens, {**names, "gen_ai.token.type": kind})
    if cost is not None:
        instruments.cost.add(cost.usd, names)
        if saved := cache_saving(usage, cost):
            instruments.saved.add(saved, names)


def _made(meter: Meter) -> _Instruments:
    return _Instruments(
        tokens=meter.create_histogram("gen_ai.client.token.usage", unit="{token}", description="Tokens of a call"),
        duration=meter.create_histogram("gen_ai.client.operation.duration", unit="s", description="Time of a call"),
        first_token=meter.create_histogram("guidance.call.first_token", unit="s", description="Time to first token"),
        pace=meter.create_histogram("guidance.stream.pace", unit="{token}/s", description="Output tokens in a second"),
        calls=meter.create_counter("guidance.calls", unit="{call}", description="Calls by outcome"),
        retried=meter.create_counter("guidance.calls.retried", unit="{call}", description="Calls sent again"),
        refused=meter.create_counter("guidance.limit.refusals", unit="{attempt}", description="Answers of 429"),
        queued=meter.create_histogram("guidance.limit.wait", unit="s", description="Time in the queue of a limit"),
        cost=meter.create_counter("guidance.cost", unit="USD", description="Cost at list price"),
        saved=meter.create_up_down_counter("guidance.cache.saved", unit="USD", description="Saved by prompt caching"),
    )

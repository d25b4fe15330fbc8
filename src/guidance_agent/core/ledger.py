"""The usage ledger: one row for every call of a model, written with the journal's next commit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from guidance_agent.core.journal import Journal, Row
from guidance_agent.core.schema import model_calls
from guidance_agent.llm.messages import ModelCall, UnitPrices, Usage

__all__ = ["UsageLedger", "ledger_row"]


def ledger_row(call: ModelCall) -> Row:
    """Return the row of `model_calls`; a cost keeps the unit prices that made it."""
    usage, cost = call.usage, call.cost
    tokens = usage or Usage()
    known = usage is not None
    return {
        "id": call.id,
        "turn_id": call.metadata.get("turn_id"),
        "consultation_id": call.metadata.get("consultation_id"),
        "operation": call.operation,
        "model": call.model,
        "requested_model": call.requested_model,
        "provider": call.provider,
        "transport": call.transport,
        "started_at": call.started_at,
        "outcome": call.outcome,
        "finish_reason": call.finish_reason,
        "attempts": call.attempts,
        "first_token_seconds": call.timing.first_token,
        "total_seconds": call.timing.total,
        "chunks": call.timing.chunks,
        "input_tokens": tokens.input_tokens if known else None,
        "cache_read_tokens": tokens.cache_read_tokens if known else None,
        "cache_write_5m_tokens": tokens.cache_write_5m_tokens if known else None,
        "cache_write_1h_tokens": tokens.cache_write_1h_tokens if known else None,
        "output_tokens": tokens.output_tokens if known else None,
        "reasoning_tokens": tokens.reasoning_tokens if known else None,
        "usage_estimated": tokens.estimated,
        "cost_usd": None if cost is None else cost.usd,
        "unit_prices": None if cost is None else _as_json(cost.prices),
        "cache_outcome": call.cache_outcome,
        "cache_parts": dict(call.cache_parts),
        "cache_use": dict(call.cache_use),
        "simulated": call.simulated,
        "request_id": call.request_id,
        "error": call.error,
        "limit_wait_seconds": call.limit_wait,
        "rate_limited": call.rate_limited,
    }


@functools.lru_cache(maxsize=256)
def _as_json(prices: UnitPrices) -> Mapping[str, Any]:
    # The same few for all calls of a model; to be read only.
    return dataclasses.asdict(prices)


class UsageLedger:
    """The gateway's usage sink that writes to the records.

    `simulated` marks every row: a call that ended before an answer came cannot know who would have answered.
    """

    def __init__(self, journal: Journal, *, simulated: bool = False) -> None:
        self._journal = journal
        self._simulated = simulated

    def record(self, call: ModelCall) -> None:
        row = {**ledger_row(call), "simulated": call.simulated or self._simulated}
        self._journal.add_rows(model_calls, [row])

"""The money of batches in the records: each attempt that a provider answered is a row of the usage ledger.

The row has the columns of an interactive call and the id by which the provider knew the attempt. Its transport is
`batch`, its cost is at the batch price, with the unit prices beside it. It is written in the transaction that stores
the result, so that it is there once. What a provider never worked on, because the item expired or was cancelled before,
has no row; what is asked online after a deadline leaves the gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from guidance_agent.core.batches.answers import KnownItem
from guidance_agent.core.batches.states import Parts
from guidance_agent.llm.messages import CacheOutcome, ModelCall, Timing, Usage
from guidance_agent.llm.providers.base import ModelTraits
from guidance_agent.llm.transports.batches.base import ResultRow

__all__ = ["BATCH", "Accounts", "cache_outcome", "ids_of"]

BATCH: Final = "batch"
"""The transport of a call that went through a batch API."""

_LONGEST_OUTCOME = 64
_IDS = ("turn_id", "consultation_id")


def ids_of(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return what an item's metadata says about whom it is for; nothing else of it leaves the batch's own records."""
    return {name: metadata[name] for name in _IDS if name in metadata} if metadata else {}


def cache_outcome(usage: Usage | None, traits: ModelTraits) -> CacheOutcome:
    """Return the label of the prompt cache, as far as usage alone can say it.

    Why nothing was read is not told: the calls of a batch run in an order and at times that nobody else knows.
    """
    if usage is None:
        return "unknown"
    if usage.cache_read_tokens:
        return "hit"
    if traits.caching == "none":
        return "not_supported"
    if usage.cache_write_tokens:
        return "first_write"
    shortest = traits.minimum_cache_tokens
    return "below_minimum" if shortest is not None and usage.total_input_tokens < shortest else "unknown"


class Accounts:
    """Makes the records of the calls that one batch was.

    Args:
        parts: What the batch is worked on with.
        batch: Its row.
        operation: What its calls are for.
        traits: Of its model.
    """

    def __init__(self, parts: Parts, batch: Mapping[str, Any], operation: str, traits: ModelTraits) -> None:
        self._parts = parts
        self._operation = operation
        self._traits = traits
        self._model: str = batch["model"]
        self._provider: str = batch["provider"]
        self._since: datetime | None = batch["submitted_at"] or batch["intent_at"]

    def call(self, item: KnownItem, result: ResultRow) -> ModelCall | None:
        """Return the record of one attempt; None where nobody worked on it."""
        answer = result.answer
        if answer is None and not result.outcome.startswith("errored"):
            return None
        now = self._parts.clock.now()
        since = self._since or now
        usage = None if answer is None else answer.usage
        return ModelCall(
            id=result.wire_id or item.id,
            operation=self._operation,
            model=self._model,
            requested_model=self._model,
            provider=self._provider,
            transport=BATCH,
            started_at=since,
            outcome="completed" if answer is not None else f"error:{result.error_type}"[:_LONGEST_OUTCOME],
            finish_reason=None if answer is None else answer.finish_reason,
            attempts=1,
            timing=Timing(total=max(0.0, (now - since).total_seconds())),
            usage=usage,
            cost=None if usage is None else self._parts.gateway.cost(self._model, usage, batch=True),
            cache_outcome=cache_outcome(usage, self._traits),
            cache_parts={},
            cache_use={},
            simulated=result.simulated,
            request_id=None if answer is None else answer.request_id,
            error=result.error,
            metadata=ids_of(item.metadata),
        )

"""How model calls went: pace, retries, waits for limits and savings, per model, added up from the usage ledger.

The pace is that of streams: output tokens over the time from the first token to the end. A call counts as retried when
it was sent more than once, to a fallback too. The savings of caching are those of `core.cache_report`, those of batches
what their items would have cost outside a batch minus what they did cost. What is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.cache_report import CacheReport, cache_report
from guidance_agent.core.database import Database
from guidance_agent.core.schema import model_calls, provider_batches

__all__ = ["CallFigures", "CallReport", "call_report"]

_CALLS = model_calls.c


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFigures:
    """How the calls of one model went.

    Attributes:
        provider: Who answered.
        model: Name with its provider.
        simulated: Whether the simulator answered.
        calls: All of them, those of batches too.
        completed: Calls with a whole answer.
        failed: Calls that ended with an error; the others were left early or answered from the local cache.
        retried: Calls that were sent more than once.
        retried_completed: Those of them with a whole answer.
        refused: Attempts that the provider refused with a 429.
        waited: Calls that queued for a rate limit.
        waited_seconds: How long they queued together.
        longest_wait: The longest of the waits, in seconds.
        first_token_seconds: Mean time to the first token; None without a stream.
        tokens_per_second: Output tokens of streams in a second; None without one.
        cost_usd: What the calls with a price cost together; None when there are none.
        cache_saved_usd: What caching saved, negative while writes have cost more; None if it is not known.
        batch_saved_usd: What batches saved; None without one.
    """

    provider: str
    model: str
    simulated: bool
    calls: int
    completed: int
    failed: int
    retried: int
    retried_completed: int
    refused: int
    waited: int
    waited_seconds: float
    longest_wait: float
    first_token_seconds: float | None
    tokens_per_second: float | None
    cost_usd: float | None
    cache_saved_usd: float | None
    batch_saved_usd: float | None

    @property
    def retry_success_rate(self) -> float | None:
        """Share of the retried calls that ended with a whole answer; None without any."""
        return self.retried_completed / self.retried if self.retried else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One line per model, real calls first."""

    since: datetime | None
    until: datetime | None
    lines: tuple[CallFigures, ...]


async def call_report(
    database: Database, *, since: datetime | None = None, until: datetime | None = None
) -> CallReport:
    """Add up the calls that began in a period.

    Args:
        database: The records.
        since: First moment of the period; None for no bound.
        until: First moment after it; None for no bound.

    Raises:
        DatabaseUnavailableError: when the records cannot be read.
    """
    caching = await cache_report(database, since=since, until=until, by=("model",))
    return await database.run(lambda connection: _report(connection, caching, since, until))


def _report(
    connection: sa.Connection, caching: CacheReport, since: datetime | None, until: datetime | None
) -> CallReport:
    saved = {
        (model, section.simulated): figures.saved_usd
        for section in caching.sections
        for model, figures in section.lines["model"].items()
    }
    keys = (_CALLS.provider, _CALLS.model, _CALLS.simulated)
    query = (
        sa.select(*keys, *(column.label(name) for name, column in _SUMS.items()))
        .where(*_within(_CALLS.started_at, since, until))
        .group_by(*keys)
        .order_by(_CALLS.simulated, _CALLS.provider, _CALLS.model)
    )
    rows = connection.execute(query).mappings().all()
    batches = _batch_savings(connection, since, until)
    return CallReport(since=since, until=until, lines=tuple(_figures(row, saved, batches) for row in rows))


def _within(
    column: sa.ColumnElement[Any], since: datetime | None, until: datetime | None
) -> list[sa.ColumnElement[bool]]:
    return [*([] if since is None else [column >= since]), *([] if until is None else [column < until])]


def _batch_savings(
    connection: sa.Connection, since: datetime | None, until: datetime | None
) -> Mapping[tuple[str, bool], float]:
    columns = provider_batches.c
    known = columns.cost_usd.is_not(None) & columns.interactive_usd.is_not(None)
    query = (
        sa.select(columns.model, columns.simulated, sa.func.sum(columns.interactive_usd - columns.cost_usd))
        .where(known, *_within(columns.submitted_at, since, until))
        .group_by(columns.model, columns.simulated)
    )
    return {(model, bool(simulated)): float(saved) for model, simulated, saved in connection.execute(query)}


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


_COMPLETED = _CALLS.outcome == "completed"
_WAIT = sa.func.coalesce(_CALLS.limit_wait_seconds, 0.0)
_STREAMED = _CALLS.first_token_seconds.is_not(None) & (_CALLS.chunks > 0) & (_CALLS.cache_outcome != "local_hit")
_PACED = _STREAMED & _COMPLETED & _CALLS.output_tokens.is_not(None) & (_CALLS.chunks > 1)

_SUMS: Mapping[str, sa.ColumnElement[Any]] = {
    "calls": sa.func.count(),
    "completed": _count(_COMPLETED),
    "failed": _count(_CALLS.outcome.startswith("error:")),
    "retried": _count(_CALLS.attempts > 1),
    "retried_completed": _count((_CALLS.attempts > 1) & _COMPLETED),
    "refused": sa.func.coalesce(sa.func.sum(_CALLS.rate_limited), 0),
    "waited": _count(_WAIT > 0),
    "waited_seconds": sa.func.sum(_WAIT),
    "longest_wait": sa.func.max(_WAIT),
    "first_token_seconds": sa.func.avg(sa.case((_STREAMED, _CALLS.first_token_seconds))),
    "streamed_tokens": sa.func.sum(sa.case((_PACED, _CALLS.output_tokens))),
    "streamed_seconds": sa.func.sum(sa.case((_PACED, _CALLS.total_seconds - _CALLS.first_token_seconds))),
    "cost_usd": sa.func.sum(_CALLS.cost_usd),
}


def _figures(
    row: Mapping[Any, Any],
    saved: Mapping[tuple[str, bool], float | None],
    batches: Mapping[tuple[str, bool], float],
) -> CallFigures:
    values = dict(row)
    tokens, seconds = values.pop("streamed_tokens"), values.pop("streamed_seconds")
    key = (values["model"], bool(values["simulated"]))
    return CallFigures(
        **{**values, "simulated": key[1], "refused": int(values["refused"])},
        tokens_per_second=float(tokens) / seconds if tokens and seconds and seconds > 0 else None,
        cache_saved_usd=saved.get(key),
        batch_saved_usd=batches.get(key),
    )

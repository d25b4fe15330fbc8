"""What the records and the provider hold of jobs whose processes were killed, and what must be true of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from benchmarks.batch_kill_nursery import APPLIED
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_items, batch_jobs, model_calls, provider_batches

__all__ = ["FOUND", "applied_table", "contradictions", "final_state", "found"]

FOUND = (
    "nothing yet",
    "preparing",
    "prepared",
    "submitting",
    "submitted",
    "ended",
    "collected",
    "between two batches",
    "waiting for the provider",
    "done",
)
"""What a killed process may leave: the state of the batch that it worked on, or how the job stood between two."""

_ITEM = (
    "position",
    "custom_id",
    "wire_id",
    "round",
    "state",
    "outcome",
    "request",
    "size",
    "metadata",
    "result",
    "usage",
    "error",
    "error_type",
    "reason",
    "apply_attempts",
    "apply_error",
)
_ID_LENGTH = 40
_JOB = ("kind", "state", "items", "fingerprint", "online_allowed", "metadata")
_MONEY = ("cost_usd", "interactive_usd", "spent_usd")
_BATCH = ("round", "route", "provider", "model", "state", "items", "bytes", "counts", "unpriced", "needs_person")
_CALL = ("id", "operation", "model", "provider", "transport", "outcome", "usage_estimated", "cost_usd")


async def applied_table(database: Database) -> None:
    """Make the table in which every applying of an item leaves a row."""
    await database.transaction(lambda connection: APPLIED.create(connection, checkfirst=True))


async def found(database: Database, key: str) -> str:
    """Return in which state a job is."""
    batch = provider_batches.c
    jobs = sa.select(batch_jobs.c.state).where(batch_jobs.c.id == key)
    batches = sa.select(batch.state, batch.owner).where(batch.job_id == key).order_by(batch.number)

    def read(connection: sa.Connection) -> tuple[str | None, list[Any]]:
        return connection.execute(jobs).scalar_one_or_none(), list(connection.execute(batches))

    state, rows = await database.run(read)
    if state != "open":
        return state or "nothing yet"
    owned = [row.state for row in rows if row.owner is not None]
    if owned:
        return "between two batches" if owned[0] == "applied" else str(owned[0])
    return "waiting for the provider" if any(row.state == "submitted" for row in rows) else "between two batches"


async def contradictions(database: Database, key: str, items: int) -> list[str]:
    """Return what must not be of a job that has ended: each item is applied once, each attempt paid for once."""
    item, batch = batch_items.c, provider_batches.c
    job = sa.select(batch_jobs.c.state, batch_jobs.c["items"]).where(batch_jobs.c.id == key)
    states = sa.select(item.custom_id, item.state, item.outcome, item.round).where(item.job_id == key)
    ledger = sa.select(APPLIED.c.custom_id, APPLIED.c.outcome).where(APPLIED.c.job == key)
    ended = sa.select(batch.state, batch["items"], batch.provider_batch_id).where(batch.job_id == key)
    paid = sa.select(model_calls.c.id).where(_of_job(key))

    def read(connection: sa.Connection) -> list[list[Any]]:
        return [list(connection.execute(query)) for query in (job, states, ledger, ended, paid)]

    jobs, rows, left, batches, calls = await database.run(read)
    applied = Counter(row.custom_id for row in left)
    outcomes = {row.custom_id: row.outcome for row in rows}
    attempts = sum(row.round for row in rows)
    wrong = {
        f"the job is {jobs}": [tuple(row) for row in jobs] != [("done", items)],
        f"{len(rows)} items instead of {items}": len(rows) != items,
        "an item is not applied": any(row.state != "applied" for row in rows),
        "an item was applied twice": any(times > 1 for times in applied.values()),
        "an item was never applied": applied.keys() != outcomes.keys(),
        "what was applied is not what is on record": any(outcomes.get(row.custom_id) != row.outcome for row in left),
        "an item has no answer of the provider": any(
            row.outcome not in ("succeeded", "errored_retryable") for row in rows
        ),
        "a batch is not applied": any(row.state != "applied" for row in batches),
        "the batches hold other items": sum(row.items for row in batches) != attempts,
        "two batches are one at the provider": len({row.provider_batch_id for row in batches}) != len(batches),
        f"{len(calls)} calls are in the ledger instead of {attempts}": len(calls) != attempts,
    }
    return [f"job {key}: {what}" for what, is_so in wrong.items() if is_so]


async def final_state(database: Database, key: str) -> str:
    """Return a fingerprint of all that the records hold of a job, but for times, leases and the ids of batches."""
    item, batch, call = batch_items.c, provider_batches.c, model_calls.c
    rows = sa.select(*(item[name] for name in (*_ITEM, *_MONEY))).where(item.job_id == key)
    batches = sa.select(*(batch[name] for name in (*_BATCH, *_MONEY[:2]))).where(batch.job_id == key)
    queries = (
        sa.select(*(batch_jobs.c[name] for name in _JOB)).where(batch_jobs.c.id == key),
        rows,
        batches,
        sa.select(*(call[name] for name in _CALL)).where(_of_job(key)),
        sa.select(APPLIED.c.custom_id, APPLIED.c.outcome).where(APPLIED.c.job == key),
    )

    def read(connection: sa.Connection) -> list[list[str]]:
        return [_lines(connection.execute(query)) for query in queries]

    text = json.dumps(await database.run(read))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_job(key: str) -> sa.ColumnElement[bool]:
    """Return which calls are attempts at a job's items: these have the item's id, a dash, and the round."""
    items = sa.select(batch_items.c.id).where(batch_items.c.job_id == key)
    return sa.func.substr(model_calls.c.id, 1, _ID_LENGTH).in_(items)


def _lines(rows: Iterable[Any]) -> list[str]:
    # Sums of the same numbers in another order differ in their last digits.
    return sorted(json.dumps([_rounded(value) for value in row], sort_keys=True) for row in rows)


def _rounded(value: Any) -> Any:
    return round(value, 12) if isinstance(value, float) else value

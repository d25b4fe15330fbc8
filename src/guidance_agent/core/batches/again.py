"""Sending again what there is no answer to: on request, and in two halves where a batch was too large for its provider.

Both make batches of items that no batch has paid for an answer to, in the one transaction that takes the items out of
the batch that they stood in.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batches.bodies import INVALID
from guidance_agent.core.batches.leases import BatchLease
from guidance_agent.core.batches.states import Parts
from guidance_agent.core.batches.statuses import unknown_job
from guidance_agent.core.batches.waiting import cause
from guidance_agent.core.bulk import Row, insert_or_change
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches
from guidance_agent.errors import BatchRequestError, ModelError

__all__ = ["AGAIN", "add_batch", "halve", "is_too_large", "resubmit", "sent_again"]

AGAIN = ("expired", "errored_retryable", "invalid")
"""Outcomes of items that another attempt may bring an answer to."""

_TOO_LARGE = 413


def sent_again(batch_id: str) -> Mapping[str, Any]:
    """Return the values of items that stand in another batch from now on, for another attempt, with the reason."""
    table = batch_items.c
    named = sa.case((table.outcome == "invalid", INVALID), else_=table.outcome + ": ")
    return {
        "batch_id": batch_id,
        "round": table.round + 1,
        "wire_id": table.id + "-" + sa.cast(table.round + 1, sa.String),
        "state": "prepared",
        "reason": named + sa.func.coalesce(table.error, ""),
        "outcome": None,
        "result": None,
        "usage": None,
        "cost_usd": None,
        "interactive_usd": None,
        "error": None,
        "error_type": None,
        "apply_attempts": 0,
        "apply_error": None,
        "collected_at": None,
        "applied_at": None,
    }


def add_batch(connection: sa.Connection, row: Row) -> None:
    """Write a further batch of a job under the next number; two that are added at once get two numbers."""
    batch = provider_batches.c
    last = sa.select(sa.func.max(batch.number)).where(batch.job_id == row["job_id"])
    insert = insert_or_change(connection.dialect.name, provider_batches).values({**row, "state": "prepared"})
    added = insert.on_conflict_do_nothing(index_elements=["job_id", "number"]).returning(batch.id)
    while connection.execute(added, {"number": connection.execute(last).scalar_one() + 1}).first() is None:
        # The insert has waited for the other one, whose number is seen by now.
        continue


async def resubmit(parts: Parts, key: str, deadline: datetime | None) -> int:
    """Put the items of a job that ended without an answer into batches once more; returns how many.

    Raises:
        UnknownBatchError: there is no such job.
        BatchRequestError: it was cancelled, or is not in the records as a whole yet.
    """
    jobs, item = batch_jobs.c, batch_items.c
    failed = sa.and_(item.job_id == key, item.state == "applied", item.outcome.in_(AGAIN))

    def write(connection: sa.Connection) -> int:
        job = connection.execute(sa.select(batch_jobs).where(jobs.id == key).with_for_update()).mappings().first()
        if job is None:
            raise unknown_job(key)
        if job["cancelled_at"] is not None or job["state"] == "preparing":
            why = "was cancelled" if job["cancelled_at"] is not None else "is still being prepared"
            raise BatchRequestError(f"The job {key!r} {why}. Submit what is needed as a job of its own.")
        before = connection.execute(_failed_batches(failed)).mappings().all()
        count = 0
        for row in before:
            batch_id = parts.clock.new_id("batch")
            add_batch(
                connection,
                {
                    "id": batch_id,
                    "job_id": key,
                    "round": row["round"] + 1,
                    "route": "batch",
                    "provider": row["provider"],
                    "model": row["model"],
                    "items": row["count"],
                    "bytes": row["size"],
                    "reason": f"sent again on request, after batch {row['number']}",
                },
            )
            change = sa.update(batch_items).where(failed, item.batch_id == row["id"])
            connection.execute(change.values(**sent_again(batch_id)))
            count += row["count"]
        if count:
            opened = {"state": "open", "ended_at": None, "deadline": deadline}
            connection.execute(sa.update(batch_jobs).where(jobs.id == key).values(**opened))
        return count

    return await parts.database.transaction(write)


def _failed_batches(failed: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return the question for the batches that have ended and hold such items, and how many."""
    item, batch = batch_items.c, provider_batches.c
    counted = (
        sa.select(item.batch_id, sa.func.count().label("count"), sa.func.sum(item.size).label("size"))
        .where(failed)
        .group_by(item.batch_id)
        .subquery()
    )
    columns = (batch.id, batch.number, batch.round, batch.provider, batch.model, counted.c.count, counted.c.size)
    return (
        sa.select(*columns)
        .join(counted, counted.c.batch_id == batch.id)
        .where(batch.state == "applied")
        .order_by(batch.number)
    )


def is_too_large(error: Exception) -> bool:
    """Return whether a provider refused what it was sent for its size."""
    return isinstance(error, ModelError) and error.status == _TOO_LARGE


async def halve(parts: Parts, lease: BatchLease, error: Exception) -> None:
    """Make two batches of one that its provider found too large; the item of a batch of one fails instead."""
    row, item = lease.row, batch_items.c
    mine = sa.and_(item.batch_id == lease.id, item.state == "prepared")
    if row["items"] <= 1:
        await _fail_alone(parts, lease, error)
        return
    kept = row["items"] // 2
    new_id = parts.clock.new_id("batch")

    def write(connection: sa.Connection) -> None:
        positions = sa.select(item.position).where(mine).order_by(item.position)
        first = connection.execute(positions.offset(kept).limit(1)).scalar_one()
        moved = sa.and_(mine, item.position >= first)
        size = connection.execute(sa.select(sa.func.sum(item.size)).where(moved)).scalar_one()
        names = ("job_id", "round", "route", "provider", "model", "after_batch_id")
        add_batch(
            connection,
            {
                **{name: row[name] for name in names},
                "id": new_id,
                "items": row["items"] - kept,
                "bytes": size,
                "reason": f"the second half of batch {row['number']}, which was too large",
            },
        )
        connection.execute(sa.update(batch_items).where(moved).values(batch_id=new_id))
        smaller = sa.update(provider_batches).where(provider_batches.c.id == lease.id)
        connection.execute(smaller.values(bytes=provider_batches.c.bytes - size))

    values = {
        "state": "prepared",
        "items": kept,
        "input_file_id": None,
        "not_before": 0.0,
        "needs_person": False,
        "reason": f"halved, because the provider found it too large ({cause(error)})",
    }
    await lease.within(write, values, before="submitting")


async def _fail_alone(parts: Parts, lease: BatchLease, error: Exception) -> None:
    now, item = parts.clock.now(), batch_items.c
    change = sa.update(batch_items).where(item.batch_id == lease.id, item.state == "prepared")
    change = change.values(
        state="collected", outcome="errored_fatal", error=str(error), error_type="too_large", collected_at=now
    )
    values = {"state": "ended", "ended_at": now, "reason": cause(error)}
    await lease.within(lambda connection: connection.execute(change), values, before="submitting")

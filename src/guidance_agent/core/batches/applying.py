"""Applying: each result is carried over into the records completely, once, or not at all.

Up to five hundred items share a transaction. It first claims them, by setting them `applied` where they are not yet,
and then calls the kind's `apply` for those that it got: another process that tries the same waits for the claim and
finds nothing left. When one of them fails, nothing of the transaction stays, and each is tried alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batches.answers import whole_result
from guidance_agent.core.batches.collecting import has_schema
from guidance_agent.core.batches.leases import BatchLease, LeaseGone
from guidance_agent.core.batches.states import BatchKind, Parts
from guidance_agent.core.batches.submitting import Job
from guidance_agent.core.batches.waiting import cause
from guidance_agent.core.schema import batch_items, provider_batches
from guidance_agent.llm.batch_request import BatchResult

__all__ = ["apply_results", "results_of"]

_logger = logging.getLogger(__name__)


async def apply_results(parts: Parts, lease: BatchLease, job: Job) -> bool:
    """Apply what a batch has brought; True where all of it is applied."""
    kind = parts.kind(job.kind)
    if kind.apply is None:
        await _all_at_once(parts, lease)
    else:
        await _in_slices(parts, lease, kind)
    table = batch_items.c
    query = sa.select(sa.func.count(), sa.func.max(table.apply_error))
    left, error = await parts.database.run(
        lambda connection: connection.execute(query.where(table.batch_id == lease.id, table.state == "collected")).one()
    )
    if left:
        reason = f"{left} items cannot be applied: {error}"
        wait = parts.now + parts.options.retry_after
        await lease.change({"not_before": wait, "reason": reason, "needs_person": True}, before="collected")
        return False
    await lease.move("collected", "applied", applied_at=parts.clock.now(), reason=None, needs_person=False)
    parts.crash("applied")
    return True


async def _all_at_once(parts: Parts, lease: BatchLease) -> None:
    """Note that there is nothing to be done with the results: whoever wants them reads them."""
    table = batch_items.c
    change = sa.update(batch_items).where(table.batch_id == lease.id, table.state == "collected")
    change = change.values(state="applied", applied_at=parts.clock.now())
    await lease.within(lambda connection: connection.execute(change), {}, before="collected")


async def _in_slices(parts: Parts, lease: BatchLease, kind: BatchKind) -> None:
    after = 0
    table = batch_items.c
    while True:
        waiting = sa.and_(
            table.batch_id == lease.id,
            table.state == "collected",
            table.position > after,
            table.apply_attempts < parts.options.apply_attempts,
        )
        found = await results_of(parts, kind, waiting, parts.options.items_per_transaction)
        if not found:
            return
        after = found[-1][0]
        items = [(item, result) for _, item, result in found]
        try:
            await _apply_together(parts, lease, kind, items)
        except LeaseGone:
            raise
        except Exception as error:
            _logger.warning("%d items of batch %s are applied one by one: %s", len(items), lease.id, cause(error))
            for each in items:
                await _apply_alone(parts, lease, kind, each)
        parts.crash("applied_some")


async def _apply_together(
    parts: Parts, lease: BatchLease, kind: BatchKind, items: Sequence[tuple[str, BatchResult]]
) -> None:
    results = dict(items)
    table = batch_items.c
    claim = (
        sa.update(batch_items)
        .where(table.id.in_(list(results)), table.state == "collected", table.batch_id == lease.id)
        .values(state="applied", applied_at=parts.clock.now(), apply_error=None)
        .returning(table.id)
    )

    def write(connection: sa.Connection) -> None:
        claimed = set(connection.execute(claim).scalars())
        for item, result in results.items():
            if item in claimed and kind.apply is not None:
                kind.apply(connection, result)
        parts.crash("applying")

    await lease.within(write, {}, before="collected")


async def _apply_alone(parts: Parts, lease: BatchLease, kind: BatchKind, item: tuple[str, BatchResult]) -> None:
    try:
        await _apply_together(parts, lease, kind, [item])
    except LeaseGone:
        raise
    except Exception as error:
        # Whatever it is, it is about this item: it is told with it, and the others go on.
        table = batch_items.c
        change = sa.update(batch_items).where(table.id == item[0], table.state == "collected")
        change = change.values(apply_attempts=table.apply_attempts + 1, apply_error=cause(error))
        await lease.within(lambda connection: connection.execute(change), {}, before="collected")


async def results_of(
    parts: Parts, kind: BatchKind, which: sa.ColumnElement[bool], limit: int
) -> list[tuple[int, str, BatchResult]]:
    """Return results with their positions and item ids, in the order in which they were submitted."""
    item, batch = batch_items.c, provider_batches.c
    query = (
        sa.select(
            *(column for column in batch_items.c if column.name != "request"),
            has_schema(),
            batch.model,
            batch.submitted_at,
            batch.intent_at,
        )
        .join(provider_batches, batch.id == item.batch_id)
        .where(which)
        .order_by(item.position)
        .limit(limit)
    )

    def read(connection: sa.Connection) -> list[tuple[int, str, BatchResult]]:
        made = []
        for found in connection.execute(query).mappings():
            row: dict[str, Any] = dict(found)
            row["created_at"] = row["submitted_at"] or row["intent_at"] or row["collected_at"]
            made.append((row["position"], row["id"], whole_result(kind, row)))
        return made

    return await parts.database.run(read)

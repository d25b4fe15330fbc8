"""Applying: each result is carried over into the records completely, once, or not at all.

Up to five hundred items share a transaction. It first claims them, by setting them `applied` where they are not yet,
and then calls the kind's `apply` for those that it got: another process that tries the same waits for the claim and
finds nothing left. When one of them fails, nothing of the transaction stays, and each is tried alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.batches.answers import whole_result
from guidance_agent.core.batches.leases import BatchLease, LeaseGone
from guidance_agent.core.batches.states import BatchKind, Parts
from guidance_agent.core.batches.submitting import Job
from guidance_agent.core.batches.waiting import cause
from guidance_agent.core.bulk import is_one_of
from guidance_agent.core.schema import batch_items, provider_batches
from guidance_agent.llm.batch_request import BatchResult

__all__ = ["Found", "apply_results", "results_of"]

_logger = logging.getLogger(__name__)
_OF_THE_ITEM = (
    "id",
    "position",
    "custom_id",
    "round",
    "outcome",
    "result",
    "usage",
    "cost_usd",
    "interactive_usd",
    "spent_usd",
    "error",
    "error_type",
    "metadata",
    "collected_at",
)
_OF_ITS_BATCH = ("model", "submitted_at", "intent_at")
_NAMES = (*_OF_THE_ITEM, *_OF_ITS_BATCH)


class Found(NamedTuple):
    """A result, the position of its request in the job, and the id of its item."""

    position: int
    item: str
    result: BatchResult


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
        after = found[-1].position
        try:
            await _apply_together(parts, lease, kind, found)
        except LeaseGone:
            raise
        except Exception as error:
            _logger.warning("%d items of batch %s are applied one by one: %s", len(found), lease.id, cause(error))
            for each in found:
                await _apply_alone(parts, lease, kind, each)
        parts.crash("applied_some")


async def _apply_together(parts: Parts, lease: BatchLease, kind: BatchKind, items: Sequence[Found]) -> None:
    results = {found.item: found.result for found in items}
    table = batch_items.c
    claim = (
        sa.update(batch_items)
        .where(table.batch_id == lease.id, table.state == "collected")
        # Between which positions they stand keeps a database from reading the whole batch for each slice of it.
        .where(table.position.between(items[0].position, items[-1].position))
        .values(state="applied", applied_at=parts.clock.now(), apply_error=None)
        .returning(table.id)
    )

    def write(connection: sa.Connection) -> None:
        these = is_one_of(connection.dialect.name, table.id)
        claimed = set(connection.execute(claim.where(these), {"ids": list(results)}).scalars())
        for item, result in results.items():
            if item in claimed and kind.apply is not None:
                kind.apply(connection, result)
        parts.crash("applying")

    await lease.within(write, {}, before="collected")


async def _apply_alone(parts: Parts, lease: BatchLease, kind: BatchKind, item: Found) -> None:
    try:
        await _apply_together(parts, lease, kind, [item])
    except LeaseGone:
        raise
    except Exception as error:
        # Whatever it is, it is about this item: it is told with it, and the others go on.
        table = batch_items.c
        change = sa.update(batch_items).where(table.id == item.item, table.state == "collected")
        change = change.values(apply_attempts=table.apply_attempts + 1, apply_error=cause(error))
        await lease.within(lambda connection: connection.execute(change), {}, before="collected")


async def results_of(parts: Parts, kind: BatchKind, which: sa.ColumnElement[bool], limit: int) -> list[Found]:
    """Return results, in the order in which they were submitted."""
    query = _results().where(which).order_by(batch_items.c.position).limit(limit)

    def read(connection: sa.Connection) -> list[Found]:
        made = []
        for found in connection.execute(query):
            row = dict(zip(_NAMES, found, strict=True))
            row["created_at"] = row["submitted_at"] or row["intent_at"] or row["collected_at"]
            made.append(Found(row["position"], row["id"], whole_result(kind, row)))
        return made

    return await parts.database.run(read)


@functools.cache
def _results() -> sa.Select[Any]:
    """Return the question for results. A request may be long, and nothing of it is needed any more."""
    item, batch = batch_items.c, provider_batches.c
    columns = [*(item[name] for name in _OF_THE_ITEM), *(batch[name] for name in _OF_ITS_BATCH)]
    return sa.select(*columns).join(provider_batches, batch.id == item.batch_id)

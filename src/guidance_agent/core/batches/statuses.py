"""How jobs and batches stand, for callers and operators."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batches.states import BatchStatus, Parts, ProviderBatchStatus
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches
from guidance_agent.errors import UnknownBatchError

__all__ = ["due_batches", "job_keys", "next_moment", "settle_jobs", "status_of", "unknown_job"]


def unknown_job(key: str) -> UnknownBatchError:
    """Return the error for a job that is not in the records."""
    return UnknownBatchError(f"No job {key!r} is in the records. List the jobs there are, and check the key.")


async def job_keys(parts: Parts, *, limit: int) -> list[str]:
    """Return the keys of the newest jobs."""
    query = sa.select(batch_jobs.c.id).order_by(batch_jobs.c.created_at.desc(), batch_jobs.c.id).limit(limit)
    return await parts.database.run(lambda connection: list(connection.execute(query).scalars()))


async def status_of(parts: Parts, key: str) -> BatchStatus:
    """Return how a job stands.

    Raises:
        UnknownBatchError: there is no such job.
    """
    item, batch = batch_items.c, provider_batches.c

    def read(connection: sa.Connection) -> BatchStatus:
        job = connection.execute(sa.select(batch_jobs).where(batch_jobs.c.id == key)).mappings().first()
        if job is None:
            raise unknown_job(key)
        batches = connection.execute(sa.select(provider_batches).where(batch.job_id == key).order_by(batch.number))
        sums = connection.execute(
            sa.select(
                item.outcome,
                item.state,
                sa.func.count(),
                sa.func.sum(sa.case((item.apply_attempts >= parts.options.apply_attempts, 1), else_=0)),
            )
            .where(item.job_id == key)
            .group_by(item.outcome, item.state)
        ).all()
        shown = [_shown(dict(row)) for row in batches.mappings()]
        outcomes: dict[str, int] = {}
        for outcome, _, count, _ in sums:
            if outcome is not None:
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        return BatchStatus(
            job_key=key,
            kind=job["kind"],
            state=job["state"],
            created_at=job["created_at"],
            items=job["items"],
            outcomes=outcomes,
            applied=sum(row[2] for row in sums if row[1] == "applied"),
            failing=sum(row[3] for row in sums if row[1] == "collected"),
            cost_usd=sum(row.cost_usd or 0.0 for row in shown),
            interactive_usd=sum(row.interactive_usd or 0.0 for row in shown),
            unpriced=_unpriced(connection, key),
            batches=shown,
        )

    return await parts.database.run(read)


def _unpriced(connection: sa.Connection, key: str) -> int:
    query = sa.select(sa.func.sum(provider_batches.c.unpriced)).where(provider_batches.c.job_id == key)
    return int(connection.execute(query).scalar_one() or 0)


def _shown(row: dict[str, Any]) -> ProviderBatchStatus:
    names = ProviderBatchStatus.__slots__
    return ProviderBatchStatus(**{name: row[name] for name in names})


async def due_batches(parts: Parts, key: str | None, kinds: Collection[str], without: set[str]) -> list[str]:
    """Return the batches of these kinds that may have something to be done now, the oldest first."""
    batch, now = provider_batches.c, parts.now
    query = (
        sa.select(batch.id)
        .join(batch_jobs, batch_jobs.c.id == batch.job_id)
        .where(
            batch_jobs.c.state == "open",
            batch_jobs.c.kind.in_(list(kinds)),
            batch.state != "applied",
            batch.not_before <= now,
            sa.or_(batch.owner.is_(None), batch.lease_until < now),
        )
        .order_by(batch_jobs.c.created_at, batch.number)
    )
    if key is not None:
        query = query.where(batch.job_id == key)
    found = await parts.database.run(lambda connection: list(connection.execute(query).scalars()))
    return [batch_id for batch_id in found if batch_id not in without]


async def next_moment(parts: Parts, key: str) -> float | None:
    """Return when a batch of a job is next to be looked at; None where nothing waits."""
    batch = provider_batches.c
    later = sa.case((batch.owner.is_not(None), batch.lease_until), else_=batch.not_before)
    query = sa.select(sa.func.min(later)).where(batch.job_id == key, batch.state != "applied")
    return await parts.database.run(lambda connection: connection.execute(query).scalar_one())


async def settle_jobs(parts: Parts) -> list[tuple[str, str | None]]:
    """Note which jobs have ended, because all of their batches are applied; return their keys and places in traces."""
    batch = provider_batches.c
    left = sa.select(batch.id).where(batch.job_id == batch_jobs.c.id, batch.state != "applied")
    change = sa.update(batch_jobs).where(batch_jobs.c.state == "open", ~sa.exists(left))
    change = change.values(state="done", ended_at=parts.clock.now())

    def write(connection: sa.Connection) -> list[tuple[str, str | None]]:
        return [(row.id, row.traceparent) for row in connection.execute(settled)]

    settled = change.returning(batch_jobs.c.id, batch_jobs.c.traceparent)
    return await parts.database.transaction(write)

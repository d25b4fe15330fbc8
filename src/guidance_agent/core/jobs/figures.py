"""The figures of batches that a run is measured by: how many items stand where, and what they cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.database import Database
from guidance_agent.core.jobs.reports import Money
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches

__all__ = ["Figures", "OpenBatch", "answered_of", "figures_of", "jobs_of", "open_batches", "preparing_jobs"]

_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sums over the jobs of a kind."""

    items: int = 0
    submitted: int = 0
    answered: int = 0
    applied: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    interactive_usd: float = 0.0
    priced: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    simulated: int = 0

    def plus(self, other: Figures) -> Figures:
        return Figures(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(Figures)})

    def since(self, before: Figures) -> Figures:
        """Return what was added; a batch that a provider refused as a whole has been taken back, and counts as none."""
        return Figures(
            **{each.name: max(0, getattr(self, each.name) - getattr(before, each.name)) for each in fields(Figures)}
        )

    @property
    def money(self) -> Money:
        known = self.priced > 0 or not self.unpriced
        return Money(
            cost_usd=self.cost_usd if known else None,
            interactive_usd=self.interactive_usd if known else None,
            unpriced=self.unpriced,
            input_tokens=self.input_tokens,
            cache_read_tokens=self.cache_read_tokens,
            simulated=self.simulated > 0,
        )


class KnownJob(NamedTuple):
    """A job of batches."""

    id: str
    kind: str
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBatch:
    """A batch that is not applied.

    Attributes:
        taken: Whether a process works on it at this moment.
        delayed: Whether it waits because a provider could not be used, or did not say whether it took it.
    """

    id: str
    job_key: str
    kind: str
    state: str
    items: int
    provider: str
    model: str
    submitted_at: datetime | None
    not_before: float
    needs_person: bool
    taken: bool
    delayed: bool
    reason: str | None

    @property
    def told(self) -> str:
        """The batch and what is the matter with it, in one line."""
        return f"batch {self.id} ({self.kind}, {self.items} items, {self.state}): {self.reason or 'no reason is known'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "job_key": self.job_key,
            "kind": self.kind,
            "state": self.state,
            "items": self.items,
            "provider": self.provider,
            "model": self.model,
            "submitted_at": None if self.submitted_at is None else self.submitted_at.isoformat(),
            "next_look": datetime.fromtimestamp(self.not_before, UTC).isoformat() if self.not_before else None,
            "needs_person": self.needs_person,
            "delayed": self.delayed,
            "reason": self.reason,
        }


async def jobs_of(
    database: Database, kinds: Collection[str], *, created_after: datetime | None = None
) -> Sequence[KnownJob]:
    """Return the jobs of these kinds, the oldest first."""
    job = batch_jobs.c
    query = sa.select(job.id, job.kind, job.state).where(job.kind.in_(list(kinds))).order_by(job.created_at, job.id)
    if created_after is not None:
        query = query.where(job.created_at >= created_after)
    rows = await database.run(lambda connection: connection.execute(query).all())
    return [KnownJob(row.id, row.kind, row.state == "done") for row in rows]


async def figures_of(database: Database, job_ids: Sequence[str]) -> Mapping[str, Figures]:
    """Return the sums over these jobs, by kind."""
    found: dict[str, Figures] = {}

    def read(connection: sa.Connection) -> None:
        for some in _pages(job_ids):
            for query in (_sums_of_batches(some), _sums_of_items(some)):
                for row in connection.execute(query).mappings():
                    values = {name: value or 0 for name, value in row.items() if name != "kind"}
                    found[row["kind"]] = found.get(row["kind"], Figures()).plus(Figures(**values))

    await database.run(read)
    return found


async def answered_of(database: Database, job_ids: Sequence[str]) -> tuple[int, int]:
    """Return how many items of these jobs have their results, and how many items there are."""
    item = batch_items.c
    counts = sa.select(sa.func.count(), _count(item.state != "prepared"))

    def read(connection: sa.Connection) -> tuple[int, int]:
        found = [connection.execute(counts.where(item.job_id.in_(some))).one() for some in _pages(job_ids)]
        return sum(row[1] or 0 for row in found), sum(row[0] for row in found)

    return await database.run(read)


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), _AT_ONCE):
        yield ids[first : first + _AT_ONCE]


def _count(condition: sa.ColumnElement[bool], counted: Any = 1) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, counted), else_=0))


def _sums_of_batches(job_ids: Sequence[str]) -> sa.Select[Any]:
    batch = provider_batches.c
    return (
        sa.select(
            batch_jobs.c.kind,
            _count(batch.submitted_at.is_not(None), batch["items"]).label("submitted"),
            sa.func.sum(batch.cost_usd).label("cost_usd"),
            sa.func.sum(batch.interactive_usd).label("interactive_usd"),
            _count(batch.cost_usd.is_not(None)).label("priced"),
            sa.func.sum(batch.unpriced).label("unpriced"),
            _count(batch.simulated.is_(True)).label("simulated"),
        )
        .join(batch_jobs, batch_jobs.c.id == batch.job_id)
        .where(batch.job_id.in_(job_ids))
        .group_by(batch_jobs.c.kind)
    )


def _sums_of_items(job_ids: Sequence[str]) -> sa.Select[Any]:
    item = batch_items.c
    tokens = {
        name: sa.func.coalesce(item.usage[name].as_integer(), 0)
        for name in ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
    }
    applied = item.state == "applied"
    total: sa.ColumnElement[int] = sum(tokens.values(), start=sa.literal(0))
    return (
        sa.select(
            batch_jobs.c.kind,
            sa.func.count().label("items"),
            _count(item.state.in_(("collected", "applied"))).label("answered"),
            _count(applied).label("applied"),
            _count(sa.and_(applied, item.outcome != "succeeded")).label("failed"),
            sa.func.sum(total).label("input_tokens"),
            sa.func.sum(tokens["cache_read_tokens"]).label("cache_read_tokens"),
        )
        .join(batch_jobs, batch_jobs.c.id == item.job_id)
        .where(item.job_id.in_(job_ids))
        .group_by(batch_jobs.c.kind)
    )


async def open_batches(database: Database, kinds: Collection[str], now: float) -> Sequence[OpenBatch]:
    """Return the batches of these kinds that are not applied, the oldest first."""
    batch = provider_batches.c
    query = (
        sa.select(provider_batches, batch_jobs.c.kind)
        .join(batch_jobs, batch_jobs.c.id == batch.job_id)
        .where(batch_jobs.c.state == "open", batch_jobs.c.kind.in_(list(kinds)), batch.state != "applied")
        .order_by(batch_jobs.c.created_at, batch.job_id, batch.number)
    )

    def read(connection: sa.Connection) -> Sequence[OpenBatch]:
        return [_open(row, now) for row in connection.execute(query).mappings()]

    return await database.run(read)


def _open(row: sa.RowMapping, now: float) -> OpenBatch:
    taken = row["owner"] is not None and row["lease_until"] >= now
    put_off = row["notes"].get("waits") and row["reason"] is not None
    unclear = row["state"] == "submitting" and not taken
    return OpenBatch(
        id=row["id"],
        job_key=row["job_id"],
        kind=row["kind"],
        state=row["state"],
        items=row["items"],
        provider=row["provider"],
        model=row["model"],
        submitted_at=row["submitted_at"],
        not_before=row["not_before"],
        needs_person=row["needs_person"],
        taken=taken,
        delayed=not row["needs_person"] and bool(put_off or unclear),
        reason=row["reason"],
    )


async def preparing_jobs(database: Database, kinds: Collection[str], now: float) -> int:
    """Return how many jobs a process is preparing right now."""
    job = batch_jobs.c
    query = sa.select(sa.func.count()).select_from(batch_jobs)
    query = query.where(job.kind.in_(list(kinds)), job.state == "preparing", job.lease_until >= now)
    return await database.run(lambda connection: connection.execute(query).scalar_one())

"""One run of the jobs at a time: a row with a lease, renewed while the run works.

The lock saves work and keeps reports apart; nothing depends on it. Two runs at once share the batches, because each
batch has a lease of its own, and each subject is claimed once. So a run that loses the lock, because its process stood
still for longer than the lease, goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import job_locks
from guidance_agent.errors import DatabaseUnavailableError, JobLockedError

__all__ = ["LOCK_SECONDS", "JobLock", "LockHolder"]

LOCK_SECONDS = 60.0
"""After so long without a sign of life, the lock of a process is free."""

_NAME = "batch_jobs"
_RENEWALS = 4.0

_logger = logging.getLogger("guidance_agent.batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """Who has the lock, and since when."""

    run_id: str
    holder: str
    taken_at: datetime

    def as_json(self) -> dict[str, str]:
        return {"run_id": self.run_id, "holder": self.holder, "since": self.taken_at.isoformat()}


class JobLock:
    """The lock of the jobs. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock, *, holder: str, lease: float = LOCK_SECONDS) -> None:
        self._database = database
        self._clock = clock
        self._holder = holder
        self._lease = lease

    @asynccontextmanager
    async def held(self, run_id: str) -> AsyncIterator[None]:
        """Have the lock while the block runs.

        Raises:
            JobLockedError: another run has it.
        """
        try:
            await self.take(run_id)
        except asyncio.CancelledError:
            # The transaction goes on without its caller, and may have taken the lock.
            await self._give_back(run_id)
            raise
        renewing = asyncio.create_task(self._keep(run_id), name=f"job lock {run_id}")
        try:
            yield
        finally:
            renewing.cancel()
            await self._give_back(run_id, renewing)

    async def _give_back(self, run_id: str, *before: asyncio.Task[None]) -> None:
        """Give the lock back to its end: a second signal, while the first is heeded, must not leave it taken."""

        async def give_back() -> None:
            if before:
                await asyncio.wait(before)
            await self.release(run_id)

        ending, cancelled = asyncio.create_task(give_back()), False
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError:
                cancelled = True
        ending.result()
        if cancelled:
            raise asyncio.CancelledError

    async def take(self, run_id: str) -> None:
        """Take the lock.

        Raises:
            JobLockedError: another run has it.
        """
        now = self._clock.now()
        values = {
            "run_id": run_id,
            "holder": self._holder,
            "taken_at": now,
            "lease_until": now.timestamp() + self._lease,
        }
        free = ~self._is_alive(now.timestamp())

        def write(connection: sa.Connection) -> LockHolder:
            insert = insert_or_change(connection.dialect.name, job_locks).values(name=_NAME, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values, where=free))
            columns = sa.select(job_locks.c.run_id, job_locks.c.holder, job_locks.c.taken_at)
            row = connection.execute(columns.where(job_locks.c.name == _NAME)).one()
            return LockHolder(run_id=row.run_id, holder=row.holder, taken_at=row.taken_at)

        owner = await self._database.transaction(write)
        if owner.run_id != run_id:
            raise JobLockedError(
                f"Another run has been at the batch jobs since {owner.taken_at:%Y-%m-%d %H:%M:%S} UTC: {owner.holder}. "
                f"Try again later. If its process is dead, the lock is free within {self._lease:g} s.",
                holder=owner.holder,
                since=owner.taken_at,
            )

    async def renew(self, run_id: str) -> bool:
        """Keep the lock for another while; False when another run has it."""
        change = self._own(run_id).values(lease_until=self._clock.now().timestamp() + self._lease)
        return await self._database.transaction(lambda connection: connection.execute(change).rowcount) == 1

    async def release(self, run_id: str) -> None:
        """Give the lock back, if the run still has it."""
        change = self._own(run_id).values(lease_until=0.0)
        await self._database.transaction(lambda connection: connection.execute(change))

    async def holder(self) -> LockHolder | None:
        """Return who has the lock; None where nobody has."""
        lock = job_locks.c
        query = sa.select(lock.run_id, lock.holder, lock.taken_at)
        query = query.where(lock.name == _NAME, self._is_alive(self._clock.now().timestamp()))
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else LockHolder(run_id=row.run_id, holder=row.holder, taken_at=row.taken_at)

    def _is_alive(self, now: float) -> sa.ColumnElement[bool]:
        # A lease that ends later than any that is taken now was taken before the clock was put back: nobody renews it.
        return job_locks.c.lease_until.between(now, now + 2 * self._lease)

    def _own(self, run_id: str) -> sa.Update:
        return sa.update(job_locks).where(job_locks.c.name == _NAME, job_locks.c.run_id == run_id)

    async def _keep(self, run_id: str) -> None:
        while True:
            await asyncio.sleep(self._lease / _RENEWALS)
            try:
                kept = await self.renew(run_id)
            except DatabaseUnavailableError as error:
                _logger.warning("the lock of run %s could not be renewed: %s", run_id, error)
                continue
            if not kept:
                _logger.warning("run %s has lost the lock to another, and goes on beside it", run_id)
                return

"""Places for processes that work in the background: a name that stays the same, held by one process at a time.

A process takes the lowest free place of its host and role. Its name, `<host>-<role>-<n>`, is what unfinished work is
filed under, so that the next process in the same place finds it. A place whose lease ran out is free.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import worker_slots

__all__ = ["RENEW_SECONDS", "SLOT_LEASE_SECONDS", "WorkerSlot"]

SLOT_LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class WorkerSlot:
    """The place of this process. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock, *, host: str, role: str, holder: str) -> None:
        self.name: str | None = None
        self._database = database
        self._clock = clock
        self._prefix = f"{_UNSAFE.sub('-', host)[:200]}-{role}-"
        self._holder = holder

    async def take(self) -> str:
        """Take the lowest free place and return its name."""
        self.name = await self._database.transaction(self._take)
        return self.name

    def _take(self, connection: sa.Connection) -> str:
        now = self._clock.now()
        if connection.dialect.name == "postgresql":
            # Two processes that start at once see the same free place; one waits for the other.
            connection.exec_driver_sql("LOCK TABLE worker_slots IN SHARE ROW EXCLUSIVE MODE")
        held = set(
            connection.execute(
                sa.select(worker_slots.c.name).where(
                    worker_slots.c.name.startswith(self._prefix, autoescape=True),
                    worker_slots.c.lease_until >= now.timestamp(),
                )
            ).scalars()
        )
        name = next(name for number in range(1, len(held) + 2) if (name := f"{self._prefix}{number}") not in held)
        connection.execute(sa.delete(worker_slots).where(worker_slots.c.name == name))
        connection.execute(
            sa.insert(worker_slots).values(name=name, holder=self._holder, lease_until=self._until(), taken_at=now)
        )
        return name

    async def renew(self) -> bool:
        """Keep the place for another while; False when another process has it."""
        change = self._own().values(lease_until=self._until())
        return await self._database.transaction(lambda connection: connection.execute(change).rowcount) == 1

    async def release(self) -> None:
        """Leave the place; what is filed under its name stays there for the next."""
        change = self._own().values(lease_until=0.0)
        self.name = None
        await self._database.transaction(lambda connection: connection.execute(change))

    async def is_held(self, name: str) -> bool:
        """Whether a process that lives has the place of this name."""
        query = sa.select(worker_slots.c.name).where(
            worker_slots.c.name == name, worker_slots.c.lease_until >= self._clock.now().timestamp()
        )
        return await self._database.run(lambda connection: connection.execute(query).first()) is not None

    def _own(self) -> sa.Update:
        return sa.update(worker_slots).where(worker_slots.c.name == self.name, worker_slots.c.holder == self._holder)

    def _until(self) -> float:
        return self._clock.now().timestamp() + SLOT_LEASE_SECONDS

"""The table of kept answers: the response cache's store in the records.

What is kept is the answer, the name of the model and of the operation, and a hash that stands for the request; the
request itself is not. An answer may repeat what a customer said, so the rows are personal data where the operations
are.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import response_cache

__all__ = ["ResponseCacheTable"]

_REMOVED_AT_ONCE = 100
"""Rows that one write removes at most, so that no answer's end waits for a great clean-up."""


class ResponseCacheTable:
    """Keeps answers for `ttl` seconds, at most `max_entries` of them.

    Raises, from every method:
        DatabaseUnavailableError: when the database cannot be read or written.
    """

    def __init__(self, database: Database, clock: Clock, *, ttl: float, max_entries: int) -> None:
        self._database = database
        self._clock = clock
        self._ttl = timedelta(seconds=ttl)
        self._max_entries = max_entries

    async def get(self, key: str) -> str | None:
        """Return what was put under `key` within the last `ttl` seconds."""
        query = sa.select(response_cache.c.content).where(
            response_cache.c.key == key, response_cache.c.created_at > self._oldest_alive()
        )
        found: str | None = await self._database.run(lambda connection: connection.execute(query).scalar_one_or_none())
        return found

    async def put(self, key: str, content: str, *, operation: str, model: str, simulated: bool) -> None:
        """Keep `content` under `key`, and remove some of what has expired or is too much."""
        values = {
            "key": key,
            "content": content,
            "operation": operation,
            "model": model,
            "simulated": simulated,
            "created_at": self._clock.now(),
        }
        insert = insert_or_change(self._database.engine.dialect.name, response_cache)
        changed = {name: insert.excluded[name] for name in values if name != "key"}
        statement = insert.values(values).on_conflict_do_update(index_elements=["key"], set_=changed)
        oldest = self._oldest_alive()

        def work(connection: sa.Connection) -> None:
            connection.execute(statement)
            self._remove_some(connection, oldest)

        await self._database.transaction(work)

    async def clear(self, *, operation: str | None = None, model: str | None = None) -> int:
        """Delete all kept answers, or those of one operation or model, and return how many there were."""
        statement = sa.delete(response_cache)
        if operation is not None:
            statement = statement.where(response_cache.c.operation == operation)
        if model is not None:
            statement = statement.where(response_cache.c.model == model)
        return await self._database.transaction(lambda connection: connection.execute(statement).rowcount)

    async def count(self) -> int:
        """Return how many answers are kept and have not expired."""
        query = sa.select(sa.func.count()).where(response_cache.c.created_at > self._oldest_alive())
        found: int = await self._database.run(lambda connection: connection.execute(query).scalar_one())
        return found

    def _oldest_alive(self) -> datetime:
        return self._clock.now() - self._ttl

    def _remove_some(self, connection: sa.Connection, oldest_alive: datetime) -> None:
        self._remove(connection, response_cache.c.created_at <= oldest_alive, _REMOVED_AT_ONCE)
        kept: int = connection.execute(sa.select(sa.func.count()).select_from(response_cache)).scalar_one()
        if kept > self._max_entries:
            self._remove(connection, sa.true(), min(kept - self._max_entries, _REMOVED_AT_ONCE))

    @staticmethod
    def _remove(connection: sa.Connection, which: sa.ColumnElement[bool], limit: int) -> None:
        oldest = sa.select(response_cache.c.key).where(which).order_by(response_cache.c.created_at).limit(limit)
        # What another process writes at this moment is left to it, so that no two wait for each other.
        unlocked = oldest.with_for_update(skip_locked=True)
        connection.execute(sa.delete(response_cache).where(response_cache.c.key.in_(unlocked)))

"""Rate limits in the records, shared by every process that uses the same database.

One row per model. A change reads it, works it out and writes it in one short transaction that holds the row, or on
SQLite the file, and never sleeps. On PostgreSQL the server's clock counts, so that the clocks of several machines need
not agree. Nothing has to be released: what a process took and never used refills with time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema_limits import rate_limits
from guidance_agent.llm.limits_state import Amounts, LimitState

__all__ = ["LimitTable"]

T = TypeVar("T")

_LONGEST_SCOPE = 300
_FORGOTTEN_SECONDS = 86_400.0


class LimitTable:
    """The limits that processes share.

    Raises, from every method:
        DatabaseUnavailableError: when the database cannot be read or written.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def apply(self, scope: str, change: Callable[[LimitState, float], T]) -> T:
        """Run `change` on the state of `scope` and keep what it made of it, as one step; it may be run again."""
        key = scope if len(scope) <= _LONGEST_SCOPE else hashlib.sha256(scope.encode()).hexdigest()
        of_scope = rate_limits.c.scope == key

        def work(connection: sa.Connection) -> T:
            state = _state(self._locked(connection, key))
            now = self._now(connection)
            result = change(state, now)
            values = sa.update(rate_limits).where(of_scope).values(state=_stored(state), updated=now)
            connection.execute(values)
            return result

        return await self._database.transaction(work)

    async def states(self) -> Mapping[str, tuple[LimitState, float]]:
        """Return what is kept of each model, with the seconds on the store's clock."""

        def work(connection: sa.Connection) -> dict[str, tuple[LimitState, float]]:
            now = self._now(connection)
            rows = connection.execute(sa.select(rate_limits).order_by(rate_limits.c.scope))
            return {row.scope: (_state(row.state), now) for row in rows}

        return await self._database.run(work)

    def _locked(self, connection: sa.Connection, scope: str) -> Mapping[str, Any]:
        """Return the stored state, with its row held until the transaction ends."""
        query = sa.select(rate_limits.c.state).where(rate_limits.c.scope == scope).with_for_update()
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            now = self._now(connection)
            connection.execute(sa.delete(rate_limits).where(rate_limits.c.updated < now - _FORGOTTEN_SECONDS))
            insert = insert_or_change(connection.dialect.name, rate_limits)
            values = {"scope": scope, "state": _stored(LimitState()), "updated": now}
            connection.execute(insert.values(values).on_conflict_do_nothing())
            # Another process may have been first: what counts is its row.
            found = connection.execute(query).scalar_one()
        state: Mapping[str, Any] = found
        return state

    def _now(self, connection: sa.Connection) -> float:
        if connection.dialect.name == "postgresql":
            return float(connection.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar_one())
        return self._clock.now().timestamp()


def _stored(state: LimitState) -> dict[str, Any]:
    return {
        "used": state.used,
        "updated": state.updated,
        "told": list(state.told),
        "factor": state.factor,
        "refused_at": state.refused_at,
        "blocked_until": state.blocked_until,
        "episodes": state.episodes,
        "guessed": state.guessed,
        "corrected_at": state.corrected_at,
    }


def _state(stored: Mapping[str, Any]) -> LimitState:
    return LimitState(**{**stored, "used": list(stored["used"]), "told": Amounts(*stored["told"])})

"""Windows of memories: which of a customer's observations are looked at together, once, to become a few reflections.

A window holds a fixed number of a customer's observations, the oldest that stand in no window yet, and is named by
their ids. So it is the same whoever makes it and however late: a run that was missed makes the windows that it would
have made, and two runs at once make the same ones. What a simulated model led to stands in windows of its own.

    waiting ──▶ answered ──▶ ended: kept, nothing, refused or failed
       ▲            │
       └────────────┘ what was answered cannot be kept: asked again

An observation is never deleted. It is marked consolidated when a reflection that was kept names it as evidence, and
only then; one that no reflection speaks of is remembered as before.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.schema import memories, memory_windows
from guidance_agent.core.types import JsonObject

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = ["WINDOW_SIZE", "MemoryWindow", "MemoryWindows", "NewReflection", "Observation", "WindowOutcome"]

WINDOW_SIZE = 12
"""How many observations are looked at together."""

WindowOutcome = Literal["kept", "nothing", "refused", "failed"]

_IDS_AT_ONCE = 500
_WINDOW = memory_windows.c
_MEMORY = memories.c
_READ = tuple(_WINDOW[name] for name in ("id", "customer_id", "memory_ids", "simulated", "attempts", "answer"))


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that a customer said."""

    id: str
    text: str
    created_at: datetime
    consultation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryWindow:
    """Observations of one customer that are looked at together, the oldest first.

    Attributes:
        attempts: How often an answer about them could not be kept.
        answer: What was answered and has not been looked at; None where nothing was.
    """

    id: str
    customer_id: str
    observations: tuple[Observation, ...]
    simulated: bool
    attempts: int
    answer: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReflection:
    """What several observations come to. `evidence` are ids of observations of the window; `importance` is 1 to 10."""

    text: str
    evidence: tuple[str, ...]
    importance: int


class MemoryWindows:
    """The windows of all customers; each is about one customer alone. Raises `DatabaseUnavailableError`.

    Args:
        database: The records.
        clock: Times and ids.
        size: How many observations make a window.
        include_simulated: Whether what a simulated model led to is looked at too.
    """

    def __init__(
        self, database: Database, clock: Clock, *, size: int = WINDOW_SIZE, include_simulated: bool = False
    ) -> None:
        self._database = database
        self._clock = clock
        self._size = size
        self._include_simulated = include_simulated

    async def open_new(self, limit: int) -> int:
        """Make windows of observations that stand in none, at most `limit` of them, and return how many were made."""
        now = self._clock.now()

        def write(connection: sa.Connection) -> int:
            _lock(connection)
            made = 0
            for customer_id, simulated, count in connection.execute(self._with_many(limit)):
                windows = min(count // self._size, limit - made)
                found = list(connection.execute(_free(customer_id, simulated).limit(windows * self._size)).scalars())
                for first in range(0, windows * self._size, self._size):
                    self._open(connection, customer_id, found[first : first + self._size], simulated, now)
                made += windows
                if made >= limit:
                    break
            return made

        return await self._database.transaction(write) if limit > 0 else 0

    def ready(self) -> sa.Select[Any]:
        """Select the ids of windows that wait to be asked about, the oldest first."""
        return sa.select(_WINDOW.id).where(_WINDOW.stage == "waiting").order_by(_WINDOW.created_at, _WINDOW.id)

    async def find(self, ids: Sequence[str]) -> list[MemoryWindow]:
        """Return these windows with their observations; one that was erased is left out."""
        return await self._whole(sa.select(*_READ).where(_WINDOW.id.in_(ids), _WINDOW.stage == "waiting"))

    async def answered(self, limit: int) -> list[MemoryWindow]:
        """Return windows whose answers have not been looked at, those that were opened first first."""
        return await self._whole(sa.select(*_READ).where(_WINDOW.stage == "answered").limit(limit))

    def note_answer(
        self, connection: sa.Connection, window_id: str, answer: JsonObject, *, model: str | None, cost: float | None
    ) -> bool:
        """Store what was answered about a window; False where it waits for none, or is no more."""
        values: JsonObject = {"stage": "answered", "answer": answer, "model": model, **_costing(cost)}
        return _moved(connection, window_id, "waiting", values)

    def note_failure(
        self, connection: sa.Connection, window_id: str, reason: str, *, attempts: int, cost: float | None
    ) -> bool:
        """Note that nothing was answered; True where the window is to be asked about again, `attempts` times in all."""
        made = connection.execute(sa.select(_WINDOW.attempts).where(_WINDOW.id == window_id)).scalar_one_or_none()
        if made is None:
            return False
        values = {"reason": reason, **_costing(cost)}
        return self._again(connection, window_id, "waiting", made, attempts, outcome="failed", **values)

    async def put_back(
        self, window: MemoryWindow, reason: str, *, attempts: int, refused: int, then: Callable[[sa.Connection], None]
    ) -> None:
        """Have a window asked about again, or end it after so many attempts.

        Args:
            window: The window, as it was read.
            reason: Why its answer cannot be kept.
            attempts: How often it is asked about in all.
            refused: How many reflections were left out.
            then: Called in the same transaction where it is to be asked about again.
        """

        def write(connection: sa.Connection) -> None:
            values: JsonObject = {"reason": reason, "refused": refused}
            if self._again(connection, window.id, "answered", window.attempts, attempts, outcome="refused", **values):
                then(connection)

        await self._database.transaction(write)

    async def keep(
        self, window: MemoryWindow, reflections: Sequence[NewReflection], *, simulated: bool, refused: int, reason: str
    ) -> bool:
        """Store reflections, mark what they are drawn from, and end the window; False where another process did.

        Args:
            window: The window, as it was read.
            reflections: What is remembered from now on; none ends the window as one that came to nothing.
            simulated: Whether a simulated model drew them.
            refused: How many were left out.
            reason: Why those were.
        """
        now = self._clock.now()
        rows = [self._row(window, each, simulated=simulated or window.simulated) for each in reflections]
        named = sorted({each for reflection in reflections for each in reflection.evidence})

        def write(connection: sa.Connection) -> bool:
            outcome: WindowOutcome = "kept" if rows else "nothing"
            values: JsonObject = {"outcome": outcome, "kept": len(rows), "refused": refused, "reason": reason or None}
            values |= {"stage": "ended", "ended_at": now}
            if not _moved(connection, window.id, "answered", values, attempts=window.attempts):
                return False
            if rows:
                connection.execute(sa.insert(memories), rows)
                mark = sa.update(memories).where(
                    _MEMORY.id.in_(named),
                    _MEMORY.customer_id == window.customer_id,
                    _MEMORY.consolidation_id == window.id,
                )
                connection.execute(mark.values(consolidated_at=now))
            return True

        return await self._database.transaction(write)

    async def standing(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return how many windows go on, by their stage, and how many have ended, by their outcome."""
        query = sa.select(_WINDOW.stage, _WINDOW.outcome, sa.func.count()).group_by(_WINDOW.stage, _WINDOW.outcome)
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        waiting = {stage: count for stage, _, count in rows if stage != "ended"}
        return waiting, {outcome: count for stage, outcome, count in rows if stage == "ended"}

    def _with_many(self, limit: int) -> sa.Select[Any]:
        counted = sa.func.count()
        query = (
            sa.select(_MEMORY.customer_id, _MEMORY.simulated, counted)
            .where(_MEMORY.kind == "observation", _MEMORY.consolidation_id.is_(None))
            .group_by(_MEMORY.customer_id, _MEMORY.simulated)
            .having(counted >= self._size)
            .order_by(sa.func.min(_MEMORY.created_at), _MEMORY.customer_id)
            .limit(limit)
        )
        return query if self._include_simulated else query.where(_MEMORY.simulated.is_(False))

    def _open(
        self, connection: sa.Connection, customer_id: str, memory_ids: Sequence[str], simulated: bool, now: datetime
    ) -> None:
        window_id = _window_id(customer_id, memory_ids)
        row: JsonObject = {
            "id": window_id,
            "customer_id": customer_id,
            "memory_ids": list(memory_ids),
            "stage": "waiting",
            "simulated": simulated,
            "created_at": now,
        }
        connection.execute(insert_or_change(connection.dialect.name, memory_windows).on_conflict_do_nothing(), [row])
        taken = sa.update(memories).where(_MEMORY.id.in_(memory_ids))
        connection.execute(taken.values(consolidation_id=window_id))

    def _row(self, window: MemoryWindow, reflection: NewReflection, *, simulated: bool) -> JsonObject:
        evidence = [each for each in window.observations if each.id in reflection.evidence]
        consultations = {each.consultation_id for each in evidence}
        return {
            "id": self._clock.new_id("mem"),
            "customer_id": window.customer_id,
            # What was said in one consultation is left out where that consultation is in the prompt anyway.
            "consultation_id": consultations.pop() if len(consultations) == 1 else None,
            "turn_id": None,
            "kind": "reflection",
            "text": reflection.text,
            # As old as the last thing that it is drawn from: what was said long ago is not news because it was read.
            "created_at": max(each.created_at for each in evidence),
            "importance": float(reflection.importance),
            "importance_attempts": 0,
            "simulated": simulated,
            "consolidation_id": window.id,
            "evidence": [each.id for each in evidence],
        }

    def _again(
        self,
        connection: sa.Connection,
        window_id: str,
        before: str,
        made: int,
        attempts: int,
        *,
        outcome: WindowOutcome,
        **values: Any,
    ) -> bool:
        values |= {"attempts": made + 1, "answer": None}
        if made + 1 < attempts:
            return _moved(connection, window_id, before, {**values, "stage": "waiting"}, attempts=made)
        values |= {"stage": "ended", "outcome": outcome, "ended_at": self._clock.now()}
        _moved(connection, window_id, before, values, attempts=made)
        return False

    async def _whole(self, query: sa.Select[Any]) -> list[MemoryWindow]:
        """Return the windows of a query; those that have lost an observation are ended, and leave the others free."""
        while True:
            windows, broken = await self._database.run(lambda connection: _windows(connection, query))
            if not broken:
                return windows
            await self._database.transaction(functools.partial(self._give_up, window_ids=broken))

    def _give_up(self, connection: sa.Connection, window_ids: Sequence[str]) -> None:
        ended = {"stage": "ended", "outcome": "failed", "ended_at": self._clock.now()}
        change = sa.update(memory_windows).where(_WINDOW.id.in_(window_ids), _WINDOW.stage != "ended")
        connection.execute(change.values(**ended, reason="Some of its observations are gone."))
        free = sa.update(memories).where(_MEMORY.consolidation_id.in_(window_ids), _MEMORY.consolidated_at.is_(None))
        connection.execute(free.values(consolidation_id=None))


def _windows(connection: sa.Connection, query: sa.Select[Any]) -> tuple[list[MemoryWindow], list[str]]:
    """Return the windows that a query selects, and the ids of those that are not whole any more."""
    rows = connection.execute(query.order_by(_WINDOW.created_at, _WINDOW.id)).all()
    wanted = [each for row in rows for each in row.memory_ids]
    columns = sa.select(_MEMORY.id, _MEMORY.text, _MEMORY.created_at, _MEMORY.consultation_id, _MEMORY.customer_id)
    found: dict[tuple[str, str], Observation] = {}
    for first in range(0, len(wanted), _IDS_AT_ONCE):
        for row in connection.execute(columns.where(_MEMORY.id.in_(wanted[first : first + _IDS_AT_ONCE]))):
            found[row.customer_id, row.id] = Observation(row.id, row.text, row.created_at, row.consultation_id)
    windows: list[MemoryWindow] = []
    broken: list[str] = []
    for row in rows:
        observations = [found.get((row.customer_id, each)) for each in row.memory_ids]
        whole = tuple(each for each in observations if each is not None)
        if len(whole) < len(observations):
            broken.append(row.id)
            continue
        windows.append(
            MemoryWindow(
                id=row.id,
                customer_id=row.customer_id,
                observations=whole,
                simulated=row.simulated,
                attempts=row.attempts,
                answer=row.answer,
            )
        )
    return windows, broken


def _free(customer_id: str, simulated: bool) -> sa.Select[Any]:
    return (
        sa.select(_MEMORY.id)
        .where(
            _MEMORY.customer_id == customer_id,
            _MEMORY.simulated.is_(simulated),
            _MEMORY.kind == "observation",
            _MEMORY.consolidation_id.is_(None),
        )
        .order_by(_MEMORY.created_at, _MEMORY.id)
    )


def _window_id(customer_id: str, memory_ids: Sequence[str]) -> str:
    named = "\0".join((customer_id, *memory_ids)).encode("utf-8", "surrogatepass")
    return f"window_{hashlib.sha256(named).hexdigest()[:40]}"


def _moved(
    connection: sa.Connection, window_id: str, before: str, values: Mapping[str, Any], *, attempts: int | None = None
) -> bool:
    change = sa.update(memory_windows).where(_WINDOW.id == window_id, _WINDOW.stage == before)
    if attempts is not None:
        change = change.where(_WINDOW.attempts == attempts)
    return bool(connection.execute(change.values(**values)).rowcount)


def _costing(cost: float | None) -> JsonObject:
    return {} if cost is None else {"cost_usd": sa.func.coalesce(_WINDOW.cost_usd, 0.0) + cost}


def _lock(connection: sa.Connection) -> None:
    """Let no other process make windows before this transaction ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE memory_windows IN SHARE ROW EXCLUSIVE MODE"))

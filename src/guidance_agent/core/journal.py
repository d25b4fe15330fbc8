"""The journal: nothing is shown that is not on disk.

Each live turn is a `JournalSource`. It says with `Journal.notify` that something waits to be written; the one committer
of the process takes what all of them have and writes it in one transaction. What arrives during a commit goes
into the next, so the cost of a commit is shared and a turn is never more than one commit behind. Only after the commit
does a source learn that its events may be handed out.

A transaction that fails releases nothing of its batch: every source in it gets a `JournalError`. A turn whose lease was
taken by another process gets a `LeaseLostError`, and the rest of the batch is written.

The committer also renews the leases of live turns, so that a slow model or caller never makes a live turn look dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from guidance_agent.core.bulk import Row, insert_rows, is_one_of, named_ids, update_rows
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database, first_line
from guidance_agent.core.schema import consultations, turn_events, turns
from guidance_agent.core.writing_thread import is_about_data
from guidance_agent.errors import DatabaseUnavailableError, JournalError, LeaseLostError

__all__ = ["LEASE_SECONDS", "RENEW_SECONDS", "Journal", "JournalSource", "JournalWrite", "Row"]

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
_WAITING_ROWS_LIMIT = 10_000
_PAUSE_PER_TURN = 0.000_5
_LONGEST_PAUSE = 0.04

_logger = logging.getLogger("guidance_agent.journal")


@dataclass(slots=True)
class JournalWrite:
    """What one turn wants written in the next transaction.

    Attributes:
        opening: Rows that the turn begins with, by table, in the order of their references.
        events: Rows of `turn_events`.
        turn_values: New values of the turn's own row.
        consultation_values: New values of the consultation's row.
        closing: Rows that come after these, by table: what the gate did, and what belongs to the turn's end.
        ends: Whether the turn gives up its lease with this write.
    """

    opening: list[tuple[sa.Table, Row]] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    turn_values: dict[str, Any] = field(default_factory=dict)
    consultation_values: dict[str, Any] = field(default_factory=dict)
    closing: list[tuple[sa.Table, Row]] = field(default_factory=list)
    ends: bool = False


class JournalSource(Protocol):
    """A live turn, as the journal sees it. All methods are called on the event loop and must not block."""

    turn_id: str
    consultation_id: str

    def take(self) -> JournalWrite:
        """Hand over everything that waits to be written."""

    def committed(self) -> None:
        """What `take` handed over last is on disk."""

    def failed(self, error: JournalError) -> None:
        """What `take` handed over last is not on disk and never will be."""


class Journal:
    """The committer of one process; an async context manager that owns its task and its connection.

    Leaving writes what is pending first.
    """

    def __init__(self, database: Database, clock: Clock, *, owner: str) -> None:
        self.owner = owner
        self._database = database
        self._clock = clock
        self._dirty: dict[str, JournalSource] = {}
        self._live: dict[str, float] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._rows: list[tuple[sa.Table, Row]] = []
        self._waiting_rows: list[tuple[sa.Table, Row]] = []
        self._wake = asyncio.Event()
        self._batch_size = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.commits = 0

    async def __aenter__(self) -> Journal:
        self._task = asyncio.create_task(self._run(), name="journal-committer")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.shield(self._task)
        if self._waiting_rows:
            await self._commit_batch()

    @property
    def live_turns(self) -> frozenset[str]:
        """Ids of the turns whose leases this journal renews."""
        return frozenset(self._live)

    def lease_until(self) -> float:
        """Return the end of a lease that begins now, in seconds since the epoch."""
        return self._clock.now().timestamp() + LEASE_SECONDS

    @contextlib.contextmanager
    def watch(self, turn_id: str) -> Iterator[asyncio.Event]:
        """Have an event that is set whenever this journal has committed something of the turn."""
        changed = asyncio.Event()
        self._watchers.setdefault(turn_id, set()).add(changed)
        try:
            yield changed
        finally:
            watchers = self._watchers[turn_id]
            watchers.discard(changed)
            if not watchers:
                del self._watchers[turn_id]

    def announce(self, turn_id: str) -> None:
        """Tell those who watch a turn that something else than this journal has written of it."""
        for changed in self._watchers.get(turn_id, ()):
            changed.set()

    def notify(self, source: JournalSource) -> None:
        """Have the source's pending events written with the next commit."""
        if self._closing:
            self._refuse(source)
            return
        self._dirty[source.turn_id] = source
        self._wake.set()

    def add_rows(self, table: sa.Table, rows: Iterable[Row]) -> None:
        """Write rows of no turn, such as the usage ledger's, with the next commit."""
        self._rows.extend((table, row) for row in rows)
        self._wake.set()

    async def _run(self) -> None:
        try:
            await self._commit_until_closed()
        finally:
            # Whatever ends the committer, a loop that closes included: nobody may wait for it any more.
            self._closing = True
            for source in list(self._dirty.values()):
                self._refuse(source)
            self._dirty.clear()

    async def _commit_until_closed(self) -> None:
        while True:
            if not (self._dirty or self._rows):
                if self._closing:
                    return
                self._wake.clear()
                try:
                    async with asyncio.timeout(RENEW_SECONDS if self._live else None):
                        await self._wake.wait()
                except TimeoutError:
                    await self._renew_only()
                continue
            await self._commit_batch()
            if self._batch_size > 1 and not self._closing:
                # The more turns, the longer the pause: more of them share the next commit, at less cost for each.
                await asyncio.sleep(min(_PAUSE_PER_TURN * self._batch_size, _LONGEST_PAUSE))

    def _refuse(self, source: JournalSource) -> None:
        source.take()
        self._live.pop(source.turn_id, None)
        source.failed(JournalError("The journal is closed. Keep the advisor open while its turns run."))

    async def _commit_batch(self) -> None:
        dirty, self._dirty = self._dirty, {}
        rows, self._rows, self._waiting_rows = self._waiting_rows + self._rows, [], []
        batch = [(source, source.take()) for source in dirty.values()]
        # Turns that end have nothing more to share a commit with.
        self._batch_size = sum(not write.ends for _, write in batch)
        await self._commit(batch, rows)

    async def _commit(
        self, batch: Sequence[tuple[JournalSource, JournalWrite]], rows: Sequence[tuple[sa.Table, Row]]
    ) -> None:
        # The thread that writes gets what it needs: the leases are this loop's to keep.
        due = self._due_leases()
        try:
            lost = await self._database.submit(functools.partial(self._write, batch=batch, rows=rows, due=due))
        except asyncio.CancelledError as error:
            self._fail_batch(batch, rows, error)
            raise
        except Exception as error:
            if not is_about_data(error):
                self._fail_batch(batch, rows, error)
                # Rows of no turn wait for the next commit that works: a full disk must not cost the ledger entries.
                self._waiting_rows = list(rows)[-_WAITING_ROWS_LIMIT:]
            elif len(batch) + len(rows) == 1:
                self._fail_batch(batch, rows, error)
            else:
                # What one turn or row may not say (a consultation asked twice at once) must not end the others.
                for entry in batch:
                    await self._commit([entry], [])
                for row in rows:
                    await self._commit([], [row])
            return
        self.commits += 1
        self._note_renewal(due)
        for source, write in batch:
            if source.turn_id in lost:
                self._live.pop(source.turn_id, None)
                source.failed(
                    LeaseLostError(f"Turn {source.turn_id!r} was closed by another process: its lease had run out.")
                )
                continue
            if write.ends:
                self._live.pop(source.turn_id, None)
            else:
                self._live.setdefault(source.turn_id, self._clock.monotonic())
            source.committed()
            self.announce(source.turn_id)

    def _fail_batch(
        self,
        batch: Sequence[tuple[JournalSource, JournalWrite]],
        rows: Sequence[tuple[sa.Table, Row]],
        error: BaseException,
    ) -> None:
        reason = first_line(error)
        _logger.error("journal commit failed: turns=%d other_rows=%d reason=%s", len(batch), len(rows), reason)
        for source, write in batch:
            if write.ends:
                self._live.pop(source.turn_id, None)
            failure = JournalError(
                f"Turn {source.turn_id!r} could not be recorded, so its text is not shown: {reason} "
                "Check the database's disk and permissions, then ask again.",
                contradicts_record=isinstance(error, sa.exc.IntegrityError),
            )
            failure.__cause__ = error
            source.failed(failure)

    def _write(
        self,
        connection: sa.Connection,
        *,
        batch: Sequence[tuple[JournalSource, JournalWrite]],
        rows: Sequence[tuple[sa.Table, Row]],
        due: Sequence[str],
    ) -> set[str]:
        """Write a batch, in the writing thread; return the ids of turns whose lease was lost."""
        lost = self._lost_leases(connection, batch)
        kept = [(source, write) for source, write in batch if source.turn_id not in lost]
        for table, inserted in _by_table(kept, rows).items():
            insert_rows(connection, table, inserted)
        update_rows(connection, turns, [(source.turn_id, write.turn_values) for source, write in kept])
        update_rows(
            connection, consultations, [(source.consultation_id, write.consultation_values) for source, write in kept]
        )
        self._renew(connection, due)
        return lost

    def _lost_leases(self, connection: sa.Connection, batch: Sequence[tuple[JournalSource, JournalWrite]]) -> set[str]:
        ids = {source.turn_id for source, write in batch if not write.opening}
        if not ids:
            return set()
        parameters = {"ids": list(ids), "holder": self.owner}
        return set(connection.execute(_lost_leases(connection.dialect.name), parameters).scalars())

    def _due_leases(self) -> list[str]:
        now = self._clock.monotonic()
        return [turn_id for turn_id, renewed in self._live.items() if now - renewed >= RENEW_SECONDS]

    def _note_renewal(self, turn_ids: Sequence[str]) -> None:
        now = self._clock.monotonic()
        self._live.update({turn_id: now for turn_id in turn_ids if turn_id in self._live})

    def _renew(self, connection: sa.Connection, due: Sequence[str]) -> None:
        if due:
            parameters = {"ids": list(due), "holder": self.owner, "until": self.lease_until()}
            connection.execute(_renew_leases(connection.dialect.name), parameters)

    async def _renew_only(self) -> None:
        due = self._due_leases()
        if not due:
            return
        try:
            await self._database.transaction(functools.partial(self._renew, due=due))
        except DatabaseUnavailableError as error:
            _logger.warning("leases could not be renewed: %s", first_line(error))
            return
        self._note_renewal(due)


# Statements are built once: building one costs more than running it.


@functools.cache
def _lost_leases(dialect: str) -> sa.Select[Any]:
    """Return the turns among `ids` that are not held any more: nearly always none, so that no row has to be read."""
    named = named_ids(dialect)
    own = _own_live_turns(dialect)
    if dialect == "postgresql":
        # The weakest lock that a sweep waits for: writing events of the same turns goes on.
        held = sa.select(turns.c.id).where(own).with_for_update(key_share=True).cte("held")
        return sa.select(named.c.value).where(named.c.value.not_in(sa.select(held.c.id)))
    return sa.select(named.c.value).where(~sa.exists().where(turns.c.id == named.c.value, _is_held()))


@functools.cache
def _renew_leases(dialect: str) -> sa.Update:
    return sa.update(turns).where(_own_live_turns(dialect)).values(lease_until=sa.bindparam("until"))


def _own_live_turns(dialect: str) -> sa.ColumnElement[bool]:
    return sa.and_(is_one_of(dialect, turns.c.id), _is_held())


def _is_held() -> sa.ColumnElement[bool]:
    return sa.and_(turns.c.owner == sa.bindparam("holder"), turns.c.state == "streaming")


def _by_table(
    kept: Sequence[tuple[JournalSource, JournalWrite]], rows: Sequence[tuple[sa.Table, Row]]
) -> dict[sa.Table, list[Row]]:
    """Return all rows to insert, referenced tables first."""
    inserts: dict[sa.Table, list[Row]] = {consultations: [], turns: [], turn_events: []}
    for _, write in kept:
        inserts[turn_events].extend(write.events)
        for table, row in (*write.opening, *write.closing):
            inserts.setdefault(table, []).append(row)
    for table, row in rows:
        inserts.setdefault(table, []).append(row)
    return {table: inserted for table, inserted in inserts.items() if inserted}

"""Nothing is shown that is not on disk: the journal's commits, failures and leases on a real database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.journal import RENEW_SECONDS, Journal, JournalWrite
from guidance_agent.core.records import Records
from guidance_agent.core.schema import consultations, model_calls, turn_events, turns
from guidance_agent.errors import JournalError, LeaseLostError
from guidance_agent.settings import Settings
from tests.integration.attacks.faults_of_storage import full_disk


class Source:
    """A turn that writes the texts it is given, one event each."""

    def __init__(self, journal: Journal, clock: SystemClock, number: int = 0) -> None:
        self.turn_id = f"turn-{number}"
        self.consultation_id = f"cons-{number}"
        self.pending: list[str] = []
        self.outcomes: list[Exception | None] = []
        self.changed = asyncio.Event()
        self.sequence = -1
        self.ends = False
        self._clock = clock
        self._journal = journal
        self._opened = False

    def write(self, text: str) -> None:
        self.pending.append(text)
        self._journal.notify(self)

    def take(self) -> JournalWrite:
        write = JournalWrite(ends=self.ends)
        now = self._clock.now()
        if not self._opened:
            self._opened = True
            write.opening += [(consultations, self._consultation()), (turns, self._turn())]
        for text in self.pending:
            self.sequence += 1
            write.events.append(
                {
                    "turn_id": self.turn_id,
                    "sequence": self.sequence,
                    "type": "text_delta",
                    "text": text,
                    "payload": {"type": "text_delta"},
                    "created_at": now,
                }
            )
        self.pending = []
        return write

    def committed(self) -> None:
        self.outcomes.append(None)
        self.changed.set()

    def failed(self, error: JournalError) -> None:
        self.outcomes.append(error)
        self.changed.set()

    async def settled(self) -> Exception | None:
        await asyncio.wait_for(self.changed.wait(), 5)
        self.changed.clear()
        return self.outcomes[-1]

    def _consultation(self) -> dict[str, Any]:
        return {
            "id": self.consultation_id,
            "customer_id": "c",
            "advisor_id": "a",
            "opened_at": self._clock.now(),
            "profile": {},
            "transcript_hash": "0" * 64,
            "turn_count": 1,
            "outcome": "open",
            "simulated": True,
        }

    def _turn(self) -> dict[str, Any]:
        return {
            "id": self.turn_id,
            "consultation_id": self.consultation_id,
            "ordinal": 1,
            "state": "streaming",
            "question": "?",
            "model": "m",
            "simulated": True,
            "owner": self._journal.owner,
            "lease_until": self._journal.lease_until(),
            "started_at": self._clock.now(),
            "last_sequence": -1,
            "context": {},
        }


class ShiftedClock(SystemClock):
    """The real clock, moved forward by hand."""

    offset = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.offset)

    def monotonic(self) -> float:
        return super().monotonic() + self.offset


@pytest_asyncio.fixture
async def journal(database: Database, clock: SystemClock) -> AsyncIterator[Journal]:
    async with Journal(database, clock, owner="me") as opened:
        yield opened


async def texts(database: Database, turn_id: str) -> list[str]:
    with database.engine.connect() as connection:
        rows = connection.execute(
            sa.select(turn_events.c.text).where(turn_events.c.turn_id == turn_id).order_by(turn_events.c.sequence)
        )
        return list(rows.scalars())


async def test_a_source_learns_of_its_commit_only_when_the_rows_can_be_read(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    source = Source(journal, clock)
    source.write("first")
    assert await source.settled() is None
    assert await texts(database, source.turn_id) == ["first"]


async def test_many_turns_share_a_commit(database: Database, journal: Journal, clock: SystemClock) -> None:
    sources = [Source(journal, clock, number) for number in range(50)]
    for source in sources:
        source.write("a")
    assert [await source.settled() for source in sources] == [None] * 50
    assert journal.commits <= 2


async def test_what_arrives_during_a_commit_goes_into_the_next(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    source = Source(journal, clock)
    for number in range(500):
        source.write(str(number))
        if number % 50 == 0:
            await asyncio.sleep(0)
    while len(await texts(database, source.turn_id)) < 500:
        await source.settled()
    assert await texts(database, source.turn_id) == [str(number) for number in range(500)]
    assert journal.commits < 100


async def test_leaving_the_journal_writes_what_is_pending(database: Database, clock: SystemClock) -> None:
    async with Journal(database, clock, owner="me") as journal:
        source = Source(journal, clock)
        source.write("last words")
    assert source.outcomes == [None]
    assert await texts(database, source.turn_id) == ["last words"]


async def test_a_closed_journal_refuses_instead_of_forgetting(database: Database, clock: SystemClock) -> None:
    async with Journal(database, clock, owner="me") as journal:
        source = Source(journal, clock)
    source.write("too late")
    assert isinstance(source.outcomes[0], JournalError)


async def test_a_full_disk_ends_the_turns_of_the_batch_and_shows_nothing_of_it(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    first, second = Source(journal, clock, 1), Source(journal, clock, 2)
    first.write("shown")
    assert await first.settled() is None
    with full_disk(database):
        first.write("x" * 200_000)
        error = await first.settled()
    assert isinstance(error, JournalError)
    assert "full" in str(error)
    assert await texts(database, first.turn_id) == ["shown"]
    second.write("goes on")
    assert await second.settled() is None
    assert await texts(database, second.turn_id) == ["goes on"]


async def test_ledger_rows_survive_a_failed_commit(database: Database, journal: Journal, clock: SystemClock) -> None:
    source = Source(journal, clock)
    source.write("a")
    await source.settled()
    with full_disk(database):
        journal.add_rows(model_calls, [_ledger_row(clock)])
        source.write("x" * 200_000)
        assert isinstance(await source.settled(), JournalError)
    source.write("fits")
    await source.settled()
    with database.engine.connect() as connection:
        assert (connection.execute(sa.select(sa.func.count()).select_from(model_calls))).scalar_one() == 1


def _ledger_row(clock: SystemClock) -> dict[str, Any]:
    return {
        "id": "call-1",
        "operation": "guidance",
        "model": "m",
        "requested_model": "m",
        "provider": "p",
        "transport": "native",
        "started_at": clock.now(),
        "outcome": "completed",
        "attempts": 1,
        "total_seconds": 1.0,
        "chunks": 1,
        "usage_estimated": False,
        "cache_outcome": "unknown",
        "cache_parts": {},
        "simulated": True,
    }


async def test_one_turns_contradiction_does_not_end_the_others(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    first = Source(journal, clock, 1)
    first.write("a")
    await first.settled()
    twin, other = Source(journal, clock, 1), Source(journal, clock, 2)
    twin.write("b")
    other.write("c")
    assert isinstance(await twin.settled(), JournalError)
    assert await other.settled() is None
    assert await texts(database, other.turn_id) == ["c"]
    assert await texts(database, first.turn_id) == ["a"]


async def test_a_turn_whose_lease_was_taken_cannot_write_and_the_rest_of_the_batch_can(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    taken, kept = Source(journal, clock, 1), Source(journal, clock, 2)
    for source in (taken, kept):
        source.write("a")
        await source.settled()
    with database.engine.begin() as connection:
        connection.execute(sa.update(turns).where(turns.c.id == taken.turn_id).values(state="process_died"))
    taken.write("b")
    kept.write("b")
    assert isinstance(await taken.settled(), LeaseLostError)
    assert await kept.settled() is None
    assert await texts(database, taken.turn_id) == ["a"]
    assert await texts(database, kept.turn_id) == ["a", "b"]


def _died(turn_id: str, sequence: int) -> dict[str, Any]:
    return {"type": "failed", "turn_id": turn_id, "sequence": sequence, "error": "ProcessDied", "message": "died"}


async def test_a_live_turn_keeps_its_lease_while_it_writes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidance_agent.core.journal.RENEW_SECONDS", 0.05)
    clock = ShiftedClock()
    async with Journal(database, clock, owner="me") as journal:
        source = Source(journal, clock)
        source.write("a")
        await source.settled()
        clock.offset = 100.0
        async with asyncio.timeout(5):
            while await _lease(database) < clock.now().timestamp():  # noqa: ASYNC110 - the database is polled
                await asyncio.sleep(0.01)
        assert await Records(database, clock).close_dead_turns(_died) == ()


async def _lease(database: Database) -> float:
    with database.engine.connect() as connection:
        return float((connection.execute(sa.select(turns.c.lease_until))).scalar_one())


async def test_the_sweep_closes_a_dead_turn_with_its_text_and_hands_it_to_judgement(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    source = Source(journal, clock)
    for text in ("What was ", "shown"):
        source.write(text)
        await source.settled()
    later = ShiftedClock()
    later.offset = 31.0
    records = Records(database, later)
    assert await Records(database, clock).close_dead_turns(_died) == ()
    assert await records.close_dead_turns(_died) == (source.turn_id,)
    assert await records.close_dead_turns(_died) == ()
    turn = await records.turn(source.turn_id)
    assert turn is not None
    assert (turn["state"], turn["judgement"], turn["delivered_length"]) == ("process_died", "pending", 14)
    events = await records.events(source.turn_id)
    assert [event.sequence for event in events] == [0, 1, 2]
    assert events[-1].payload["error"] == "ProcessDied"
    assert [entry.content for entry in await records.transcript(source.consultation_id)] == ["?", "What was shown"]
    source.write("more")
    assert isinstance(await source.settled(), LeaseLostError)


async def test_a_dead_turn_is_closed_exactly_once_however_many_sweep(
    database: Database, settings: Settings, clock: SystemClock
) -> None:
    async with Journal(database, clock, owner="dead") as journal:
        sources = [Source(journal, clock, number) for number in range(40)]
        for source in sources:
            source.write("shown")
            await source.settled()
    later = ShiftedClock()
    later.offset = 31.0
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(Database(database_url(settings))) for _ in range(3)]
        sweeps = [Records(one, later).close_dead_turns(_died) for one in (database, *others) for _ in range(2)]
        closed = [turn_id for sweep in await asyncio.gather(*sweeps) for turn_id in sweep]
    assert sorted(closed) == sorted(source.turn_id for source in sources)
    with database.engine.connect() as connection:
        ends = (
            connection.execute(sa.select(turn_events.c.turn_id).where(turn_events.c.type == "failed")).scalars().all()
        )
    assert sorted(ends) == sorted(closed)


async def test_a_sweep_that_waits_for_a_commit_leaves_the_turn_that_was_renewed_by_it(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    source = Source(journal, clock)
    source.write("a")
    await source.settled()
    later = ShiftedClock()
    later.offset = 31.0
    held, let_go = threading.Event(), threading.Event()

    def renew(connection: sa.Connection) -> None:
        change = sa.update(turns).where(turns.c.id == source.turn_id)
        connection.execute(change.values(lease_until=later.now().timestamp() + 30))
        held.set()
        let_go.wait(5)

    renewal = database.submit(renew)
    await asyncio.to_thread(held.wait, 5)
    sweep = asyncio.create_task(Records(database, later).close_dead_turns(_died))
    await asyncio.sleep(0.05)
    let_go.set()
    await renewal
    assert await sweep == ()
    source.write("b")
    assert await source.settled() is None


def test_leases_are_renewed_well_before_they_run_out() -> None:
    from guidance_agent.core.journal import LEASE_SECONDS

    assert RENEW_SECONDS * 3 < LEASE_SECONDS


async def test_a_turn_that_never_came_on_record_holds_no_lease(
    database: Database, journal: Journal, clock: SystemClock
) -> None:
    first, twin = Source(journal, clock, 1), Source(journal, clock, 1)
    twin.turn_id = "turn-twin"
    first.write("a")
    assert await first.settled() is None
    twin.write("b")
    assert isinstance(await twin.settled(), JournalError)
    assert journal.live_turns == {first.turn_id}


async def test_a_turn_that_has_ended_holds_no_lease(database: Database, journal: Journal, clock: SystemClock) -> None:
    source = Source(journal, clock)
    source.write("a")
    await source.settled()
    assert journal.live_turns == {source.turn_id}
    source.ends = True
    source.write("b")
    await source.settled()
    assert journal.live_turns == frozenset()

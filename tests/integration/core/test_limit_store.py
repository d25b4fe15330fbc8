"""Rate limits in the database: shared, atomic, and free of what a dead process left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta

import pytest

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.limit_store import LimitTable
from guidance_agent.llm.limits import LimitQueue
from guidance_agent.llm.limits_grant import CallSize
from guidance_agent.llm.limits_state import Amounts, Bounds, LimitState
from guidance_agent.settings import Settings

BOUNDS = Bounds(per_minute=Amounts(600, 60_000), burst=10)


class MovableClock(SystemClock):
    """A clock whose wall time a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 21, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def one(state: LimitState, now: float) -> float:
    return state.reserve(Amounts(1, 10), BOUNDS, now).wait


async def test_what_one_takes_is_missing_for_the_other(database: Database) -> None:
    first, second = LimitTable(database, SystemClock()), LimitTable(database, SystemClock())
    for table in (first, second, first):
        assert await table.apply("a/model", one) == 0
    await second.apply("other/model", one)
    states = await second.states()
    assert set(states) == {"a/model", "other/model"}
    assert states["a/model"][0].used[0] > states["other/model"][0].used[0]


async def test_everything_of_a_state_is_kept(database: Database) -> None:
    table, made = LimitTable(database, SystemClock()), list[LimitState]()

    def change(state: LimitState, now: float) -> None:
        state.reserve(Amounts(3, 100, 7), BOUNDS, now)
        state.refuse(BOUNDS, now, retry_after=3, told=Amounts(500, 50_000, 5_000), reached=Amounts())
        state.correct(Amounts(90), Amounts(1), BOUNDS, due=now, now=now)
        state.guessed = True
        made.append(state)

    await table.apply("a/model", change)
    assert (await table.states())["a/model"][0] == made[-1]


async def test_changes_at_once_lose_nothing(database: Database) -> None:
    tables = [LimitTable(database, SystemClock()) for _ in range(3)]

    def add(state: LimitState, now: float) -> None:
        state.add(Amounts(0, 0, 1))

    await asyncio.gather(*(tables[number % 3].apply("new/model", add) for number in range(30)))
    assert (await tables[0].states())["new/model"][0].used[2] == 30


async def test_processes_take_turns_and_nobody_goes_too_early(settings: Settings) -> None:
    """Three queues with a database connection each, as three processes have them."""
    bounds, url, done = Bounds(per_minute=Amounts(3_000), burst=0.2), database_url(settings), list[int]()
    tasks = set[asyncio.Task[object]]()

    def own(work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    clock = SystemClock()
    async with Database(url) as first, Database(url) as second, Database(url) as third:
        queues = [
            LimitQueue("a/model", bounds, store=LimitTable(each, clock), clock=clock, own=own)
            for each in (first, second, third)
        ]

        async def call(number: int) -> None:
            await queues[number].enter(CallSize(10, 10), "chat", 30)
            done.append(number)

        began = clock.monotonic()
        await asyncio.gather(*(call(number) for number in range(3) for _ in range(20)))
        took = clock.monotonic() - began
        for queue in queues:
            await queue.aclose()
    # 60 calls, 10 of them at once, at 50 a second.
    assert took >= 0.95
    assert all(done[:45].count(number) >= 4 for number in range(3))


@pytest.mark.only_on("sqlite")
async def test_what_a_dead_process_took_refills(database: Database) -> None:
    clock = MovableClock()
    table = LimitTable(database, clock)

    def many(state: LimitState, now: float) -> None:
        for _ in range(200):
            one(state, now)

    await table.apply("a/model", many)
    assert await table.apply("a/model", one) == pytest.approx(10.1)
    clock.time += timedelta(seconds=21)
    assert await table.apply("a/model", one) == 0


@pytest.mark.only_on("sqlite")
async def test_models_that_nobody_calls_any_more_are_forgotten(database: Database) -> None:
    clock = MovableClock()
    table = LimitTable(database, clock)
    await table.apply("old/model", one)
    clock.time += timedelta(days=2)
    await table.apply("new/" + "m" * 400, one)
    assert [len(scope) for scope in await table.states()] == [64]

"""Which transaction is next, and which share one."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from guidance_agent.core.database import Database, SharedWork
from guidance_agent.errors import DatabaseUnavailableError

on_sqlite = pytest.mark.only_on("sqlite")


class Held:
    """A transaction that holds the writing thread until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self, connection: sa.Connection) -> None:
        self.begun.set()
        self.let_go.wait(10)


async def _holding(database: Database) -> tuple[Held, asyncio.Future[None]]:
    held = Held()
    holding = asyncio.ensure_future(database.transaction(held))
    assert await asyncio.to_thread(held.begun.wait, 10)
    return held, holding


def _note(connection: sa.Connection, *, order: list[str], name: str) -> None:
    order.append(name)


@on_sqlite
async def test_text_waits_for_the_transaction_that_runs_and_for_none_that_came_before_it(database: Database) -> None:
    order: list[str] = []
    held, holding = await _holding(database)
    others = [
        asyncio.ensure_future(database.transaction(functools.partial(_note, order=order, name=f"other {number}")))
        for number in range(3)
    ]
    await asyncio.sleep(0)
    text = database.submit(functools.partial(_note, order=order, name="text"))
    held.let_go.set()
    await asyncio.gather(holding, text, *others)
    assert order == ["text", "other 0", "other 1", "other 2"]


async def test_work_of_one_kind_that_waits_shares_a_transaction(database: Database) -> None:
    groups: list[Sequence[int]] = []

    def double(connection: sa.Connection, numbers: Sequence[int]) -> list[int]:
        groups.append(list(numbers))
        return [2 * number for number in numbers]

    order: list[str] = []
    held, holding = await _holding(database)
    first = asyncio.ensure_future(database.transaction(SharedWork(double, 0)))
    between = asyncio.ensure_future(database.transaction(functools.partial(_note, order=order, name="between")))
    rest = [asyncio.ensure_future(database.transaction(SharedWork(double, number))) for number in range(1, 20)]
    await asyncio.sleep(0)
    held.let_go.set()
    await asyncio.gather(holding, between)
    assert [await work for work in (first, *rest)] == [2 * number for number in range(20)]
    assert [number for group in groups for number in group] == list(range(20))
    assert len(groups[0]) > 1
    # No group is so large that text would have to wait long for it.
    assert max(len(group) for group in groups) <= 8


async def test_work_that_the_database_refuses_does_not_fail_what_shares_its_transaction(database: Database) -> None:
    await database.transaction(
        lambda connection: connection.execute(sa.text("CREATE TABLE one (value INTEGER UNIQUE)"))
    )

    def keep(connection: sa.Connection, values: Sequence[int]) -> Sequence[int]:
        for value in values:
            connection.execute(sa.text("INSERT INTO one VALUES (:value)"), {"value": value})
        return values

    held, holding = await _holding(database)
    works = [asyncio.ensure_future(database.transaction(SharedWork(keep, value))) for value in (1, 2, 1, 3)]
    await asyncio.sleep(0)
    held.let_go.set()
    outcomes = await asyncio.gather(holding, *works, return_exceptions=True)
    assert outcomes[1:3] == [1, 2]
    assert isinstance(outcomes[3], DatabaseUnavailableError)
    assert outcomes[4] == 3
    stored = await database.run(lambda c: sorted(c.execute(sa.text("SELECT value FROM one")).scalars()))
    assert stored == [1, 2, 3]


async def test_what_no_transaction_can_do_is_not_tried_once_for_each_that_wants_it(database: Database) -> None:
    tried: list[int] = []

    def fail(connection: sa.Connection, numbers: Sequence[int]) -> Sequence[int]:
        tried.append(len(numbers))
        raise OSError("the disk is gone")

    held, holding = await _holding(database)
    works = [asyncio.ensure_future(database.transaction(SharedWork(fail, number))) for number in range(8)]
    await asyncio.sleep(0)
    held.let_go.set()
    outcomes = await asyncio.gather(holding, *works, return_exceptions=True)
    assert all(isinstance(outcome, DatabaseUnavailableError) for outcome in outcomes[1:])
    assert tried == [8]


async def test_work_that_was_taken_back_is_not_done_with_the_others(database: Database) -> None:
    done: list[int] = []

    def note(connection: sa.Connection, numbers: Sequence[int]) -> Sequence[int]:
        done.extend(numbers)
        return numbers

    held, holding = await _holding(database)
    works = [asyncio.ensure_future(database.transaction(SharedWork(note, number))) for number in range(4)]
    await asyncio.sleep(0)
    works[1].cancel()
    await asyncio.wait({works[1]})
    held.let_go.set()
    outcomes = await asyncio.gather(holding, *works, return_exceptions=True)
    assert isinstance(outcomes[2], asyncio.CancelledError)
    assert done == [0, 2, 3]

"""The table of kept answers: nothing is served past its time, and the table does not grow without end."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.response_cache import ResponseCacheTable
from guidance_agent.core.schema import response_cache
from guidance_agent.errors import DatabaseUnavailableError


class MovableClock(SystemClock):
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def passes(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def moving() -> MovableClock:
    return MovableClock()


@pytest.fixture
def table(database: Database, moving: MovableClock) -> ResponseCacheTable:
    return ResponseCacheTable(database, moving, ttl=60.0, max_entries=300)


async def put(table: ResponseCacheTable, key: str, content: str = "{}", **named: str) -> None:
    labels = {"operation": "completion", "model": "anthropic/claude-haiku-5-5", **named}
    await table.put(key, content, simulated=False, **labels)


async def stored(database: Database) -> int:
    query = sa.select(sa.func.count()).select_from(response_cache)
    return await database.run(lambda connection: int(connection.execute(query).scalar_one()))


async def test_what_was_put_is_found_until_its_time_is_over(table: ResponseCacheTable, moving: MovableClock) -> None:
    await put(table, "a", "first")
    moving.passes(59)
    assert await table.get("a") == "first"
    assert await table.get("b") is None
    moving.passes(1)
    assert await table.get("a") is None


async def test_a_shorter_time_to_live_holds_for_what_was_kept_before(
    table: ResponseCacheTable, database: Database, moving: MovableClock
) -> None:
    await put(table, "a")
    moving.passes(30)
    shorter = ResponseCacheTable(database, moving, ttl=10.0, max_entries=300)
    assert await shorter.get("a") is None
    assert await table.get("a") is not None


async def test_what_is_put_again_is_replaced_and_lives_anew(table: ResponseCacheTable, moving: MovableClock) -> None:
    await put(table, "a", "first")
    moving.passes(50)
    await put(table, "a", "second")
    moving.passes(50)
    assert await table.get("a") == "second"


async def test_expired_answers_are_removed_a_hundred_at_a_time(
    table: ResponseCacheTable, database: Database, moving: MovableClock
) -> None:
    for number in range(150):
        await put(table, f"old {number}")
    moving.passes(61)
    await put(table, "new 1")
    assert await stored(database) == 51
    await put(table, "new 2")
    assert await stored(database) == 2
    assert await table.count() == 2


async def test_the_oldest_answers_go_when_there_are_too_many(database: Database, moving: MovableClock) -> None:
    small = ResponseCacheTable(database, moving, ttl=60.0, max_entries=3)
    for number in range(5):
        await put(small, f"{number}")
        moving.passes(1)
    assert [await small.get(f"{number}") is not None for number in range(5)] == [False, False, True, True, True]


async def test_clearing_deletes_all_or_only_one_operation_or_model(table: ResponseCacheTable) -> None:
    await put(table, "a")
    await put(table, "b", operation="guidance")
    await put(table, "c", model="openai/gpt-6-luna")
    assert await table.clear(operation="guidance") == 1
    assert await table.clear(model="openai/gpt-6-luna") == 1
    assert await table.get("a") is not None
    assert await table.clear() == 1
    assert await table.get("a") is None


async def test_a_database_that_cannot_be_used_is_its_typed_error(table: ResponseCacheTable, database: Database) -> None:
    await database.transaction(lambda connection: connection.execute(sa.text("DROP TABLE response_cache")))
    with pytest.raises(DatabaseUnavailableError):
        await table.get("a")
    with pytest.raises(DatabaseUnavailableError):
        await put(table, "a")

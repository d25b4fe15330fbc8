"""The database's threads and sessions, and what it says when it cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from blockbuster import BlockBuster

from guidance_agent.core.database import SCHEMA_REVISION, Database, database_url
from guidance_agent.errors import ConfigurationError, DatabaseUnavailableError
from guidance_agent.settings import Settings

on_sqlite = pytest.mark.only_on("sqlite")


async def test_more_reads_than_threads_are_answered(database: Database) -> None:
    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(database.run(functools.partial(_select, number=number)) for number in range(200))
        )
    assert answers == list(range(200))


def _select(connection: sa.Connection, number: int) -> int:
    return int(connection.execute(sa.text("SELECT :number"), {"number": number}).scalar_one())


async def test_a_read_that_takes_long_holds_up_no_others(database: Database) -> None:
    let_go = threading.Event()
    slow = asyncio.ensure_future(database.run(lambda connection: let_go.wait(10)))
    async with asyncio.timeout(5):
        for number in range(5):
            assert await database.run(functools.partial(_select, number=number)) == number
    assert not slow.done()
    let_go.set()
    assert await slow


async def test_reads_that_wait_when_the_database_closes_come_to_an_end(settings: Settings) -> None:
    async with Database(database_url(settings)) as closing:
        reads = [asyncio.ensure_future(closing.run(functools.partial(_select, number=number))) for number in range(9)]
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*reads, return_exceptions=True)
    for number, outcome in enumerate(ended):
        assert outcome == number or isinstance(outcome, DatabaseUnavailableError)


async def test_one_read_that_fails_does_not_fail_the_others_of_its_hop(database: Database) -> None:
    wrong = database.run(lambda connection: connection.execute(sa.text("SELECT * FROM nowhere")))
    results = await asyncio.gather(*(database.run(lambda c: _select(c, 1)), wrong), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], DatabaseUnavailableError)


async def test_transactions_that_come_at_once_take_turns(database: Database) -> None:
    await database.transaction(lambda connection: connection.execute(sa.text("CREATE TABLE counter (value INTEGER)")))
    await database.transaction(lambda connection: connection.execute(sa.text("INSERT INTO counter VALUES (0)")))

    def add(connection: sa.Connection) -> None:
        value = connection.execute(sa.text("SELECT value FROM counter")).scalar_one()
        connection.execute(sa.text("UPDATE counter SET value = :value"), {"value": value + 1})

    async with asyncio.timeout(30):
        await asyncio.gather(*(database.transaction(add) for _ in range(20)))
    value = await database.run(lambda connection: connection.execute(sa.text("SELECT value FROM counter")).scalar_one())
    assert value == 20


async def test_a_cancelled_transaction_gives_the_write_lock_back(database: Database, settings: Settings) -> None:
    async with Database(database_url(settings)) as other:
        for _ in range(20):
            task = asyncio.ensure_future(database.transaction(lambda connection: _select(connection, 1)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            async with asyncio.timeout(5):
                await other.transaction(lambda connection: _select(connection, 2))


async def test_neither_opening_nor_using_nor_closing_blocks_the_event_loop(empty: Settings) -> None:
    detector = BlockBuster()
    detector.activate()
    try:
        async with Database(database_url(empty)) as opened:
            assert await opened.run(functools.partial(_select, number=1)) == 1
            assert await opened.transaction(functools.partial(_select, number=2)) == 2
            assert await opened.submit(functools.partial(_select, number=3)) == 3
    finally:
        detector.deactivate()


@on_sqlite
async def test_the_database_is_for_its_user_alone(database: Database) -> None:
    mode = await asyncio.to_thread(lambda: Path(database.url.database or "").stat().st_mode)
    assert mode & 0o077 == 0


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def half(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half (value INTEGER)"))
        connection.execute(sa.text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(DatabaseUnavailableError, match="nowhere"):
        await database.transaction(half)
    names = await database.run(lambda connection: sa.inspect(connection).get_table_names())
    assert "half" not in names


@on_sqlite
async def test_committed_rows_survive_power_loss_settings(database: Database) -> None:
    def pragmas(connection: sa.Connection) -> tuple[str, int]:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return mode, connection.exec_driver_sql("PRAGMA synchronous").scalar_one()

    assert await database.run(pragmas) == ("wal", 2)


async def test_new_databases_that_are_opened_at_once_are_all_migrated(tmp_path: Path) -> None:
    databases = [Database(sa.URL.create("sqlite", database=str(tmp_path / f"{number}.db"))) for number in range(6)]
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(database) for database in databases))
        assert {await database.revision() for database in databases} == {SCHEMA_REVISION}


@on_sqlite
async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DatabaseUnavailableError, match="GUIDANCE_DATA_DIR"):
        async with Database(database_url(Settings.load(data_dir=blocked / "data"))):
            pytest.fail("a database below a file was opened")


@on_sqlite
async def test_a_file_that_is_no_database_is_named(settings: Settings) -> None:
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "guidance.db").write_bytes(b"this is no database, it is a text" * 100)
    with pytest.raises(DatabaseUnavailableError, match="not a database"):
        async with Database(database_url(settings)):
            pytest.fail("a text file was opened")


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db"])
def test_a_url_of_no_known_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        database_url(Settings.load(database_url=url))

"""Disks that fill, files that vanish, schemas from elsewhere: nothing unjournaled is shown, and others go on.

What only a server can do to its clients is in `test_broken_server.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, Completed, Event, Failed, Runtime, Settings
from guidance_agent.core.database import database_url
from guidance_agent.core.schema import turns
from guidance_agent.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    GuidanceAgentError,
    JournalError,
    LeaseLostError,
    MissingExtraError,
    SchemaVersionError,
)
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.test_process_death import LaterClock
from tests.integration.advisor.wiring import author_requests, author_says, closed_by_client, endless, wired_settings
from tests.integration.attacks.evidence import asks, calls_of, check_ended, eventually, replayed, shown, turn_of
from tests.integration.attacks.faults_of_storage import every_connection, full_disk

ENDS_WITHIN = 15.0
on_sqlite = pytest.mark.only_on("sqlite")


class Reader:
    """Reads a turn in a task of its own and keeps what it got."""

    def __init__(self, advisor: AdvisorAgent, customer_id: str) -> None:
        self.events: list[Event] = []
        self.error: GuidanceAgentError | None = None
        self.turn_id = ""
        self.customer_id = customer_id
        self.task = asyncio.create_task(self._read(advisor))

    async def _read(self, advisor: AdvisorAgent) -> None:
        try:
            async with advisor.consult(asks(self.customer_id), use_reasoning=False) as turn:
                self.turn_id = turn.turn_id
                async for event in turn:
                    self.events.append(event)
        except GuidanceAgentError as error:
            self.error = error

    @property
    def text(self) -> str:
        return shown(self.events)

    async def has_text(self, more_than: int = 0) -> None:
        async with asyncio.timeout(ENDS_WITHIN):
            while len(self.text) <= more_than:  # noqa: ASYNC110 - the reader's list is what is polled
                await asyncio.sleep(0.005)

    async def done(self) -> None:
        await asyncio.wait_for(self.task, ENDS_WITHIN)


@pytest.fixture
def pieces(simulator: ProviderSimulator, wire: str) -> None:
    author_says(simulator, wire, Script(chunks=1_000, first_ms=0, interval_ms=5))


@pytest.mark.usefixtures("pieces")
async def test_a_disk_that_fills_in_mid_stream_ends_its_turns_and_later_ones_go_on(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    readers = [Reader(wired, f"c-{number}") for number in range(5)]
    for reader in readers:
        await reader.has_text()
    with full_disk(wired_runtime.database):
        for reader in readers:
            await reader.done()
            assert isinstance(reader.error, JournalError)
    for request in author_requests(simulator, wire):
        await closed_by_client(request, within=0.5)
    for reader in readers:
        assert shown(await replayed(wired_runtime, reader.turn_id)).startswith(reader.text)
    simulator.faults.clear()
    author_says(simulator, wire, Script(text="There is space again."))
    late = Reader(wired, "late")
    await late.done()
    assert late.error is None
    assert late.text == "There is space again."
    async with Runtime(wired_runtime.settings, environ={}, clock=LaterClock()) as next_runtime:
        await next_runtime.close_dead_turns()
        for reader in readers:
            row = await next_runtime.records.turn(reader.turn_id)
            assert row is not None
            assert row["state"] in ("failed", "process_died")
            assert row["judgement"] == "pending"
            assert row["delivered_length"] >= len(reader.text)
    await calls_of(wired_runtime, 6)


@pytest.mark.usefixtures("pieces")
async def test_a_turn_that_one_failed_commit_ended_has_its_end_in_the_journal(
    wired: AdvisorAgent, wired_runtime: Runtime
) -> None:
    reader = Reader(wired, "c")
    await reader.has_text()
    failing = _FailOnce()
    with every_connection(wired_runtime.database, failing):
        await reader.done()
    assert failing.failed
    row = await check_ended(wired_runtime, reader.turn_id, reader.text)
    assert row["state"] == "failed"
    last = reader.events[-1]
    assert isinstance(last, Failed)
    assert last.error == "JournalError"
    assert (await replayed(wired_runtime, reader.turn_id))[-1] == last


class _FailOnce:
    def __init__(self) -> None:
        self.failed = False

    def __call__(self, _: Any) -> None:
        if not self.failed:
            self.failed = True
            raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("disk I/O error"),
        OSError(5, "Input/output error"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_error_of_the_storage_reaches_the_caller_and_the_journal_goes_on(
    wired: AdvisorAgent, wired_runtime: Runtime, error: Exception
) -> None:
    def fail(_: Any) -> None:
        raise error

    reader = Reader(wired, "c")
    await reader.has_text()
    with every_connection(wired_runtime.database, fail):
        await reader.done()
    assert isinstance(reader.error, JournalError)
    later = Reader(wired, "later")
    await later.has_text()
    later.task.cancel()
    await asyncio.wait({later.task})


async def test_after_its_lease_was_taken_a_turn_shows_nothing_more(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    endless(simulator, wire)
    victim, other = Reader(wired, "victim"), Reader(wired, "other")
    await victim.has_text()
    await other.has_text()
    await wired_runtime.database.transaction(
        lambda connection: connection.execute(
            sa.update(turns).where(turns.c.id == victim.turn_id).values(state="process_died", owner="thief")
        )
    )
    await victim.done()
    assert isinstance(victim.error, LeaseLostError)
    assert victim.text == shown(await replayed(wired_runtime, victim.turn_id))
    row = await wired_runtime.records.turn(victim.turn_id)
    assert row is not None
    assert (row["state"], row["owner"]) == ("process_died", "thief")

    async def one_is_closed() -> bool:
        return [request.client_closed_at is not None for request in author_requests(simulator, wire)].count(True) == 1

    await eventually(one_is_closed, within=0.5)
    await other.has_text(more_than=len(other.text))
    other.task.cancel()
    await asyncio.wait({other.task})
    assert (await turn_of(wired_runtime, "other"))["state"] == "closed_early"


async def test_a_step_of_the_clock_ends_no_live_turn(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> None:
    class SteppedClock(LaterClock):
        stepped = False

        def now(self) -> Any:
            return super().now() if self.stepped else super(LaterClock, self).now()

    clock = SteppedClock()
    endless(simulator, wire)
    settings = wired_settings(simulator, wire, tmp_path / "data")
    async with Runtime(settings, environ={}, clock=clock) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        reader = Reader(advisor, "c")
        await reader.has_text()
        clock.stepped = True
        assert await runtime.close_dead_turns() == ()
        await reader.has_text(more_than=len(reader.text))


@on_sqlite
@pytest.mark.usefixtures("pieces")
async def test_nothing_is_shown_that_was_written_to_a_deleted_file(wired: AdvisorAgent, wired_runtime: Runtime) -> None:
    path = Path(wired_runtime.database.url.database or "")
    reader = Reader(wired, "c")
    await reader.has_text()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    before = len(reader.text)
    await reader.done()
    # What was in flight when the file went may still come.
    assert len(reader.text) < before + 10_000
    assert isinstance(reader.error, JournalError)


async def test_a_newer_schema_is_refused_and_left_as_it_is(empty: Settings) -> None:
    url = database_url(empty)
    empty.data_dir.mkdir(parents=True)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('9999')"))
    with pytest.raises(SchemaVersionError, match="9999"):
        async with Runtime(empty, environ={}):
            pass
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == ["9999"]
    engine.dispose()


async def test_an_empty_database_is_refused_where_migrations_are_off(empty: Settings) -> None:
    with pytest.raises(SchemaVersionError, match="doctor --migrate"):
        async with Runtime(empty.model_copy(update={"auto_migrate": False}), environ={}):
            pass


async def broken(settings: Settings) -> GuidanceAgentError:
    with pytest.raises(GuidanceAgentError) as caught:
        async with Runtime(settings, environ={}):
            pass
    return caught.value


@on_sqlite
@pytest.mark.parametrize("url", ["nonsense", "", "mysql://u:secret@h/x", "://", "sqlite"])
async def test_a_url_that_is_none_is_a_configuration_error_and_tells_no_password(settings: Settings, url: str) -> None:
    error = await broken(settings.model_copy(update={"database_url": url}))
    assert isinstance(error, ConfigurationError)
    assert "secret" not in str(error)


@on_sqlite
async def test_a_missing_driver_names_the_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = await broken(settings.model_copy(update={"database_url": "postgresql://u:secret@127.0.0.1:1/x"}))
    assert isinstance(error, MissingExtraError)
    assert "secret" not in str(error)


@on_sqlite
async def test_a_file_that_is_no_database_or_a_folder_is_a_typed_error(settings: Settings, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("Dear Sir or Madam, this is no database. " * 200)
    for target in (text, tmp_path, Path("/dev/full")):
        error = await broken(settings.model_copy(update={"database_url": f"sqlite:///{target}"}))
        assert isinstance(error, DatabaseUnavailableError)
    assert text.read_text().startswith("Dear Sir")


@on_sqlite
async def test_a_data_folder_that_cannot_be_made_is_a_typed_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "data", Path("/proc/none"), Path("/dev/null/data")):
        assert "GUIDANCE_DATA_DIR" in str(await broken(settings.model_copy(update={"data_dir": folder})))


@on_sqlite
async def test_a_path_with_a_nul_is_a_typed_error(settings: Settings, tmp_path: Path) -> None:
    for changed in ({"data_dir": tmp_path / "a\0b"}, {"database_url": "sqlite:////tmp/a\0b"}):
        await broken(settings.model_copy(update=changed))


@on_sqlite
async def test_a_database_in_memory_serves_turns_at_once_or_is_refused(settings: Settings) -> None:
    in_memory = settings.model_copy(update={"database_url": "sqlite://"})
    try:
        async with Runtime(in_memory, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            readers = [Reader(advisor, f"c-{number}") for number in range(8)]
            for reader in readers:
                await reader.done()
            assert [reader.error for reader in readers] == [None] * 8
            assert all(isinstance(reader.events[-1], Completed) for reader in readers)
    except ConfigurationError as error:
        assert "memory" in str(error)

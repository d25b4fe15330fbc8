"""Servers that die, hang, drop connections or refuse: nothing unjournaled is shown, and later turns go on."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, Completed, Runtime, Settings
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.postgres_connection import LOCK_SECONDS, PatientConnection
from guidance_agent.core.schema import model_calls, turns
from guidance_agent.errors import ConfigurationError, DatabaseUnavailableError, GuidanceAgentError, JournalError
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.test_process_death import LaterClock
from tests.integration.advisor.wiring import author_requests, author_says, closed_by_client, wired_settings
from tests.integration.attacks.evidence import asks, calls_of, check_ended, eventually, replayed, rows, shown
from tests.integration.attacks.test_broken_storage import Reader
from tests.postgres_server import PostgresMissing, PostgresServer
from tests.storage import migrated_database

pytestmark = pytest.mark.only_on("postgresql")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that tests may hurt."""
    try:
        own = PostgresServer(deadlock_timeout="50ms")
    except PostgresMissing as error:
        pytest.skip(str(error))
    with own:
        yield own


@pytest.fixture(scope="module")
def template(server: PostgresServer) -> Iterator[str]:
    with migrated_database(server) as name:
        yield name


@pytest.fixture
def url(server: PostgresServer, template: str) -> Iterator[str]:
    server.thaw()
    server.start()
    with server.database(template=template) as found:
        yield found
        server.thaw()
        server.start()


@pytest.fixture
def wired_settings_here(simulator: ProviderSimulator, wire: str, tmp_path: Path, url: str) -> Settings:
    return wired_settings(simulator, wire, tmp_path / "data", database_url=url)


@pytest.fixture
def pieces(simulator: ProviderSimulator, wire: str) -> None:
    author_says(simulator, wire, Script(chunks=1_000, first_ms=0, interval_ms=5))


def name_of(url: str) -> str:
    return str(sa.make_url(url).database)


async def opening(settings: Settings) -> GuidanceAgentError:
    with pytest.raises(GuidanceAgentError) as caught:
        async with Runtime(settings, environ={}):
            pass
    return caught.value


@pytest.mark.usefixtures("pieces")
async def test_a_server_that_is_killed_in_mid_stream_ends_its_turns_and_later_ones_go_on(
    server: PostgresServer, wired_settings_here: Settings, simulator: ProviderSimulator, wire: str
) -> None:
    async with Runtime(wired_settings_here, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        readers = [Reader(advisor, f"c-{number}") for number in range(5)]
        for reader in readers:
            await reader.has_text()
        await asyncio.to_thread(server.crash)
        for reader in readers:
            await reader.done()
            assert isinstance(reader.error, JournalError)
        for request in author_requests(simulator, wire):
            await closed_by_client(request, within=0.5)
        with pytest.raises(DatabaseUnavailableError, match="Check that the server runs"):
            await runtime.close_dead_turns()
        await asyncio.to_thread(server.start)
        for reader in readers:
            assert shown(await replayed(runtime, reader.turn_id)).startswith(reader.text)
        simulator.faults.clear()
        author_says(simulator, wire, Script(text="The server is back."))
        late = Reader(advisor, "late")
        await late.done()
        assert late.error is None
        assert late.text == "The server is back."
        await check_ended(runtime, late.turn_id, late.text)
        await calls_of(runtime, 6)
    async with Runtime(wired_settings_here, environ={}, clock=LaterClock()) as next_runtime:
        assert set(await next_runtime.close_dead_turns()) == {reader.turn_id for reader in readers}
        for reader in readers:
            row = await next_runtime.records.turn(reader.turn_id)
            assert row is not None
            assert (row["state"], row["judgement"]) == ("process_died", "pending")
            assert row["delivered_length"] >= len(reader.text)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("reached_the_disk", [True, False])
async def test_a_connection_that_breaks_in_a_commit_shows_nothing_of_it_and_loses_nothing(
    wired_settings_here: Settings,
    simulator: ProviderSimulator,
    monkeypatch: pytest.MonkeyPatch,
    reached_the_disk: bool,
) -> None:
    commit, broken = PatientConnection.commit, threading.Event()

    def break_once(connection: PatientConnection) -> None:
        if broken.is_set():
            commit(connection)
            return
        broken.set()
        if reached_the_disk:
            commit(connection)
        connection.close()
        raise psycopg.OperationalError("the connection is lost")

    async with Runtime(wired_settings_here, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        reader = Reader(advisor, "c")
        await reader.has_text()
        monkeypatch.setattr(PatientConnection, "commit", break_once)
        await reader.done()
        assert broken.is_set()
        journaled = shown(await replayed(runtime, reader.turn_id))
        assert journaled.startswith(reader.text)
        assert (len(journaled) > len(reader.text)) is reached_the_disk
        simulator.faults.clear()
        assert await advisor.provide_guidance(asks("later"), use_reasoning=False)
    async with Runtime(wired_settings_here, environ={}, clock=LaterClock()) as next_runtime:
        await next_runtime.close_dead_turns()
        row = await next_runtime.records.turn(reader.turn_id)
    assert row is not None
    assert row["state"] == ("process_died" if reached_the_disk else "failed")
    assert row["judgement"] == "pending"
    assert row["delivered_length"] == (len(journaled) if reached_the_disk else len(reader.text))


async def test_connections_that_the_server_dropped_cost_no_turn(
    server: PostgresServer, wired_settings_here: Settings, simulator: ProviderSimulator, wire: str, url: str
) -> None:
    author_says(simulator, wire, Script(text="Still here."))
    async with Runtime(wired_settings_here, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        for number in range(5):
            reader = Reader(advisor, f"c-{number}")
            await reader.done()
            assert (reader.error, reader.text) == (None, "Still here.")
            await check_ended(runtime, reader.turn_id, reader.text)
            assert await asyncio.to_thread(server.drop_connections, name_of(url)) > 0
            await runtime.database.transaction(lambda connection: connection.execute(sa.select(1)))
            assert await asyncio.to_thread(server.drop_connections, name_of(url)) > 0
        await calls_of(runtime, 5)


async def test_connections_that_are_dropped_while_an_answer_pauses_do_not_end_it(
    server: PostgresServer, wired_settings_here: Settings, simulator: ProviderSimulator, wire: str, url: str
) -> None:
    author_says(simulator, wire, Script(chunks=6, first_ms=0, interval_ms=250))
    async with Runtime(wired_settings_here, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        reader = Reader(advisor, "c")
        await reader.has_text()

        async def is_idle() -> bool:
            query = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state <> 'idle' AND pid <> pg_backend_pid()"
            return not await asyncio.to_thread(server.execute, query.replace("%s", f"'{name_of(url)}'"))

        await eventually(is_idle)
        await asyncio.to_thread(server.drop_connections, name_of(url))
        await reader.done()
        assert reader.error is None
        assert isinstance(reader.events[-1], Completed)
        await check_ended(runtime, reader.turn_id, reader.text)


async def test_a_restart_of_the_server_between_turns_costs_none(
    server: PostgresServer, wired_settings_here: Settings
) -> None:
    async with Runtime(wired_settings_here, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        for number in range(2):
            assert await advisor.provide_guidance(asks(f"c-{number}"), use_reasoning=False)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
        assert len(await rows(runtime, turns)) == 2


@pytest.mark.usefixtures("pieces")
async def test_a_server_that_hangs_is_given_up_and_neither_sweep_nor_loop_hang_with_it(
    server: PostgresServer,
    simulator: ProviderSimulator,
    wire: str,
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PatientConnection, "silence_seconds", 1.0)
    settings = wired_settings(simulator, wire, tmp_path, database_url=f"{url}&connect_timeout=2")
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        reader = Reader(advisor, "c")
        await reader.has_text()
        server.freeze()
        longest = asyncio.create_task(longest_pause_of_the_loop())
        async with asyncio.timeout(10):
            with pytest.raises(DatabaseUnavailableError, match=r"said nothing for 1 s|timeout expired"):
                await runtime.close_dead_turns()
        await reader.done()
        longest.cancel()
        assert isinstance(reader.error, JournalError)
        server.thaw()
        assert shown(await replayed(runtime, reader.turn_id)).startswith(reader.text)
        simulator.faults.clear()
        assert await advisor.provide_guidance(asks("later"), use_reasoning=False)
    assert await longest_of(longest) < 0.5


_pauses: list[float] = []


async def longest_pause_of_the_loop() -> None:
    _pauses[:] = [0.0]
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        _pauses.append(time.monotonic() - began)


async def longest_of(task: asyncio.Task[None]) -> float:
    await asyncio.wait({task})
    return max(_pauses)


async def test_a_lock_that_a_stranger_keeps_ends_the_statement_and_not_the_program(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, url: str
) -> None:
    settings = wired_settings(simulator, wire, tmp_path, database_url=f"{url}&options=-c%20lock_timeout%3D200ms")
    async with Runtime(settings, environ={}) as runtime:
        stranger = await asyncio.to_thread(runtime.database.engine.connect)
        await asyncio.to_thread(stranger.exec_driver_sql, "LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(LOCK_SECONDS / 2):
            with pytest.raises(DatabaseUnavailableError, match=r"lock timeout.* pg_stat_activity"):
                await runtime.memory.touch(["any"])
        await asyncio.to_thread(stranger.close)
        await runtime.memory.touch(["any"])


async def test_two_transactions_in_each_others_way_both_succeed(url: str, tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path, database_url=url)
    pairs = sa.table("pairs", sa.column("id", sa.Integer), sa.column("n", sa.Integer))
    async with Database(database_url(settings)) as one, Database(database_url(settings)) as other:
        make = "CREATE TABLE pairs AS SELECT 1 AS id, 0 AS n UNION SELECT 2, 0"
        await one.transaction(lambda connection: connection.exec_driver_sql(make))
        both_hold_one, calls = threading.Barrier(2), []

        def add(connection: sa.Connection, first: int, second: int) -> None:
            calls.append(first)
            connection.execute(sa.update(pairs).where(pairs.c.id == first).values(n=pairs.c.n + 1))
            if len(calls) <= 2:
                both_hold_one.wait(5)
            connection.execute(sa.update(pairs).where(pairs.c.id == second).values(n=pairs.c.n + 1))

        await asyncio.gather(
            one.transaction(functools.partial(add, first=1, second=2)),
            other.transaction(functools.partial(add, first=2, second=1)),
        )
        assert len(calls) == 3
        assert await one.run(lambda connection: connection.execute(sa.select(pairs.c.n)).scalars().all()) == [2, 2]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("postgresql://u:secret@127.0.0.1:1/x", "refused"),
        ("postgres://u:secret@/x?host=/nowhere", "nowhere"),
        ("postgresql://u@/x?host=/nowhere&password=secret", "nowhere"),
        ("postgresql://u:secret@no-such-host.invalid/x", "no-such-host.invalid"),
    ],
)
async def test_a_server_that_is_not_there_is_a_typed_error_and_tells_no_password(
    settings: Settings, address: str, says: str
) -> None:
    error = await opening(settings.model_copy(update={"database_url": address}))
    assert isinstance(error, DatabaseUnavailableError)
    assert says in str(error)
    assert "GUIDANCE_DATABASE_URL" in str(error)
    assert "secret" not in str(error)


async def test_an_unknown_database_or_role_is_a_typed_error(settings: Settings, server: PostgresServer) -> None:
    for address in (server.url("no_such_database"), server.url(user="no_such_role")):
        error = await opening(settings.model_copy(update={"database_url": address}))
        assert isinstance(error, DatabaseUnavailableError)
        assert "does not exist" in str(error)


async def test_an_option_that_there_is_not_is_a_configuration_error(settings: Settings, url: str) -> None:
    error = await opening(settings.model_copy(update={"database_url": f"{url}&ssl=true&sslpassword=secret"}))
    assert isinstance(error, ConfigurationError)
    assert "ssl" in str(error)
    assert "secret" not in str(error)


async def test_a_database_that_cannot_hold_every_text_is_refused(settings: Settings, server: PostgresServer) -> None:
    server.execute("CREATE DATABASE old_letters TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    error = await opening(settings.model_copy(update={"database_url": server.url("old_letters")}))
    server.drop_database("old_letters")
    assert isinstance(error, ConfigurationError)
    assert "LATIN1" in str(error)


async def test_a_read_only_server_is_refused_at_the_start(settings: Settings, server: PostgresServer, url: str) -> None:
    server.execute(f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = on")
    error = await opening(settings.model_copy(update={"database_url": url}))
    assert isinstance(error, DatabaseUnavailableError)
    assert "read-only" in str(error)


async def test_a_server_that_is_full_is_a_typed_error_with_its_reason(settings: Settings) -> None:
    with PostgresServer(max_connections=6, superuser_reserved_connections=0, reserved_connections=0) as small:
        small.execute("CREATE ROLE customer LOGIN")
        taken = [sa.create_engine(database_url(settings.model_copy(update={"database_url": small.url()}))).connect()]
        try:
            for _ in range(5):
                taken.append(taken[0].engine.connect())
            error = await opening(settings.model_copy(update={"database_url": small.url()}))
        finally:
            engine = taken[0].engine
            for connection in taken:
                connection.close()
            engine.dispose()
    assert isinstance(error, DatabaseUnavailableError)
    assert "too many clients" in str(error)


async def test_no_row_is_lost_to_the_length_of_a_name(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, url: str
) -> None:
    name = "m" * 400
    settings = wired_settings(simulator, wire, tmp_path, database_url=url, model=f"{wire}/{name}")
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        async with advisor.consult(asks("c" * 200), use_reasoning=False) as turn:
            _ = [event async for event in turn]
        row = await runtime.records.turn(turn.turn_id)
        assert row is not None
        assert row["model"] == f"{wire}/{name}"
        assert (await calls_of(runtime, 1))[0]["requested_model"] == f"{wire}/{name}"
        assert len(await rows(runtime, model_calls)) == 1

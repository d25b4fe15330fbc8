"""Work by key: started once, found again after the death of its process, due whatever its runner forgets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.durable import DurableRunner, InlineRunner, open_runner, system_url
from guidance_agent.core.slots import SLOT_LEASE_SECONDS, WorkerSlot
from guidance_agent.settings import Settings
from tests.postgres_server import OutsideServer

ROOT = Path(__file__).parents[3]
WITHIN = 15.0


class LaterClock(SystemClock):
    """The clock of a process that looks after the leases of the dead have run out."""

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=SLOT_LEASE_SECONDS + 1)


class Work:
    """What a test has done by a runner: keys begun and ended, held back while `gate` is clear."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def perform(self, key: str) -> None:
        self.begun.append(key)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.ended.append(key)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not holds():  # noqa: ASYNC110 - what is polled tells nobody that it changed
            await asyncio.sleep(0.01)


def slot_of(database: Database, clock: SystemClock | None = None, *, holder: str = "test") -> WorkerSlot:
    return WorkerSlot(database, clock or SystemClock(), host="host", role="test", holder=holder)


def opened(
    database: Database, work: Work, *, clock: SystemClock | None = None
) -> AbstractAsyncContextManager[DurableRunner]:
    @contextlib.asynccontextmanager
    async def manage() -> AsyncIterator[DurableRunner]:
        runner = await open_runner(database.url, slot_of(database, clock), work.perform, ended=lambda: None)
        assert not isinstance(runner, InlineRunner)
        try:
            yield runner
        finally:
            await runner.aclose()

    return manage()


def remembered_at(database: Database) -> Path:
    return Path(str(system_url(database.url).database))


@pytest.fixture
def work() -> Work:
    return Work()


async def test_work_is_begun_once_however_often_it_is_started(database: Database, work: Work) -> None:
    work.gate.clear()
    async with opened(database, work) as runner:
        assert await runner.start("k") == "here"
        await until(lambda: work.begun == ["k"])
        assert await runner.start("k") == "here"
        assert runner.running == {"k"}
        work.gate.set()
        await until(lambda: not runner.running)
    assert (work.begun, work.ended) == (["k"], ["k"])


async def test_work_that_is_still_due_after_its_end_is_done_again(database: Database, work: Work) -> None:
    async with opened(database, work) as runner:
        for times in (1, 2, 3):
            async with asyncio.timeout(WITHIN):
                # The end of the one before is written only after the work has ended: until then it is left alone.
                while len(work.ended) < times:
                    await runner.start("k")
                    await asyncio.sleep(0.01)
            assert len(work.ended) == times


async def test_work_that_fails_is_done_again_when_it_is_started_again(
    database: Database, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    work.failure = ValueError("the customer's own words")
    async with opened(database, work) as runner:
        await runner.start("k")
        await until(lambda: "durable work failed: key=k error=ValueError" in caplog.text)
        await until(lambda: not runner.running)
        work.failure = None
        async with asyncio.timeout(WITHIN):
            while not work.ended:
                await runner.start("k")
                await asyncio.sleep(0.01)


async def test_what_is_stopped_stays_due_and_is_taken_up_by_the_next_process_in_its_slot(
    database: Database, work: Work
) -> None:
    work.gate.clear()
    async with opened(database, work) as runner:
        await runner.start("k")
        await until(lambda: work.begun == ["k"])
    assert work.ended == []
    work.gate.set()
    async with opened(database, work):
        await until(lambda: work.ended == ["k"])


@contextlib.asynccontextmanager
async def killed_while_working(database: Database, key: str) -> AsyncIterator[None]:
    """Have a process of another life begin the work of `key`, and kill it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.core.durable_child",
        database.url.render_as_string(hide_password=False),
        key,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    async with asyncio.timeout(WITHIN):
        assert await child.stdout.readline() == f"{key}\n".encode()
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    yield


async def test_the_work_of_a_killed_process_is_taken_up_in_its_slot(database: Database, work: Work) -> None:
    async with killed_while_working(database, "k"), opened(database, work, clock=LaterClock()):
        await until(lambda: work.ended == ["k"])


async def test_the_work_of_a_killed_process_is_left_to_it_until_its_slot_is_free(
    database: Database, work: Work
) -> None:
    async with killed_while_working(database, "k"), opened(database, work) as runner:
        assert await runner.start("k") == "elsewhere"
        assert work.begun == []
        runner._slot._clock = LaterClock()  # type: ignore[attr-defined]
        assert await runner.start("k") == "elsewhere"
        await until(lambda: work.ended == ["k"])


async def test_a_process_has_one_runner_that_remembers_and_others_that_do_not(database: Database, work: Work) -> None:
    async with opened(database, work) as first:
        second = await open_runner(database.url, slot_of(database), work.perform, ended=lambda: None)
        assert isinstance(second, InlineRunner)
        await second.start("a")
        await first.start("b")
        await until(lambda: sorted(work.ended) == ["a", "b"])
        await second.aclose()
    async with opened(database, work):
        """The first has given its place back."""


@pytest.mark.only_on("sqlite")
async def test_work_is_done_although_what_the_runner_remembers_is_lost(database: Database, work: Work) -> None:
    path = remembered_at(database)
    async with opened(database, work) as runner:
        await runner.start("a")
        await until(lambda: work.ended == ["a"])
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE workflow_status")
        await runner.start("b")
        await until(lambda: work.ended == ["a", "b"])
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    async with opened(database, work) as runner:
        await runner.start("c")
        await until(lambda: work.ended == ["a", "b", "c"])


@pytest.mark.only_on("sqlite")
async def test_without_a_place_to_remember_work_is_done_all_the_same(
    database: Database, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    remembered_at(database).mkdir()
    runner = await open_runner(database.url, slot_of(database), work.perform, ended=lambda: None)
    assert isinstance(runner, InlineRunner)
    assert "not remembered by DBOS: its database cannot be used" in caplog.text
    await runner.start("k")
    await until(lambda: work.ended == ["k"])
    await runner.aclose()


@pytest.mark.only_on("postgresql")
async def test_a_role_that_may_make_no_schema_works_all_the_same(
    settings: Settings, database: Database, postgres: OutsideServer, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    name = str(database.url.database)
    role = f"service_{name}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'service'")
    postgres.execute(f"GRANT USAGE ON SCHEMA public TO {role}", database=name)
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}", database=name)
    try:
        async with Database(database.url.set(username=role, password="service")) as plain:
            runner = await open_runner(plain.url, slot_of(plain), work.perform, ended=lambda: None)
            assert isinstance(runner, InlineRunner)
            await runner.start("k")
            await until(lambda: work.ended == ["k"])
            await runner.aclose()
    finally:
        await database.close()
        postgres.execute(f"DROP OWNED BY {role}", database=name)
        postgres.execute(f"DROP ROLE {role}")
    assert "permission denied" in caplog.text


@pytest.mark.only_on("sqlite")
async def test_what_is_remembered_is_its_users_alone_and_holds_keys_only(database: Database, work: Work) -> None:
    work.failure = ValueError("the customer's own words")
    async with opened(database, work) as runner:
        await runner.start("k")
        await until(lambda: bool(work.begun) and not runner.running)
    path = remembered_at(database)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"customer" not in path.read_bytes()


async def test_the_loop_of_the_host_is_left_as_it_was(database: Database, work: Work) -> None:
    loop = asyncio.get_running_loop()
    before = loop._default_executor  # type: ignore[attr-defined]
    async with opened(database, work) as runner:
        await runner.start("k")
        await until(lambda: work.ended == ["k"])
    assert loop._default_executor in (before, None) or before is None  # type: ignore[attr-defined]
    assert await asyncio.to_thread(lambda: 1) == 1


async def test_what_has_ended_is_forgotten(database: Database, work: Work) -> None:
    from dbos import DBOS

    async with opened(database, work) as runner:
        await runner.start("k")
        await until(lambda: work.ended == ["k"])
        await asyncio.sleep(0)
        async with asyncio.timeout(WITHIN):
            while await asyncio.to_thread(lambda: DBOS.list_workflows(workflow_id_prefix="k")):
                await runner.forget_ended(datetime.now(UTC) + timedelta(seconds=1))


async def test_two_processes_that_start_take_different_slots(database: Database) -> None:
    slots = [slot_of(database, holder=str(number)) for number in range(4)]
    names = await asyncio.gather(*(slot.take() for slot in slots))
    assert sorted(names) == [f"host-test-{number}" for number in (1, 2, 3, 4)]


async def test_a_slot_is_free_once_it_is_released_or_its_lease_has_run_out(database: Database) -> None:
    first, second = slot_of(database, holder="1"), slot_of(database, holder="2")
    assert await first.take() == "host-test-1"
    assert await second.take() == "host-test-2"
    await first.release()
    assert await slot_of(database, holder="3").take() == "host-test-1"
    assert await second.is_held("host-test-2")
    later = slot_of(database, LaterClock(), holder="4")
    assert not await later.is_held("host-test-2")
    assert await later.take() == "host-test-1"
    assert await slot_of(database, LaterClock(), holder="5").take() == "host-test-2"
    assert not await second.renew()

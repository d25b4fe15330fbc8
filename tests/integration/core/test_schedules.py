"""Work that begins at times of its own: by processes that do such work, once for each time, and not without them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from guidance_agent.batch_runtime import performing_jobs, schedules_of
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.durable import DurableRunner, InlineRunner, Schedule, open_runner, system_url
from guidance_agent.core.jobs.lock import JobLock
from guidance_agent.core.jobs.runs import JobRuns
from guidance_agent.core.slots import WorkerSlot
from guidance_agent.runtime import Runtime
from guidance_agent.settings import Settings

pytestmark = pytest.mark.only_on("sqlite")

EACH_SECOND = Schedule("job:nightly", "* * * * * *", "Europe/London")
WITHIN = 15.0


class Keys:
    """What was begun, and how to wait for it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._more = asyncio.Event()

    async def perform(self, key: str) -> None:
        self.begun.append(key)
        self._more.set()

    async def several(self, count: int) -> list[str]:
        async with asyncio.timeout(WITHIN):
            while len(self.begun) < count:
                self._more.clear()
                await self._more.wait()
        return self.begun


@contextlib.asynccontextmanager
async def opened(database: Database, keys: Keys, schedules: Sequence[Schedule] | None) -> AsyncIterator[DurableRunner]:
    slot = WorkerSlot(database, SystemClock(), host="host", role="test", holder="test")
    runner = await open_runner(database.url, slot, keys.perform, ended=lambda: None, schedules=schedules)
    assert not isinstance(runner, InlineRunner)
    try:
        yield runner
    finally:
        await runner.aclose()


def remembered(database: Database, query: str) -> list[tuple[object, ...]]:
    path = Path(str(system_url(database.url).database))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def test_each_time_is_a_key_of_its_own_and_only_processes_for_it_begin_it(database: Database) -> None:
    keys = Keys()
    async with opened(database, keys, [EACH_SECOND]):
        begun = list(await keys.several(2))
    assert len(set(begun)) == len(begun)
    times = [datetime.fromisoformat(key.removeprefix("job:nightly:")) for key in begun]
    assert all(at.tzinfo is not None and at.microsecond == 0 for at in times)

    waiting = "select workflow_uuid from workflow_status where status = 'ENQUEUED'"
    other = Keys()
    async with opened(database, other, None):
        async with asyncio.timeout(WITHIN):
            while not remembered(database, waiting):  # noqa: ASYNC110 - DBOS writes it, and tells nobody
                await asyncio.sleep(0.05)
    assert other.begun == []

    later = Keys()
    async with opened(database, later, [EACH_SECOND]):
        assert set(await later.several(1)).isdisjoint(begun)


async def test_schedules_are_those_of_the_last_process_that_has_some(database: Database) -> None:
    keys = Keys()
    noon = [Schedule("job:nightly", "0 2 * * *", "Europe/London"), Schedule("job:afternoon", "0 14 * * *", "UTC")]
    known = "select schedule_name, schedule, cron_timezone from workflow_schedules order by 1"
    async with opened(database, keys, noon):
        assert remembered(database, known) == sorted(map(tuple, noon))
    async with opened(database, keys, None):
        assert len(remembered(database, known)) == 2
    async with opened(database, keys, ()):
        assert remembered(database, known) == []
    assert keys.begun == []


def test_the_settings_say_when_and_nothing_is_scheduled_by_itself() -> None:
    assert schedules_of(Settings.load()) == ()
    assert schedules_of(Settings.load(jobs={"schedule": True, "nightly": "30 1 * * 1-5"})) == [
        Schedule("job:nightly", "30 1 * * 1-5", "Europe/London"),
        Schedule("job:afternoon", "0 14 * * *", "Europe/London"),
    ]


async def test_a_time_that_a_later_run_made_good_begins_nothing_and_one_that_finds_the_lock_taken_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    others: list[str] = []

    async def other(key: str) -> None:
        others.append(key)

    monkeypatch.setattr("guidance_agent.batch_runtime._LOCKED_SECONDS", 0.05)
    async with Runtime(settings) as runtime:
        perform = performing_jobs(runtime, other)
        await perform("judge:turn_1:hash:1")
        assert others == ["judge:turn_1:hash:1"]
        runs = JobRuns(runtime.database, runtime.clock)

        lock = JobLock(runtime.database, runtime.clock, holder="another")
        async with lock.held("run_other"):
            waiting = asyncio.ensure_future(perform(f"job:nightly:{runtime.clock.now().isoformat()}"))
            await asyncio.sleep(0.15)
            assert await runs.last(limit=5, running=None) == []
        await asyncio.wait_for(waiting, WITHIN)
        assert [(run.job, run.state) for run in await runs.last(limit=5, running=None)] == [("nightly", "done")]

        await perform("job:nightly:2026-01-01T02:00:00+00:00")
        assert len(await runs.last(limit=5, running=None)) == 1
        await perform("job:noon:2026-01-01T12:00:00+00:00")
        assert len(await runs.last(limit=5, running=None)) == 1
        assert [record.levelname for record in caplog.records if "there is no 'noon' job" in record.message] == [
            "ERROR"
        ]
        await perform("job:afternoon:2026-01-01T14:00:00+00:00")
        assert len(await runs.last(limit=5, running=None)) == 2


async def test_a_worker_has_the_schedules_of_its_settings_and_one_that_leaves_at_once_none(settings: Settings) -> None:
    wanted = settings.model_copy(
        update={"background": True, "jobs": settings.jobs.model_copy(update={"schedule": True})}
    )
    known = "select schedule_name from workflow_schedules order by 1"
    async with Runtime(wanted, role="worker", schedules=True) as runtime:
        assert runtime.judging is not None
        await runtime.judging.begin()
        assert remembered(runtime.database, known) == [("job:afternoon",), ("job:nightly",)]
        database = runtime.database
    async with Runtime(wanted.model_copy(update={"jobs": settings.jobs}), role="worker") as leaves:
        assert leaves.judging is not None
        await leaves.judging.begin()
    assert len(remembered(database, known)) == 2

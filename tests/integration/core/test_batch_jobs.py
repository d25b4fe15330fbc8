"""The nightly and the afternoon job: everything is moved on, once, however often and by how many runs at once."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest

from guidance_agent.core.batch_jobs import BatchJobs, JobProgress, JobReport, WorkReport
from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.jobs.lock import JobLock
from guidance_agent.errors import JobLockedError
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.core import batch_desk
from tests.integration.core.batch_desk import FAST, gateway_before
from tests.integration.core.batch_fixtures import seen
from tests.integration.core.job_desk import TwoStages, make_subjects, told

NAMES = [f"s-{number}" for number in range(6)]
ALL_TOLD = [("two", name, "told", 2) for name in NAMES]
MakeJobs = Callable[..., BatchJobs]


class MovedClock(SystemClock):
    """A clock that was put forward, or back."""

    def __init__(self, by: timedelta) -> None:
        self.by = by

    def now(self) -> datetime:
        return super().now() + self.by


@pytest.fixture
async def provider() -> AsyncIterator[ProviderSimulator]:
    """A provider whose batches take a moment."""
    async with ProviderSimulator(SimulatorSettings.instant(seed=7).but(batch_duration=0.15)) as running:
        yield running


@pytest.fixture
async def jobs_on(database: Database, provider: ProviderSimulator) -> AsyncIterator[MakeJobs]:
    """Make the jobs of one process, with works of the test's choice."""
    await make_subjects(database)
    async with AsyncExitStack() as stack:

        def make(*works: TwoStages, base_url: str | None = None, clock: Any = None, **more: Any) -> BatchJobs:
            gateway = gateway_before(base_url or provider.base_url)
            kinds = [kind for work in works for kind in work.kinds]
            processor = BatchProcessor(database, gateway, kinds=kinds, options=FAST)
            stack.push_async_callback(gateway.aclose)
            stack.push_async_callback(processor.aclose)
            return BatchJobs(database, clock or SystemClock(), processor, works, poll=FAST.poll, **more)

        yield make


@pytest.fixture
def work(database: Database) -> TwoStages:
    return TwoStages(database, subjects=NAMES)


def of(report: JobReport, name: str = "two") -> WorkReport:
    (found,) = (each for each in report.works if each.name == name)
    return found


async def run_until_done(jobs: BatchJobs, first: JobReport) -> list[JobReport]:
    """Run the afternoon job again and again, until nothing waits any more."""
    reports = [first]
    async with asyncio.timeout(20):
        while any(report.waiting for report in reports[-1].works):
            await asyncio.sleep(0.05)
            reports.append(await jobs.afternoon())
    return reports


@pytest.mark.only_on("sqlite")
async def test_without_anything_to_do_nothing_is_submitted(
    jobs_on: MakeJobs, database: Database, provider: ProviderSimulator
) -> None:
    jobs = jobs_on(TwoStages(database))
    for report in (await jobs.nightly(), await jobs.afternoon(), await jobs.nightly(wait=True)):
        assert (report.outcome, report.idle, of(report).submitted) == ("done", True, 0)
    assert list(provider.requests) == []


@pytest.mark.parametrize("wire", ["anthropic", "openai"])
async def test_every_subject_goes_through_its_stages_once_at_half_the_price(
    jobs_on: MakeJobs, database: Database, provider: ProviderSimulator, wire: str
) -> None:
    jobs = jobs_on(TwoStages(database, wire=wire, subjects=NAMES))
    first = await jobs.nightly()
    assert (of(first).opened, first.outcome) == (6, "done")
    reports = await run_until_done(jobs, first)
    assert await told(database) == ALL_TOLD
    assert [sum(of(report).applied for report in reports), of(reports[-1]).ended] == [12, {"told": 6}]
    money = [report.money for report in reports]
    cost, interactive = sum(each.cost_usd or 0 for each in money), sum(each.interactive_usd or 0 for each in money)
    assert interactive > 0
    assert (interactive - cost) / interactive >= 0.49
    assert any(each.simulated for each in money)
    counted = await seen(provider)
    assert (counted["requests"], counted["repeated"]) == (12, {})


@pytest.mark.only_on("sqlite")
async def test_only_the_nightly_job_opens_new_work(jobs_on: MakeJobs, work: TwoStages) -> None:
    jobs = jobs_on(work, limit=2)
    assert of(await jobs.afternoon()).opened == 0
    assert of(await jobs.nightly()).opened == 2
    assert of(await jobs.nightly()).opened == 2


async def test_a_run_that_waits_goes_through_to_the_end(jobs_on: MakeJobs, work: TwoStages, database: Database) -> None:
    told_of: list[JobProgress] = []
    jobs = jobs_on(work, progress=told_of.append)
    report = await jobs.nightly(wait=True)
    assert (of(report).opened, of(report).submitted, of(report).applied, of(report).ended) == (6, 12, 12, {"told": 6})
    assert await told(database) == ALL_TOLD
    assert (told_of[-1].answered, told_of[-1].items) == (12, 12)
    (run,) = (await jobs.status()).runs
    assert (run.state, run.report) == ("done", report.as_json())


async def test_five_runs_and_runs_at_once_leave_what_one_leaves(
    jobs_on: MakeJobs, database: Database, provider: ProviderSimulator
) -> None:
    several = [jobs_on(TwoStages(database, subjects=NAMES), lock_seconds=5.0) for _ in range(3)]
    await several[0].nightly()
    locked = 0
    async with asyncio.timeout(20):
        for _ in range(40):
            ended = await asyncio.gather(*(jobs.afternoon() for jobs in several), return_exceptions=True)
            failures = [each for each in ended if isinstance(each, BaseException)]
            assert all(isinstance(each, JobLockedError) for each in failures)
            locked += len(failures)
            if await told(database) == ALL_TOLD:
                break
            await asyncio.sleep(0.05)
    assert locked
    for _ in range(5):
        assert of(await several[1].afternoon()).submitted == 0
    assert await told(database) == ALL_TOLD
    assert (await seen(provider))["repeated"] == {}


async def test_runs_that_know_of_no_lock_change_nothing_twice(
    jobs_on: MakeJobs, database: Database, provider: ProviderSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: JobLock, run_id: str) -> None:
        return None

    for method in ("take", "release"):
        monkeypatch.setattr(JobLock, method, nothing)
    several = [jobs_on(TwoStages(database, subjects=NAMES)) for _ in range(3)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(jobs.nightly(wait=True) for jobs in several))
    assert await told(database) == ALL_TOLD
    counted = await seen(provider)
    assert (counted["requests"], counted["repeated"]) == (12, {})


@pytest.mark.only_on("sqlite")
async def test_a_work_that_fails_keeps_no_other_from_going_on(jobs_on: MakeJobs, database: Database) -> None:
    faulty, sound = TwoStages(database, name="bad", subjects=["x"]), TwoStages(database, subjects=NAMES)
    faulty.fault = ValueError("a row that nobody expected")
    jobs = jobs_on(faulty, sound)
    report = await jobs.nightly(wait=True)
    assert of(report, "bad").error == "ValueError: a row that nobody expected"
    assert (report.outcome, of(report).ended) == ("needs_person", {"told": 6})
    faulty.fault = None
    assert of(await jobs.afternoon(wait=True), "bad").ended == {"told": 1}


@pytest.mark.only_on("sqlite")
async def test_what_needs_a_person_is_the_outcome(jobs_on: MakeJobs, work: TwoStages) -> None:
    work.person.append("two customers have the same name")
    report = await jobs_on(work).nightly()
    assert (report.outcome, list(of(report).needs_person)) == ("needs_person", ["two customers have the same name"])


@pytest.mark.only_on("sqlite")
async def test_a_provider_that_is_down_means_later_and_loses_nothing(
    jobs_on: MakeJobs, work: TwoStages, database: Database, provider: ProviderSimulator
) -> None:
    report = await jobs_on(work, base_url="http://127.0.0.1:9").nightly()
    assert (report.outcome, of(report).submitted, of(report).waiting) == ("try_later", 0, {"first": 6})
    assert "ProviderUnreachableError" in of(report).delayed[0]
    assert of(await jobs_on(work).afternoon(wait=True)).ended == {"told": 6}
    assert (await seen(provider))["repeated"] == {}


async def test_a_second_run_is_told_who_has_the_lock(jobs_on: MakeJobs, work: TwoStages, database: Database) -> None:
    lock = JobLock(database, SystemClock(), holder="larder, process 4711")
    jobs = jobs_on(work)
    async with lock.held("run_other"):
        with pytest.raises(JobLockedError, match=r"since 20\d\d-.* UTC: larder, process 4711"):
            await jobs.nightly()
        status = await jobs.status()
        assert status.running is not None
        assert (status.running.run_id, status.runs) == ("run_other", [])
    assert (await jobs.nightly()).outcome == "done"


@pytest.mark.parametrize("by", [timedelta(seconds=61), timedelta(hours=-3)])
async def test_the_lock_of_a_dead_run_is_free_when_its_lease_is_over_or_the_clock_was_put_back(
    jobs_on: MakeJobs, work: TwoStages, database: Database, by: timedelta
) -> None:
    await JobLock(database, SystemClock(), holder="dead").take("run_dead")
    with pytest.raises(JobLockedError):
        await jobs_on(work).nightly()
    assert (await jobs_on(work, clock=MovedClock(by)).nightly()).outcome == "done"


async def test_a_run_that_is_cancelled_at_any_moment_and_again_leaves_no_lock(database: Database) -> None:
    lock = JobLock(database, SystemClock(), holder="one")

    async def run(number: int, inside: asyncio.Event) -> None:
        async with lock.held(f"run_{number}"):
            inside.set()
            await asyncio.Event().wait()

    for turns in range(8):
        for first in (True, False):
            inside = asyncio.Event()
            task = asyncio.create_task(run(turns, inside))
            if first:
                await inside.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await lock.holder() is None


async def test_the_lock_is_renewed_while_a_run_works(database: Database) -> None:
    lock, other = (JobLock(database, SystemClock(), holder=name, lease=0.4) for name in ("one", "two"))
    async with lock.held("run_1"):
        for _ in range(8):
            await asyncio.sleep(0.1)
            with pytest.raises(JobLockedError):
                await other.take("run_2")
    await other.take("run_2")


async def test_a_run_that_is_interrupted_gives_the_lock_back_and_can_be_run_again(
    jobs_on: MakeJobs, work: TwoStages, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="slow_batch"))
    jobs = jobs_on(work)
    waits = asyncio.Event()

    def progress(told_of: JobProgress) -> None:
        if told_of.doing.startswith("waiting"):
            waits.set()

    run = asyncio.create_task(jobs_on(work, progress=progress).nightly(wait=True))
    await asyncio.wait_for(waits.wait(), 10)
    async with asyncio.timeout(10):
        # While it waits the lock is free for others.
        while True:
            with contextlib.suppress(JobLockedError):
                assert of(await jobs.afternoon()).waiting == {"first": 6}
                break
            await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    status = await jobs.status()
    assert (status.running, [each.state for each in status.runs]) == (None, ["done", "interrupted"])
    again = of(await jobs.nightly())
    assert (again.opened, again.submitted, again.waiting) == (0, 0, {"first": 6})


@pytest.mark.only_on("sqlite")
async def test_the_record_tells_runs_that_died(jobs_on: MakeJobs, work: TwoStages, database: Database) -> None:
    jobs = jobs_on(work)
    later = jobs_on(work, clock=MovedClock(timedelta(hours=1)))
    await JobLock(database, SystemClock(), holder="dead").take("run_dead")
    await jobs._runs.begin("run_dead", "nightly", "dead")
    assert [run.state for run in (await jobs.status()).runs] == ["running"]
    assert [run.state for run in (await later.status()).runs] == ["died"]


@pytest.mark.only_on("sqlite")
async def test_jobs_that_are_cancelled_end_and_their_subjects_are_told(
    jobs_on: MakeJobs, work: TwoStages, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="slow_batch"))
    jobs = jobs_on(work)
    await jobs.nightly()
    assert len(await jobs.cancel()) == 1
    report = await jobs.afternoon(wait=True)
    assert sum(of(report).ended.values()) == 6
    assert await jobs.cancel() == []


@pytest.mark.only_on("sqlite")
async def test_a_batch_that_is_gone_at_the_provider_ends_and_the_job_can_be_run_on(
    jobs_on: MakeJobs, work: TwoStages, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="slow_batch"))
    jobs = jobs_on(work)
    await jobs.nightly()
    provider.faults.add(Fault(kind="gone", operation="openai.batches"))
    report = await jobs.afternoon(wait=True)
    assert (of(report).failed, of(report).ended) == (6, {"lost": 6})
    assert report.outcome == "done"


@pytest.mark.only_on("sqlite")
async def test_a_disk_that_is_full_needs_a_person_and_the_next_run_goes_on(
    jobs_on: MakeJobs, work: TwoStages, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    jobs = jobs_on(work)
    with monkeypatch.context() as patched:
        patched.setattr("guidance_agent.core.batches.submitting.tempfile.TemporaryFile", Full)
        report = await jobs.nightly()
    assert report.outcome == "needs_person"
    assert "No space left on device" in of(report).needs_person[0]
    await jobs.afternoon(wait=True)
    assert await told(database) == ALL_TOLD


@pytest.mark.only_on("sqlite")
async def test_a_clock_that_is_put_back_loses_nothing(
    jobs_on: MakeJobs, work: TwoStages, database: Database, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=0.3))
    await jobs_on(work).nightly()
    report = await jobs_on(work, clock=MovedClock(timedelta(hours=-3))).nightly()
    assert (of(report).opened, report.outcome) == (0, "done")
    await jobs_on(work).afternoon(wait=True)
    assert await told(database) == ALL_TOLD
    assert (await seen(provider))["repeated"] == {}


@pytest.mark.only_on("sqlite")
async def test_a_run_that_comes_after_the_window_sends_what_expired_again(
    jobs_on: MakeJobs, work: TwoStages, database: Database
) -> None:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7).but(batch_window=0.5)) as late:
        late.faults.add(Fault(kind="expire", times=2))
        report = await jobs_on(work, base_url=late.base_url).nightly(wait=True)
    assert (of(report).submitted, of(report).applied, of(report).failed) == (14, 12, 0)
    assert await told(database) == ALL_TOLD


@pytest.mark.only_on("sqlite")
async def test_a_missing_key_needs_a_person_and_what_waits_goes_on_when_it_is_back(
    jobs_on: MakeJobs, work: TwoStages, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_on(work)
    await jobs.nightly()
    with monkeypatch.context() as patched:
        patched.setattr(batch_desk, "KEYS", {})
        report = await jobs_on(work).afternoon()
    assert report.outcome == "needs_person"
    assert "AuthenticationError" in of(report).needs_person[0]
    await jobs.afternoon(wait=True)
    assert await told(database) == ALL_TOLD

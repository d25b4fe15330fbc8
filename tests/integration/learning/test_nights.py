"""Whole nights and afternoons, from answers in the records to drafts and audits, over real HTTP."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from guidance_agent import Runtime
from guidance_agent.batch_runtime import open_batch_jobs
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.core.batch_desk import FAST
from tests.integration.core.batch_fixtures import seen
from tests.integration.learning.failing import RULE, Steps
from tests.integration.learning.nights import FAILED, PASSED, a_day, canonical, night_and_afternoons, of

sqlite_only = pytest.mark.only_on("sqlite")

WHAT_ONE_NIGHT_LEAVES: dict[str, Any] = {
    "merged": [("draft", 1), ("merged", len(FAILED) - 1)],
    "reflections": [(name, "ended") for name in FAILED],
    "windows": [("janet-56", "ended")],
    "reports": [("ended",)],
    "open": [],
}


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    """A provider whose batches take a moment, and whose models say what the four steps need."""
    async with ProviderSimulator(SimulatorSettings.instant(seed=7).but(batch_duration=0.1)) as running:
        Steps(running).say_all(times=None)
        yield running


async def test_nights_and_afternoons_make_drafts_and_audits_at_half_the_price(
    runtime: Runtime, simulator: ProviderSimulator
) -> None:
    await a_day(runtime)
    reports = await night_and_afternoons(runtime)
    left = await canonical(runtime)
    assert left | WHAT_ONE_NIGHT_LEAVES == left
    ((text, status, _, evidence),) = left["rules"]
    assert (text, status, evidence) == (RULE, "draft", sorted(FAILED))
    assert sorted(turn for turn, purpose, _ in left["verdicts"] if purpose == "audit") == sorted(FAILED + PASSED)
    assert all(state == "applied" and outcome == "succeeded" for _, state, outcome, _ in left["items"])

    assert (of(reports, "reflection", "opened"), of(reports, "audit", "opened")) == (len(FAILED), 7)
    assert (of(reports, "reflection", "applied"), of(reports, "audit", "applied")) == (4 * len(FAILED), 7)
    costs = [report.money.cost_usd or 0 for report in reports]
    full = [report.money.interactive_usd or 0 for report in reports]
    assert sum(full) > 0
    assert 1 - sum(costs) / sum(full) >= 0.49
    counted = await seen(simulator)
    assert (counted["requests"], counted["repeated"]) == (sum(count for *_, count in left["items"]), {})
    assert {kind for kind, *_ in left["items"]} >= {"audit", "memory_consolidation", "reflection.value"}


@sqlite_only
async def test_more_runs_and_runs_beside_each_other_leave_what_one_night_leaves(
    runtime: Runtime, simulator: ProviderSimulator
) -> None:
    await a_day(runtime)
    await asyncio.gather(*(night_and_afternoons(runtime) for _ in range(3)))
    left = await canonical(runtime)
    assert left | WHAT_ONE_NIGHT_LEAVES == left
    async with open_batch_jobs(runtime, options=FAST) as jobs:
        for run in (jobs.afternoon, jobs.afternoon, jobs.nightly, jobs.afternoon, jobs.nightly):
            report = await run()
            assert (report.idle, report.outcome) == (True, "done")
    assert await canonical(runtime) == left
    assert (await seen(simulator))["repeated"] == {}


@pytest.mark.slow
@sqlite_only
async def test_processes_at_once_and_one_that_is_killed_leave_what_one_night_leaves(
    runtime: Runtime, simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    await a_day(runtime)

    started: list[asyncio.subprocess.Process] = []

    async def start(first: str) -> asyncio.subprocess.Process:
        arguments = (str(tmp_path / "data"), simulator.base_url, wire, first)
        command = (sys.executable, "-m", "tests.integration.learning.night_child", *arguments)
        started.append(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE))
        return started[-1]

    try:
        async with asyncio.timeout(50):
            killed = await start("wait")
            assert killed.stdout is not None
            # In the middle: the first answers are there, and not the last.
            while not int((await killed.stdout.readline()).split()[0]):
                pass
            killed.kill()
            assert await killed.wait() == -signal.SIGKILL
            other = await start("nightly")
            await night_and_afternoons(runtime)
            await other.communicate()
            assert other.returncode == 0
    finally:
        for child in started:
            if child.returncode is None:
                child.kill()
            await child.communicate()
    left = await canonical(runtime)
    assert left | WHAT_ONE_NIGHT_LEAVES == left
    assert [row[:1] + row[3:] for row in left["rules"]] == [(RULE, sorted(FAILED))]
    assert [turn for turn, purpose, _ in left["verdicts"] if purpose == "audit"] == sorted(FAILED + PASSED)
    assert (await seen(simulator))["repeated"] == {}


@sqlite_only
async def test_a_model_that_is_gone_between_the_rounds_is_told_and_the_night_goes_on_when_it_is_back(
    runtime: Runtime, simulator: ProviderSimulator
) -> None:
    await a_day(runtime)
    gone = Fault(kind="status", status=404, operation="batches.item", contains="Your step: refine", times=len(FAILED))
    simulator.faults.clear()
    simulator.faults.add(gone)
    Steps(simulator).say_all(times=None)
    async with open_batch_jobs(runtime, options=FAST) as jobs:
        report = await jobs.nightly(wait=True)
    (reflection,) = (work for work in report.works if work.name == "reflection")
    assert report.outcome == "needs_person"
    assert reflection.needs_person
    assert await runtime.reflection_rounds().send_again() == len(FAILED)
    await night_and_afternoons(runtime, first="afternoon")
    left = await canonical(runtime)
    assert left | WHAT_ONE_NIGHT_LEAVES == left

"""Processes that work on batches are killed at many moments, or work on the same ones: each item counts once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.batch_kill_evidence import applied_table, contradictions, final_state
from benchmarks.batch_kill_nursery import MODELS
from benchmarks.batch_kill_run import Nursery, Work
from benchmarks.batch_kills import kill_and_look, seen, some_attempts_fail
from guidance_agent.core.database import Database
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ITEMS, FEW = 24, 14


def simulator() -> ProviderSimulator:
    return ProviderSimulator(SimulatorSettings(seed=7, zero_latency=True, batch_window=86_400.0, batch_duration=0.1))


@pytest.fixture
async def provider() -> AsyncIterator[ProviderSimulator]:
    async with simulator() as running:
        running.faults.add(some_attempts_fail())
        yield running


@pytest.mark.only_on("sqlite")
async def test_whenever_processes_are_killed_each_item_is_applied_once_and_paid_for_once(
    database: Database, provider: ProviderSimulator
) -> None:
    async def kill(wire: str) -> None:
        work = Work(
            database=database, provider_url=provider.base_url, wire=wire, name=f"quick-{wire}", items=ITEMS, lanes=2
        )
        outcome = await kill_and_look(work, kills=12, points=False)
        assert outcome.violations == []
        assert outcome.kills == 12
        assert len(outcome.states) > 2

    await asyncio.gather(*(kill(wire) for wire in MODELS))
    assert await seen(provider.base_url) == {}


async def work_on(nursery: Nursery, database: Database, provider: ProviderSimulator, wire: str, workers: int) -> None:
    """Have so many processes submit one job at once, and work on it until it is done."""
    url = database.url.render_as_string(hide_password=False)
    started = [
        await nursery.start(database_url=url, provider_url=provider.base_url, wire=wire, key=f"job-{wire}", items=FEW)
        for _ in range(workers)
    ]
    assert [await worker.ended for worker in started] == [0] * workers


async def test_processes_that_work_on_a_job_at_once_and_again_leave_what_one_process_leaves(
    database: Database, provider: ProviderSimulator, tmp_path: Path
) -> None:
    async with (
        Nursery() as nursery,
        Database(sa.make_url(f"sqlite:///{tmp_path / 'alone.db'}")) as alone,
        simulator() as other,
    ):
        other.faults.add(some_attempts_fail())
        for each in (database, alone):
            await applied_table(each)
        for wire in MODELS:
            await work_on(nursery, alone, other, wire, 1)
            await work_on(nursery, database, provider, wire, 3)
            for _ in range(4):
                await work_on(nursery, database, provider, wire, 1)
            assert await contradictions(database, f"job-{wire}", FEW) == []
            assert await final_state(database, f"job-{wire}") == await final_state(alone, f"job-{wire}")
    assert await seen(provider.base_url) == {}

"""What happens after a turn: its memory is rated and found again, and no answer waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, ContextRetrieved, CustomerProfile, Runtime
from guidance_agent.core.background import BackgroundJob, BackgroundWorker
from guidance_agent.core.schema import memories, model_calls
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.integration.advisor.wiring import FAST, bare, wired_settings

WITHIN = 10.0


@pytest.fixture
async def lively(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime whose background works."""
    async with Runtime(wired_settings(simulator, wire, tmp_path / "data", background=True), environ={}) as runtime:
        yield runtime


async def row_when(runtime: Runtime, table: sa.Table, ready: Callable[[Any], bool]) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN):
        while True:
            rows = await runtime.database.run(lambda c: c.execute(sa.select(table)).mappings().all())
            for row in rows:
                if ready(row):
                    return dict(row)
            await asyncio.sleep(0.02)


async def test_a_memory_is_rated_after_the_turn_and_recalled_in_the_next_consultation(
    lively: Runtime, janet: CustomerProfile
) -> None:
    async with AdvisorAgent(runtime=lively) as advisor:
        await advisor.provide_guidance(janet, use_reasoning=False, consultation_id="first")
        rated = await row_when(lively, memories, lambda row: row["importance"] is not None)
        assert 1 <= rated["importance"] <= 10
        assert rated["embedding"] is not None
        again = janet.model_copy(update={"presenting_question": "Is the roof money taxed?"})
        async with advisor.consult(again, use_reasoning=False, consultation_id="second") as turn:
            found = [event async for event in turn if isinstance(event, ContextRetrieved)]
        assert found[0].memories == (rated["id"],)
        touched = await row_when(lively, memories, lambda row: row["last_retrieved_at"] is not None)
        assert touched["id"] == rated["id"]


async def test_no_other_customer_recalls_it(lively: Runtime, janet: CustomerProfile) -> None:
    async with AdvisorAgent(runtime=lively) as advisor:
        await advisor.provide_guidance(janet, use_reasoning=False)
        stranger = janet.model_copy(update={"customer_id": "somebody-else"})
        async with advisor.consult(stranger, use_reasoning=False) as turn:
            found = [event async for event in turn if isinstance(event, ContextRetrieved)]
    assert found[0].memories == ()


async def test_a_rating_that_fails_costs_no_answer_and_is_counted(
    lively: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    simulator.faults.add(Fault(kind="status", status=400, times=None, model=bare(FAST[wire])))
    async with AdvisorAgent(runtime=lively) as advisor:
        assert await advisor.provide_guidance(janet, use_reasoning=False)
        failed = await row_when(lively, memories, lambda row: row["importance_attempts"] > 0)
        assert failed["importance"] is None
        call = await row_when(lively, model_calls, lambda row: row["operation"] == "importance")
        assert call["outcome"] == "error:RequestRejectedError"


async def test_a_job_that_raises_is_tried_again_and_stops_no_other() -> None:
    runs: list[str] = []
    done = asyncio.Event()

    async def fail() -> None:
        runs.append("fail")
        if runs.count("fail") == 3:
            done.set()
        raise ConnectionError("not today")

    async def work() -> None:
        runs.append("work")

    jobs = [
        BackgroundJob(name="fails", interval=0.01, run=fail, at_start=True),
        BackgroundJob(name="works", interval=0.01, run=work, at_start=True),
    ]
    async with BackgroundWorker(jobs), asyncio.timeout(WITHIN):
        await done.wait()
    assert runs.count("work") >= 1


async def test_waking_reaches_the_jobs_that_wake_and_no_others() -> None:
    ran: list[str] = []
    woken = asyncio.Event()

    async def wakes() -> None:
        ran.append("wakes")
        woken.set()

    async def sleeps() -> None:
        ran.append("sleeps")

    jobs = [
        BackgroundJob(name="sleeps", interval=3_600, run=sleeps, wakes=False),
        BackgroundJob(name="wakes", interval=3_600, run=wakes),
    ]
    async with BackgroundWorker(jobs) as worker, asyncio.timeout(WITHIN):
        worker.wake()
        await woken.wait()
    assert ran == ["wakes"]

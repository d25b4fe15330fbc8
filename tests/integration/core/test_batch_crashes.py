"""A process that dies at any point of a job's life: the next one pays nothing twice, and applies each item once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa

from guidance_agent import Settings
from guidance_agent.core.batch_processing import CRASH_POINTS, BatchProcessor
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.schema import model_calls
from guidance_agent.errors import BatchConflictError
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.core.batch_desk import (
    APPLIES,
    IN_PIECES,
    MODELS,
    applied,
    gateway_before,
    make_ledger,
    requests,
)

ITEMS = sorted(f"item-{number}" for number in range(12))
UPLOADS = ("uploaded", "upload_recorded")
POINTS = {
    "anthropic": tuple(point for point in CRASH_POINTS if point not in UPLOADS),
    "openai": CRASH_POINTS,
}


@pytest.fixture
async def provider() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as running:
        yield running


async def seen(provider: ProviderSimulator) -> Any:
    """How many requests the provider's batches have accepted, and which more than once."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{provider.base_url}/_simulator/seen") as response,
    ):
        return await response.json()


async def run_child(settings: Settings, provider: ProviderSimulator, wire: str, point: str, passes: int = 0) -> int:
    """Let a process work on the job until it ends or is killed; returns its exit code."""
    url = database_url(settings).render_as_string(hide_password=False)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.core.batch_child",
        url,
        provider.base_url,
        wire,
        "job",
        point,
        str(passes),
    )
    return await child.wait()


async def finish(database: Database, provider: ProviderSimulator, wire: str) -> None:
    """Submit the same job once more, and work on it to its end."""
    async with (
        gateway_before(provider.base_url) as gateway,
        BatchProcessor(database, gateway, kinds=[APPLIES], options=IN_PIECES) as processor,
    ):
        async with asyncio.timeout(10):
            while True:
                try:
                    await processor.submit(requests(12), job_key="job", kind=APPLIES.name, model=MODELS[wire])
                    break
                except BatchConflictError:
                    # The dead process had begun to prepare it, and may have been alive for another second.
                    await asyncio.sleep(0.05)
        status = await processor.wait("job", timeout=20)
    assert (status.applied, status.outcomes, status.needs_person) == (12, {"succeeded": 12}, False)
    entered = sa.select(sa.func.count(), sa.func.sum(model_calls.c.cost_usd))
    count, usd = await database.run(lambda connection: connection.execute(entered).one())
    assert (count, usd) == (12, pytest.approx(status.cost_usd))


async def check(settings: Settings, database: Database, provider: ProviderSimulator, wire: str, point: str) -> None:
    await make_ledger(database)
    assert await run_child(settings, provider, wire, point) == -signal.SIGKILL
    await finish(database, provider, wire)
    assert await applied(database) == ITEMS
    accepted = await seen(provider)
    assert (accepted["requests"], accepted["distinct"], accepted["repeated"]) == (12, 12, {})


@pytest.mark.parametrize("point", POINTS["anthropic"])
async def test_a_message_batch_is_paid_for_once_and_applied_once_wherever_the_process_dies(
    settings: Settings, database: Database, provider: ProviderSimulator, point: str
) -> None:
    await check(settings, database, provider, "anthropic", point)


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("point", POINTS["openai"])
async def test_a_file_batch_is_paid_for_once_and_applied_once_wherever_the_process_dies(
    settings: Settings, database: Database, provider: ProviderSimulator, point: str
) -> None:
    await check(settings, database, provider, "openai", point)


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("point", ["uploaded", "accepted", "applying"])
async def test_a_file_batch_on_postgresql_is_paid_for_once_and_applied_once(
    settings: Settings, database: Database, provider: ProviderSimulator, point: str
) -> None:
    await check(settings, database, provider, "openai", point)


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(("point", "passes"), [("preparing", 2), ("collecting", 1), ("applying", 2)])
async def test_a_process_that_dies_halfway_through_the_items_leaves_the_other_half_to_the_next(
    settings: Settings, database: Database, provider: ProviderSimulator, point: str, passes: int
) -> None:
    await make_ledger(database)
    assert await run_child(settings, provider, "anthropic", point, passes) == -signal.SIGKILL
    await finish(database, provider, "anthropic")
    assert await applied(database) == ITEMS


@pytest.mark.only_on("sqlite")
async def test_processes_that_die_one_after_the_other_finish_the_job_together(
    settings: Settings, database: Database, provider: ProviderSimulator
) -> None:
    await make_ledger(database)
    for point in ("accepted", "collecting", "applied_some"):
        await asyncio.sleep(IN_PIECES.lease)
        assert await run_child(settings, provider, "openai", point) == -signal.SIGKILL
    await finish(database, provider, "openai")
    assert await applied(database) == ITEMS
    assert (await seen(provider))["repeated"] == {}

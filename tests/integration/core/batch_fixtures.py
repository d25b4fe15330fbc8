"""A simulator, a gateway before it, and processors; fixtures that the tests of batches import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.core.database import Database
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.core.batch_desk import APPLIES, FAST, gateway_before, make_ledger

__all__ = ["open_processor", "processor", "provider", "seen"]


@pytest.fixture
async def provider() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as running:
        yield running


@pytest.fixture
async def open_processor(
    database: Database, provider: ProviderSimulator
) -> AsyncIterator[Callable[..., BatchProcessor]]:
    """Make processors on the test's database, each with a gateway of its own."""
    await make_ledger(database)
    async with AsyncExitStack() as stack:

        def make(
            options: BatchOptions = FAST, kinds: Any = (APPLIES,), base_url: str | None = None, **fields: Any
        ) -> BatchProcessor:
            gateway = gateway_before(base_url or provider.base_url)
            made = BatchProcessor(database, gateway, kinds=kinds, options=options, **fields)
            stack.push_async_callback(gateway.aclose)
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
def processor(open_processor: Callable[..., BatchProcessor]) -> BatchProcessor:
    return open_processor()


async def seen(provider: ProviderSimulator) -> Any:
    """How many requests the provider's batches have accepted, and which more than once."""
    url = f"{provider.base_url}/_simulator/seen"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.json()

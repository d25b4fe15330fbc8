"""A gateway whose embedding model is a simulator that tests can watch and break."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


@pytest_asyncio.fixture
async def gateway(simulator: ProviderSimulator) -> AsyncIterator[ModelGateway]:
    environ = {"OPENAI_API_KEY": "sk-test-123456", "OPENAI_BASE_URL": f"{simulator.base_url}/v1"}
    async with ModelGateway(Settings.load(retry={"max_attempts": 1}), environ=environ) as opened:
        yield opened

"""A validator before a simulator, over either wire format, whose judge says what a test dictates."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from guidance_agent.compliance.validator import GuidanceValidator
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings
from tests.integration.compliance.judging import FAST, JUDGES, KEYS, Calls, Judging


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


@pytest.fixture(params=["anthropic", "openai"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def judging(simulator: ProviderSimulator, wire: str) -> AsyncIterator[Judging]:
    environ = KEYS | {"ANTHROPIC_BASE_URL": simulator.base_url, "OPENAI_BASE_URL": f"{simulator.base_url}/v1"}
    settings = Settings.load(retry={"max_attempts": 1})
    calls = Calls()
    async with ModelGateway(settings, environ=environ, sinks=[calls]) as gateway:
        validator = GuidanceValidator(gateway, JUDGES[wire], load_knowledge())
        yield Judging(simulator, gateway, validator, FAST[wire], calls)

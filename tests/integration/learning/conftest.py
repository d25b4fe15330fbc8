"""A runtime whose models are a simulator's that tests can watch, over either wire format and on either database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from guidance_agent import Runtime
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.advisor.wiring import wired_settings
from tests.integration.learning.failing import Steps
from tests.storage import Storage


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as running:
        yield running


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> str:
    """The wire format of the test's provider; `tests/conftest.py` says which ones a test runs with."""
    return str(request.param)


@pytest_asyncio.fixture
async def runtime(simulator: ProviderSimulator, wire: str, storage: Storage, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(wired_settings(simulator, wire, tmp_path / "data"), environ={}) as opened:
        yield opened


@pytest.fixture
def steps(simulator: ProviderSimulator) -> Steps:
    return Steps(simulator)

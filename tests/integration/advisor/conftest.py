"""A simulator that tests can watch, and an advisor whose every call goes to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from guidance_agent import AdvisorAgent, Runtime
from guidance_agent.core.ledger import UsageLedger
from guidance_agent.llm.messages import ModelCall
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.advisor.prefixes import MOVES_PREFIX, moved_prefixes
from tests.integration.advisor.wiring import wired_settings
from tests.storage import Storage


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MOVES_PREFIX)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as running:
        yield running


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> str:
    """The wire format of the test's provider; `tests/conftest.py` says which ones a test runs with."""
    return str(request.param)


@pytest.fixture(autouse=True)
def on_each_database(storage: Storage) -> Storage:
    """The settings of every test here find the database that the test runs on, in child processes too."""
    return storage


@pytest.fixture(autouse=True)
def the_prefix_never_moves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does, the prompts of a consultation only grow, unless it says that they may move."""
    if "simulator" not in request.fixturenames:
        yield
        return
    simulator: ProviderSimulator = request.getfixturevalue("simulator")
    calls: dict[str, ModelCall] = {}
    original = UsageLedger.record

    def noting(self: UsageLedger, call: ModelCall) -> None:
        if call.request_id is not None:
            calls[call.request_id] = call
        original(self, call)

    monkeypatch.setattr(UsageLedger, "record", noting)
    yield
    moved = moved_prefixes(simulator.requests, calls)
    if request.node.get_closest_marker("moves_prefix") is None:
        assert not moved
    else:
        assert moved, "the test is marked with moves_prefix, and nothing moved"


@pytest_asyncio.fixture
async def wired_runtime(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(wired_settings(simulator, wire, tmp_path / "data"), environ={}) as opened:
        yield opened


@pytest_asyncio.fixture
async def wired(wired_runtime: Runtime) -> AsyncIterator[AdvisorAgent]:
    async with AdvisorAgent(runtime=wired_runtime) as opened:
        yield opened

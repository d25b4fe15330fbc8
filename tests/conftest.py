"""Fixtures that every test may use: a scrubbed environment, real settings, a real database, a real advisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url

_PROVIDER_VARIABLES = ("_API_KEY", "_BASE_URL", "_API_BASE")


@pytest.fixture(autouse=True)
def scrubbed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, address or setting of the machine reaches a test, and nothing is written outside its folder."""
    for name in list(os.environ):
        if name.startswith("GUIDANCE_") or name.endswith(_PROVIDER_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))


@pytest_asyncio.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """A task that outlives its test is owned by nobody."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()}
    assert not left, f"tasks left running: {left}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fresh data folder, with an embedded simulator that answers at once and no background work."""
    return Settings.load(data_dir=tmp_path / "data", simulator="instant", background=False)


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with Database(database_url(settings)) as opened:
        yield opened


@pytest_asyncio.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    async with Runtime(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def advisor(runtime: Runtime) -> AsyncIterator[AdvisorAgent]:
    async with AdvisorAgent(runtime=runtime) as opened:
        yield opened


@pytest.fixture
def janet() -> CustomerProfile:
    return CustomerProfile.parse(
        {
            "customer_id": "janet-56",
            "first_name": "Janet",
            "age": 56,
            "financial_literacy": "low",
            "pensions": [{"kind": "dc", "value_gbp": 38_000}],
            "presenting_question": "Can I take all of my pension to mend my roof?",
        }
    )

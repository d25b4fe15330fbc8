"""The response cache as settings switch it on: off unless asked for, and never for a customer's turn unless named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.core.schema import model_calls, response_cache
from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.messages import Message, ModelRequest

QUESTION = ModelRequest(model="anthropic/claude-haiku-5-5", messages=(Message("user", "What is drawdown?"),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def configured(folder: Path, **cache: Any) -> Settings:
    return Settings.load(data_dir=folder, simulator="instant", background=False, response_cache=cache)


async def read(runtime: Runtime, *columns: sa.Column[Any]) -> list[tuple[Any, ...]]:
    query = sa.select(*columns)
    return await runtime.database.run(lambda connection: [tuple(row) for row in connection.execute(query)])


async def test_it_is_off_by_default(folder: Path) -> None:
    async with Runtime(configured(folder), environ={}) as runtime:
        outcomes = [(await runtime.gateway.complete(QUESTION)).call.cache_outcome for _ in range(2)]
        assert "local_hit" not in outcomes
        assert await read(runtime, response_cache.c.key) == []


async def test_the_ledger_says_that_the_local_cache_answered(folder: Path) -> None:
    async with Runtime(configured(folder, enabled=True), environ={}) as runtime:
        first = await runtime.gateway.complete(QUESTION)
        second = await runtime.gateway.complete(QUESTION)
        assert second.text == first.text
    async with Runtime(configured(folder), environ={}) as runtime:
        c = model_calls.c
        rows = await read(runtime, c.cache_outcome, c.transport, c.cost_usd, c.input_tokens, c.attempts, c.simulated)
    assert rows[1] == ("local_hit", "response_cache", 0.0, 0, 0, True)
    assert rows[0][0] != "local_hit"
    assert rows[0][2] > 0


async def test_a_customers_turn_is_kept_only_when_its_operation_is_named(folder: Path, janet: CustomerProfile) -> None:
    async def operations_kept(**cache: Any) -> list[tuple[Any, ...]]:
        async with Runtime(configured(folder, **cache), environ={}) as runtime:
            async with AdvisorAgent(runtime=runtime) as advisor:
                assert await advisor.provide_guidance(janet)
            return await read(runtime, response_cache.c.operation)

    assert await operations_kept(enabled=True) == []
    assert await operations_kept(enabled=True, operations=("guidance",)) == [("guidance",)]


async def test_the_environment_switches_it_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_RESPONSE_CACHE__ENABLED", "true")
    monkeypatch.setenv("GUIDANCE_RESPONSE_CACHE__TTL", "60")
    monkeypatch.setenv("GUIDANCE_RESPONSE_CACHE__OPERATIONS", '["classification"]')
    wanted = Settings.load().response_cache
    assert (wanted.enabled, wanted.ttl, wanted.operations) == (True, 60.0, ("classification",))


@pytest.mark.parametrize(
    "field", [{"ttl": 0}, {"ttl": -1}, {"max_entries": 0}, {"operations": "guidance"}, {"on": True}]
)
def test_settings_that_cannot_work_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="response_cache"):
        Settings.load(response_cache=field)

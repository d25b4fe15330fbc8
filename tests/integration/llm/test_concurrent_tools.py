"""Tools in concurrent batches, and batches that open a gateway of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from guidance_agent.errors import ConfigurationError, ToolDefinitionError
from guidance_agent.llm.concurrent import BatchConfig, BatchRequest, batch_complete, batch_complete_sync
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script

OPENAI = "openai/gpt-6-luna"


def annual_allowance(tax_year: str) -> int:
    """Return the annual allowance."""
    return {"2026/27": 60_000}[tax_year]


async def test_tools_are_run_and_their_history_is_on_the_result(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str
) -> None:
    called = Script(text="Looking.", tool="annual_allowance", arguments={"tax_year": "2026/27"})
    wrong = Script(text="Looking.", tool="annual_allowance", arguments={"tax_year": "1066"})
    simulator.faults.add(Fault(kind="script", script=called), Fault(kind="script", script=wrong))
    response = await batch_complete(
        ["Which allowance?"], model, tools=[annual_allowance], max_tool_iterations=2, gateway=gateway
    )
    [result] = response.results
    assert result.success
    assert [(run.name, run.result, run.error) for run in result.tool_execution_history] == [
        ("annual_allowance", "60000", None),
        ("annual_allowance", "The tool failed (KeyError: '1066')", "KeyError"),
    ]
    assert [call.name for call in result.tool_calls_made] == ["annual_allowance"] * 2
    assert len(simulator.requests) == 3


async def test_calls_of_tools_may_be_left_to_the_caller_and_are_limited_otherwise(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    called = Script(text="", tool="annual_allowance", arguments={"tax_year": "2026/27"})
    simulator.faults.add(Fault(kind="script", times=None, script=called))
    requests = [
        BatchRequest(user_message="a", execute_tools=False),
        BatchRequest(user_message="b", max_tool_iterations=1),
    ]
    config = BatchConfig(max_concurrent=1)
    response = await batch_complete(requests, OPENAI, tools=[annual_allowance], gateway=gateway, config=config)
    left, limited = response.results
    assert (left.success, len(left.tool_calls_made), left.tool_execution_history) == (True, 1, ())
    assert (limited.error_type, limited.outcome, len(limited.tool_execution_history)) == (
        "ToolLimitError",
        "invalid",
        1,
    )
    assert limited.cost is not None
    assert limited.cost > 0


async def test_a_function_that_cannot_be_a_tool_sends_nothing(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    with pytest.raises(ToolDefinitionError):
        await batch_complete(["a"], OPENAI, tools=[lambda year: year], gateway=gateway)
    assert not simulator.requests


@pytest.fixture
def a_machine_without_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    monkeypatch.setenv("GUIDANCE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("GUIDANCE_SIMULATOR", "instant")
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    yield
    assert threading.active_count() <= before + 1


@pytest.mark.usefixtures("a_machine_without_keys")
async def test_without_a_gateway_or_a_key_the_simulator_answers_and_says_so() -> None:
    response = await batch_complete(["What is drawdown?"])
    assert response.results[0].success
    assert response.results[0].simulated


@pytest.mark.usefixtures("a_machine_without_keys")
def test_the_sync_form_works_with_and_without_a_running_loop() -> None:
    async def inside() -> int:
        return batch_complete_sync(["What is drawdown?"]).succeeded

    assert batch_complete_sync(["What is drawdown?"] * 3).succeeded == 3
    assert asyncio.run(inside()) == 1


async def test_without_anybody_who_opens_gateways_one_has_to_be_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidance_agent.llm.opening._openers", [])
    with pytest.raises(ConfigurationError, match="pass a gateway"):
        await batch_complete(["a"])


async def test_a_tool_that_cancels_itself_or_would_end_the_program_fails_and_loses_no_request(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    async def cancels() -> str:
        raise asyncio.CancelledError

    async def leaves() -> str:
        raise SystemExit(3)

    for name in ("cancels", "leaves"):
        simulator.faults.add(Fault(kind="script", script=Script(text="Looking.", tool=name, arguments={})))
    config = BatchConfig(max_concurrent=1)
    response = await batch_complete(["a", "b", "c"], OPENAI, tools=[cancels, leaves], gateway=gateway, config=config)
    assert [result.success for result in response.results] == [True, True, True]
    assert [run.result for result in response.results for run in result.tool_execution_history] == [
        "The tool failed (CancelledError)",
        "The tool failed (SystemExit)",
    ]

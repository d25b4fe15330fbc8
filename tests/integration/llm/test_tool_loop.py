"""A model that calls tools, over HTTP on both wire formats: rounds, limits, and what the model is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from guidance_agent.errors import ToolLimitError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Delta, ModelCall, ModelRequest, ToolSpec
from guidance_agent.llm.tool_loop import complete_with_tools, stream_with_tools
from guidance_agent.llm.tool_runs import ToolRun
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from guidance_agent.provider_simulator.scripts import ScriptedCall

Ask = Callable[..., ModelRequest]


def allowance(year: str) -> int:
    """Return the annual allowance."""
    if year == "1900":
        raise ValueError("no allowance in 1900")
    return 60_000


CALLED = Script(
    text="Looking.",
    tool="allowance",
    arguments={"year": "2026/27"},
    more_calls=(ScriptedCall(tool="allowance", arguments={"year": "1900"}),),
)


async def test_calls_of_one_answer_are_carried_out_and_their_results_go_back(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask, calls: list[ModelCall]
) -> None:
    simulator.faults.add(Fault(kind="script", script=CALLED))
    answer = await complete_with_tools(gateway, ask(model), [allowance])
    assert answer.completion.text
    assert [(run.result, run.error, run.round) for run in answer.runs] == [
        ("60000", None, 1),
        ("The tool failed (ValueError: no allowance in 1900)", "ValueError", 1),
    ]
    assert answer.calls == tuple(calls)
    assert [message.role for message in answer.messages] == ["system", "user", "assistant", "tool", "tool"]
    first, second = simulator.requests
    assert len(first.body["tools"]) == len(second.body["tools"]) == 1
    sent = json.dumps(second.body["messages"])
    for run in answer.runs:
        assert sent.count(run.id) == 2
        assert run.result in sent


async def test_a_stream_gives_the_text_of_all_rounds_and_what_was_run_between(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="script", script=CALLED))
    simulator.faults.script("It is £60,000.")
    parts: list[Delta | ToolRun] = [part async for part in stream_with_tools(gateway, ask(model), [allowance])]
    assert "".join(part.text for part in parts if isinstance(part, Delta)) == "Looking.It is £60,000."
    assert next(part.result for part in parts if isinstance(part, ToolRun)) == "60000"
    place = next(number for number, part in enumerate(parts) if isinstance(part, ToolRun))
    assert "".join(part.text for part in parts[:place] if isinstance(part, Delta)) == "Looking."


async def test_a_stream_with_tools_that_is_left_closes_the_provider_s_answer(
    gateway: ModelGateway, model: str, ask: Ask, calls: list[ModelCall]
) -> None:
    stream: Any = stream_with_tools(gateway, ask(model), [allowance])
    async with aclosing(stream):
        async for _ in stream:
            break
    assert [call.outcome for call in calls] == ["closed_early"]


async def test_a_model_that_never_stops_calling_is_stopped(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="script", times=None, script=CALLED))
    with pytest.raises(ToolLimitError, match="after 2 rounds") as raised:
        await complete_with_tools(gateway, ask(model), [allowance], max_iterations=2)
    assert len(simulator.requests) == 3
    assert [run.round for run in raised.value.runs] == [1, 1, 2, 2]


async def test_a_call_of_a_tool_that_is_only_described_is_handed_to_the_caller(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="script", script=CALLED))
    described = ToolSpec("allowance", "The allowance.", {"type": "object", "properties": {"year": {"type": "string"}}})
    answer = await complete_with_tools(gateway, ask(model), [described])
    assert [call.name for call in answer.completion.tool_calls] == ["allowance", "allowance"]
    assert (answer.runs, len(simulator.requests)) == ((), 1)


async def test_a_model_may_answer_without_calling_anything(gateway: ModelGateway, model: str, ask: Ask) -> None:
    answer = await complete_with_tools(gateway, ask(model), [allowance])
    assert answer.completion.text
    assert answer.runs == ()

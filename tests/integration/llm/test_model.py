"""`get_model`: answers, streams and batches under one name, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from guidance_agent.errors import (
    BatchRequestError,
    ConfigurationError,
    MissingKeyError,
    StructuredOutputError,
)
from guidance_agent.llm import BatchRequest, collect, get_model
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import ModelCall
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script


class Opinion(BaseModel):
    ok: bool
    reason: str


def today() -> str:
    """Return today's date."""
    return "2026-11-21"


CALL_TODAY = Script(text="Looking. ", tool="today")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a key."""
    monkeypatch.setenv("GUIDANCE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("GUIDANCE_SIMULATOR", "instant")
    monkeypatch.chdir(tmp_path)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "guidance-agent-sync"]


async def test_a_whole_answer_comes_with_what_it_cost(
    gateway: ModelGateway, model: str, calls: list[ModelCall]
) -> None:
    answer = await get_model(model, gateway=gateway).complete("What is drawdown?", system_prompt="Be kind.")
    [call] = calls
    assert str(answer) == answer.text == answer.completion.text
    assert (answer.calls, answer.usage) == ((call,), call.usage)
    assert answer.cost == (call.cost.usd if call.cost else None)


async def test_a_typed_answer_is_asked_for_again_and_all_calls_are_counted(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, calls: list[ModelCall]
) -> None:
    simulator.faults.script('{"ok": }')
    simulator.faults.script('{"ok": true, "reason": "fine",}')
    answer = await get_model(model, gateway=gateway).complete("Is it?", output=Opinion)
    assert answer.value == Opinion(ok=True, reason="fine")
    assert (answer.attempts, answer.repairs, answer.calls) == (2, ("trailing_comma",), tuple(calls))


async def test_tools_and_a_type_go_together(gateway: ModelGateway, simulator: ProviderSimulator, model: str) -> None:
    simulator.faults.add(Fault(kind="script", script=CALL_TODAY))
    simulator.faults.script('{"ok": true}')
    simulator.faults.script('{"ok": true, "reason": "today"}')
    answer = await get_model(model, gateway=gateway).complete("Is it?", output=Opinion, tools=[today])
    assert answer.value.reason == "today"
    assert [run.result for run in answer.runs] == ["2026-11-21"]
    assert len(simulator.requests) == 3


async def test_text_is_streamed_and_leaving_early_closes_the_provider_s_answer(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, calls: list[ModelCall]
) -> None:
    door = get_model(model, gateway=gateway)
    simulator.faults.script("One. Two.")
    stream = door.stream("Count.")
    assert await collect(stream) == "One. Two."
    assert stream.call is calls[0]
    async with door.stream("What is drawdown?") as left:
        async for _ in left:
            break
    assert [call.outcome for call in calls] == ["completed", "closed_early"]


async def test_text_is_streamed_through_calls_of_tools(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str
) -> None:
    simulator.faults.add(Fault(kind="script", script=CALL_TODAY))
    simulator.faults.script("It is the 21st.")
    stream = get_model(model, gateway=gateway).stream("Which day?", tools=[today])
    assert "".join([text async for text in stream]) == "Looking. It is the 21st."
    assert [run.name for run in stream.runs] == ["today"]


async def test_a_typed_answer_shows_what_is_there_of_it_so_far(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str
) -> None:
    simulator.faults.script(pieces=['{"ok": tr', 'ue, "rea', 'son": "it ', "is fi", 'ne"}'])
    async with await get_model(model, gateway=gateway).stream_typed("Is it?", Opinion) as stream:
        with pytest.raises(RuntimeError, match="not there yet"):
            _ = stream.result
        seen = [part.value async for part in stream]
    assert seen[-1] == {"ok": True, "reason": "it is fine"}
    for before, after in itertools.pairwise(seen):
        assert before.keys() <= after.keys()
        assert str(after.get("reason", "")).startswith(str(before.get("reason", "")))
    assert stream.result.value == Opinion(ok=True, reason="it is fine")


async def test_a_typed_stream_that_cannot_be_read_begins_again(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str
) -> None:
    simulator.faults.script('{"ok": true, "reason": ')
    simulator.faults.script('{"ok": true, "reason": "fine"}')
    stream = await get_model(model, gateway=gateway).stream_typed("Is it?", Opinion)
    assert {part.attempt async for part in stream} == {1, 2}
    assert stream.result.attempts == 2
    simulator.faults.script("No.", times=None)
    with pytest.raises(StructuredOutputError) as raised:
        async for _ in await get_model(model, gateway=gateway).stream_typed("Is it?", Opinion, attempts=2):
            pass
    assert raised.value.attempts == 2


async def test_a_batch_takes_texts_conversations_and_a_schema(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str
) -> None:
    door = get_model(model, gateway=gateway)
    simulator.faults.script('{"ok": true, "reason": "fine"}', times=2)
    seen: list[int] = []
    response = await door.batch(
        ["Is it?", [{"role": "user", "content": "Is that?"}], BatchRequest(user_message="Say something.")],
        schema=Opinion,
        max_concurrent=1,
        on_progress=lambda progress: seen.append(progress.done),
    )
    assert [result.parsed for result in response.results] == [Opinion(ok=True, reason="fine")] * 2 + [None]
    assert (response.succeeded, seen) == (3, [1, 2, 3])
    results = await door.batch_stream((f"Question {number}?" for number in range(5)), order="input")
    assert [result.custom_id async for result in results] == list("01234")


async def test_a_prompt_that_is_none_sends_nothing(gateway: ModelGateway, simulator: ProviderSimulator) -> None:
    with pytest.raises(BatchRequestError):
        await get_model("openai/gpt-6-luna", gateway=gateway).complete([])
    with pytest.raises(ConfigurationError, match="no default model"):
        get_model(gateway=gateway)
    assert not simulator.requests


@pytest.mark.usefixtures("alone")
async def test_without_a_name_or_a_key_the_simulator_answers_and_says_so() -> None:
    async with get_model() as model:
        answer, text = await asyncio.gather(
            model.complete("What is drawdown?"), collect(model.stream("What is drawdown?"))
        )
        assert answer.completion.call.simulated
        assert text
    assert (await model.complete("And again?")).text
    await model.aclose()


@pytest.mark.usefixtures("alone")
async def test_a_named_model_without_a_key_is_an_error_and_not_the_simulator() -> None:
    async with get_model("anthropic/claude-haiku-5-5") as model:
        with pytest.raises(MissingKeyError):
            await model.complete("What is drawdown?")


@pytest.mark.usefixtures("alone")
def test_everything_works_without_await_with_and_without_a_running_loop() -> None:
    model = get_model()

    async def inside() -> str:
        return model.complete_sync("What is drawdown?").text

    assert model.complete_sync("What is drawdown?").text == asyncio.run(inside())
    assert "".join(model.stream_sync("What is drawdown?")) == model.complete_sync("What is drawdown?").text
    assert model.batch_sync(["a", "b"], max_concurrent=2).succeeded == 2
    for _ in model.stream_sync("What is drawdown?"):
        break


@pytest.mark.usefixtures("alone")
def test_a_model_may_be_used_on_one_event_loop_after_another() -> None:
    model = get_model()

    async def ask() -> Any:
        async with model:
            return (await model.complete("What is drawdown?")).text

    assert asyncio.run(ask()) == asyncio.run(ask())


async def test_a_model_with_a_gateway_of_the_caller_has_no_sync_form(gateway: ModelGateway) -> None:
    with pytest.raises(ConfigurationError, match="Leave the gateway out"):
        get_model("openai/gpt-6-luna", gateway=gateway).complete_sync("a")

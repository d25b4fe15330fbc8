"""What is asked through LiteLLM: cache marks, schemas, embeddings. The rest it shares with every transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from guidance_agent.llm.messages import Delta, Message, ModelRequest
from guidance_agent.llm.providers.base import Breakpoint, CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.litellm import LiteLLMTransport
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script, SimulatorSettings
from guidance_agent.settings import Settings, TimeoutSettings

# What pydantic says about LiteLLM's own models, when it builds and reads them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
MODELS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6-luna"}
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
LONG_SYSTEM = Message("system", "You explain pensions in plain words and never advise. " * 120, part="conduct")
QUESTION = Message("user", "What happens to my pot if I retire at 60?")


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[LiteLLMTransport]:
    opened = LiteLLMTransport(Settings())
    yield opened
    await opened.aclose()


def prepared(
    simulator: ProviderSimulator,
    provider: str,
    plan: CachePlan | None = None,
    *,
    base_url: str | None = None,
    **request: Any,
) -> PreparedCall:
    openai = provider == "openai"
    request.setdefault("messages", (Message("system", "You explain pensions."), QUESTION))
    return PreparedCall(
        request=ModelRequest(model=f"{provider}/{MODELS[provider]}", **request),
        endpoint=Endpoint(
            provider=provider,
            base_url=base_url or (f"{simulator.base_url}/v1" if openai else simulator.base_url),
            wire="openai" if openai else "anthropic",
            api_key="sk-test-0123456789",
            headers={"x-team": "guides"},
        ),
        traits=ModelTraits(native_schema=True, max_tokens_field="max_completion_tokens" if openai else "max_tokens"),
        plan=plan or CachePlan(caching="none"),
        timeouts=TimeoutSettings(first_event=30),
    )


async def read_all(transport: LiteLLMTransport, call: PreparedCall) -> list[Delta]:
    stream = await transport.open(call)
    try:
        deltas: list[Delta] = []
        while (arrived := await stream.read()) is not None:
            assert arrived, "a read returned no delta before the end"
            deltas.extend(arrived)
        assert await stream.read() is None
        return deltas
    finally:
        await stream.aclose()


def scripted(simulator: ProviderSimulator, **script: Any) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(**script)))


async def test_breakpoints_of_anthropic_are_sent_with_their_lifetimes(
    simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    conversation = (LONG_SYSTEM, Message("system", "Part two."), QUESTION, Message("assistant", "It stays."), QUESTION)
    plan = CachePlan(caching="explicit", breakpoints=(Breakpoint(0, "1h"), Breakpoint(1, "1h"), Breakpoint(3, "5m")))
    await read_all(transport, prepared(simulator, "anthropic", plan, messages=conversation))
    body = simulator.requests[-1].body
    hour, minutes = {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral"}
    assert [block.get("cache_control") for block in body["system"]] == [hour, hour]
    marks = [block.get("cache_control") for message in body["messages"] for block in message["content"]]
    assert marks == [None, minutes, None]
    assert "prompt_cache" not in json.dumps(body)


async def test_breakpoints_and_key_of_openai_are_sent_in_its_own_fields(
    simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    plan = CachePlan(caching="explicit", breakpoints=(Breakpoint(0, "30m"),), cache_key="guides-7")
    await read_all(transport, prepared(simulator, "openai", plan, messages=(LONG_SYSTEM, QUESTION)))
    body = simulator.requests[-1].body
    assert body["messages"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert body["prompt_cache_options"] == {"mode": "explicit", "ttl": "30m"}
    assert body["prompt_cache_key"] == "guides-7"
    assert "cache_control" not in json.dumps(body)


async def test_a_model_unknown_to_litellm_gets_the_schema_and_not_a_forced_tool(
    simulator: ProviderSimulator, transport: LiteLLMTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "anthropic", "claude-fable-5-2")
    await transport.complete(prepared(simulator, "anthropic", response_schema=SCHEMA))
    body = simulator.requests[-1].body
    assert body["output_config"]["format"]["schema"] == SCHEMA
    assert "tool_choice" not in body


async def test_chunks_that_have_all_arrived_leave_other_tasks_their_turn(
    simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    scripted(simulator, chunks=1_000)
    stream = await transport.open(prepared(simulator, "anthropic"))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(count_turns())
    while await stream.read() is not None:
        pass
    other.cancel()
    await stream.aclose()
    assert turns > 20


async def test_embeddings_come_back_in_order_and_length(
    simulator: ProviderSimulator, transport: LiteLLMTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "openai", "text-embedding-3-small")
    call = prepared(simulator, "openai", messages=())
    both = await transport.embed(call, ["annuity", "drawdown"], 256)
    again = await transport.embed(call, ["drawdown"], 256)
    assert [len(vector) for vector in both.vectors] == [256, 256]
    assert both.vectors[1] == again.vectors[0] != both.vectors[0]
    assert both.usage is not None
    assert both.usage.input_tokens > 0
    assert both.headers["x-provider-simulator"]

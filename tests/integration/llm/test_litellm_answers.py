"""What arrives through LiteLLM is what the provider sent: text, usage, finish reasons, tool calls, headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from guidance_agent.llm.messages import Delta, Message, ModelRequest, ToolCall, ToolSpec, Usage
from guidance_agent.llm.providers.base import Breakpoint, CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.litellm import LiteLLMTransport
from guidance_agent.llm.transports.tool_pieces import assemble_tool_calls
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script, SimulatorSettings
from guidance_agent.settings import Settings, TimeoutSettings

# What pydantic says about LiteLLM's own models, when it builds and reads them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
MODELS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6-luna"}
BOTH = pytest.mark.parametrize("provider", sorted(MODELS))
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
AGE = ToolSpec("get_age", "Look up an age.", {"type": "object", "properties": {"name": {"type": "string"}}})
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


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def usage_of(deltas: list[Delta]) -> Usage:
    return [delta.usage for delta in deltas if delta.usage is not None][-1]


def scripted(simulator: ProviderSimulator, **script: Any) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(**script)))


async def text_on_the_wire(simulator: ProviderSimulator, provider: str) -> str:
    """The text of an answer as a plain HTTP client reads it from the event stream."""
    path = "/v1/chat/completions" if provider == "openai" else "/v1/messages"
    body = {"model": MODELS[provider], "max_tokens": 900, "stream": True}
    body["messages"] = [{"role": "user", "content": QUESTION.content}]
    headers = {"authorization": "Bearer k", "x-api-key": "k", "anthropic-version": "2023-06-01"}
    text = ""
    async with (
        aiohttp.ClientSession() as session,
        session.post(simulator.base_url + path, json=body, headers=headers) as response,
    ):
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            for choice in event.get("choices") or ():
                text += choice["delta"].get("content") or ""
            text += (event.get("delta") or {}).get("text") or ""
    return text


@BOTH
async def test_the_text_is_what_is_on_the_wire(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    said = "Your pot — £30,000 – stays invested. 🧓🏽 Ça dépend…\n\n- <s> is text\n- so is [DONE]"
    scripted(simulator, text=said)
    raw = await text_on_the_wire(simulator, provider)
    scripted(simulator, text=said)
    deltas = await read_all(transport, prepared(simulator, provider))
    assert raw == said
    assert text_of(deltas) == raw
    assert deltas[-1].finish_reason == "stop"


@BOTH
async def test_text_does_not_depend_on_how_the_bytes_are_cut(provider: str, transport: LiteLLMTransport) -> None:
    said = "Fünf Töpfe 🫙 und £1,000 … " * 5
    async with ProviderSimulator(SimulatorSettings.instant().but(chunk_mode="random", line_ending="\r\n")) as simulator:
        scripted(simulator, text=said)
        assert text_of(await read_all(transport, prepared(simulator, provider))) == said


@BOTH
async def test_a_model_may_say_the_same_hundreds_of_times(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    pieces = ("again and ",) * 250
    scripted(simulator, pieces=pieces)
    assert text_of(await read_all(transport, prepared(simulator, provider))) == "".join(pieces)


@BOTH
async def test_a_cache_write_is_followed_by_a_read_of_the_same_size(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    plan = CachePlan(
        caching="explicit",
        breakpoints=(Breakpoint(0, "1h" if provider == "anthropic" else "30m"),),
        cache_key="guides" if provider == "openai" else None,
    )
    call = prepared(simulator, provider, plan, messages=(LONG_SYSTEM, QUESTION))
    first = usage_of(await read_all(transport, call))
    second = usage_of(await read_all(transport, call))
    assert first.cache_read_tokens == 0
    assert first.cache_write_tokens > 1_000
    assert (first.cache_write_1h_tokens > 0) is (provider == "anthropic")
    assert second.cache_read_tokens == first.cache_write_tokens
    assert second.cache_write_tokens == 0
    assert first.total_input_tokens == second.total_input_tokens == _input_tokens(simulator)
    assert not first.estimated
    assert not second.estimated


def _input_tokens(simulator: ProviderSimulator) -> int:
    usage = simulator.requests[-1].usage or {}
    if "prompt_tokens" in usage:
        return int(usage["prompt_tokens"])
    return sum(int(usage[f"{kind}input_tokens"]) for kind in ("", "cache_read_", "cache_creation_"))


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


@BOTH
async def test_the_request_carries_bound_usage_flag_stops_and_headers(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    await read_all(transport, prepared(simulator, provider, max_tokens=123, stop=("END",)))
    record = simulator.requests[-1]
    if provider == "openai":
        assert record.body["max_completion_tokens"] == 123
        assert record.body["stream_options"] == {"include_usage": True}
        assert record.body["stop"] == ["END"]
        assert record.headers["authorization"].endswith("6789")
    else:
        assert record.body["max_tokens"] == 123
        assert record.body["stop_sequences"] == ["END"]
        assert record.headers["x-api-key"].endswith("6789")
    assert record.headers["x-team"] == "guides"


@BOTH
async def test_a_simulated_answer_is_labelled_and_has_a_request_id(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    stream = await transport.open(prepared(simulator, provider))
    await stream.aclose()
    assert stream.headers["x-provider-simulator"]
    assert stream.request_id == simulator.requests[-1].request_id
    whole = await transport.complete(prepared(simulator, provider))
    assert whole.headers["x-provider-simulator"]
    assert whole.request_id == simulator.requests[-1].request_id


@BOTH
async def test_a_refusal_is_a_refusal(provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport) -> None:
    scripted(simulator, text="No. ", stop="refusal")
    streamed = await read_all(transport, prepared(simulator, provider))
    scripted(simulator, text="No. ", stop="refusal")
    whole = await transport.complete(prepared(simulator, provider))
    assert streamed[-1].finish_reason == whole.finish_reason == "refusal"
    assert text_of(streamed) == whole.text
    assert whole.text.startswith("No. ")


@BOTH
async def test_an_answer_that_was_cut_off_says_so(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="max_tokens", after_chunks=2))
    assert (await read_all(transport, prepared(simulator, provider)))[-1].finish_reason == "length"


@BOTH
async def test_a_tool_call_arrives_in_pieces_and_whole(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    for _ in range(2):
        scripted(simulator, text="Let me look. ", tool="get_age", arguments={"name": "Zoë"})
    streamed = await read_all(transport, prepared(simulator, provider, tools=(AGE,)))
    whole = await transport.complete(prepared(simulator, provider, tools=(AGE,)))
    (call,) = assemble_tool_calls(delta.tool_call for delta in streamed if delta.tool_call is not None)
    assert (call.name, json.loads(call.arguments)) == ("get_age", {"name": "Zoë"})
    assert call.id
    assert [(tool.name, json.loads(tool.arguments)) for tool in whole.tool_calls] == [("get_age", {"name": "Zoë"})]
    assert text_of(streamed) == whole.text == "Let me look. "
    assert streamed[-1].finish_reason == whole.finish_reason == "tool_calls"


@BOTH
async def test_a_tool_call_and_its_result_go_back_to_the_model(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    messages = (
        QUESTION,
        Message("assistant", "", tool_calls=(ToolCall("call_1", "get_age", '{"name": "Zoë"}'),)),
        Message("tool", "61", tool_call_id="call_1"),
    )
    await transport.complete(prepared(simulator, provider, messages=messages, tools=(AGE,)))
    sent = json.dumps(simulator.requests[-1].body["messages"])
    assert sent.count("call_1") == 2
    assert '"61"' in sent


@BOTH
async def test_a_schema_is_sent_and_its_answer_is_json_text(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    for _ in range(2):
        scripted(simulator, text='{"ok": true}')
    streamed = await read_all(transport, prepared(simulator, provider, response_schema=SCHEMA))
    whole = await transport.complete(prepared(simulator, provider, response_schema=SCHEMA))
    body = simulator.requests[-1].body
    sent = body["output_config"]["format"] if provider == "anthropic" else body["response_format"]["json_schema"]
    assert sent["schema"] == SCHEMA
    assert "tools" not in body
    assert json.loads(text_of(streamed)) == json.loads(whole.text) == {"ok": True}


async def test_a_model_unknown_to_litellm_gets_the_schema_and_not_a_forced_tool(
    simulator: ProviderSimulator, transport: LiteLLMTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "anthropic", "claude-fable-5-2")
    await transport.complete(prepared(simulator, "anthropic", response_schema=SCHEMA))
    body = simulator.requests[-1].body
    assert body["output_config"]["format"]["schema"] == SCHEMA
    assert "tool_choice" not in body


async def test_thinking_is_reasoning_and_never_text(simulator: ProviderSimulator, transport: LiteLLMTransport) -> None:
    scripted(simulator, reasoning="The pot is small. So tax matters. ", text="It depends.")
    streamed = await read_all(transport, prepared(simulator, "anthropic"))
    scripted(simulator, reasoning="The pot is small. So tax matters. ", text="It depends.")
    whole = await transport.complete(prepared(simulator, "anthropic"))
    assert text_of(streamed) == whole.text == "It depends."
    assert "".join(delta.reasoning for delta in streamed) == whole.reasoning == "The pot is small. So tax matters. "


async def test_input_usage_is_known_from_the_opening_event(
    simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    scripted(simulator, chunks=50)
    stream = await transport.open(prepared(simulator, "anthropic", messages=(LONG_SYSTEM, QUESTION)))
    early = list(await stream.read() or ())
    await stream.aclose()
    assert usage_of(early).input_tokens == _input_tokens(simulator)
    assert usage_of(early).estimated


async def test_usage_that_was_not_reported_is_marked_estimated(transport: LiteLLMTransport) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for choice in ({"delta": {"content": "Hello."}}, {"delta": {}, "finish_reason": "stop"}):
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            data = json.dumps({**chunk, "choices": [{"index": 0, "finish_reason": None, **choice}]})
            await response.write(f"data: {data}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", silent)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        call = prepared(ProviderSimulator(), "openai", base_url=f"http://127.0.0.1:{port}/v1")
        deltas = await read_all(transport, call)
    finally:
        await runner.cleanup()
    assert text_of(deltas) == "Hello."
    assert usage_of(deltas).estimated


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


@BOTH
async def test_a_whole_answer_equals_the_streamed_one(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    streamed = await read_all(transport, prepared(simulator, provider))
    whole = await transport.complete(prepared(simulator, provider))
    assert whole.text == text_of(streamed)
    assert whole.usage == usage_of(streamed)
    assert whole.finish_reason == "stop"


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

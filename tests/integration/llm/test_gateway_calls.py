"""The door itself: what is prepared, chosen, recorded and kept from the customer."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from blockbuster import blockbuster_ctx

from guidance_agent.errors import MissingKeyError, UnknownModelError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest, ToolSpec
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion, RawEmbeddings, TransportStream
from guidance_agent.provider_simulator import ProviderSimulator
from guidance_agent.settings import Settings

Ask = Callable[..., ModelRequest]
OpenGateway = Callable[..., ModelGateway]

TOOL = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "integer"}}})


async def test_the_record_of_a_call_holds_what_it_cost_and_how_long_it_took(
    gateway: ModelGateway, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    stream = gateway.stream(ask(model, operation="guidance", metadata={"turn_id": "turn_1"}))
    assert await stream.read() is not None
    assert stream.simulated
    async for _ in stream:
        pass
    [call] = calls
    assert call is stream.call
    assert (call.model, call.requested_model, call.provider) == (model, model, model.split("/")[0])
    assert (call.operation, call.transport, call.attempts, call.error) == ("guidance", "native", 1, None)
    assert call.usage is not None
    assert not call.usage.estimated
    assert call.cost is not None
    assert call.cost.usd > 0
    assert call.timing.first_token is not None
    assert call.timing.first_token <= call.timing.total
    assert call.timing.chunks > 10
    assert call.timing.tokens_per_second is not None
    assert call.simulated
    assert call.request_id
    assert call.metadata == {"turn_id": "turn_1"}


async def test_one_line_per_call_is_logged_without_a_word_of_the_customer(
    gateway: ModelGateway, model: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="guidance_agent.calls"):
        await gateway.complete(ask(model, messages=(Message("user", "I am Janet Fictional, NI QQ123456C."),)))
    [record] = caplog.records
    line = record.getMessage()
    assert f"model={model}" in line
    for name in ("operation=", "cached_tokens=", "outcome=completed", "cost_usd=", "first_token_s=", "request_id="):
        assert name in line
    assert "Janet" not in line
    assert "QQ123456C" not in line


async def test_a_sink_that_fails_neither_ends_the_call_nor_the_other_sinks(
    simulator: ProviderSimulator, ask: Ask, model: str, calls: list[ModelCall], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def record(self, call: ModelCall) -> None:
            raise OSError("disk full")

    environ = {"ANTHROPIC_BASE_URL": simulator.base_url, "OPENAI_BASE_URL": simulator.base_url}
    environ |= {"ANTHROPIC_API_KEY": "sk-ant-test-1234", "OPENAI_API_KEY": "sk-test-1234"}
    async with ModelGateway(Settings.load(), environ=environ, sinks=[Broken(), calls]) as gateway:  # type: ignore[list-item]
        assert (await gateway.complete(ask(model))).text
    assert len(calls) == 1
    assert "disk full" in caplog.text


async def test_reasoning_whose_tag_is_never_closed_is_kept_private_and_reported(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.script("<think>She is vulnerable.")
    stream = gateway.stream(ask(model))
    deltas = [delta async for delta in stream]
    assert "".join(delta.text for delta in deltas) == ""
    assert "".join(delta.reasoning for delta in deltas) == "She is vulnerable."
    assert stream.unclosed_reasoning


async def test_text_that_was_held_as_a_possible_tag_comes_before_the_finish(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.script("Use the <think> tag <thi")
    deltas = [delta async for delta in gateway.stream(ask(model))]
    finish = next(index for index, delta in enumerate(deltas) if delta.finish_reason)
    assert "".join(delta.text for delta in deltas[:finish]) == "Use the <think> tag <thi"


async def test_a_closed_gateway_makes_no_calls(gateway: ModelGateway, ask: Ask, model: str) -> None:
    await gateway.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await gateway.complete(ask(model))


async def test_a_prompt_of_megabytes_is_sent(gateway: ModelGateway, ask: Ask) -> None:
    request = ask("openai/gpt-6-luna", messages=(Message("user", "What is drawdown? " * 150_000),))
    assert (await gateway.complete(request)).text


async def test_a_provider_without_embeddings_says_so(gateway: ModelGateway) -> None:
    with pytest.raises(UnknownModelError, match="offers no embeddings"):
        await gateway.embed("anthropic/claude-haiku-5-5", ["a"])


async def test_prepare_says_everything_and_sends_nothing(
    gateway: ModelGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    prepared = gateway.prepare(ask("anthropic/claude-haiku-5-5"))
    assert prepared.endpoint.wire == "anthropic"
    assert prepared.model_id == "claude-haiku-5-5"
    assert "sk-ant-test" not in repr(prepared)
    assert len(simulator.requests) == 0


async def test_caching_can_be_switched_off_for_everything(
    open_gateway: OpenGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    messages = (Message("system", "Be kind. " * 2_000, part="conduct"), Message("user", "Hello?"))
    request = ask("anthropic/claude-haiku-5-5", messages=messages)
    assert open_gateway(simulator.base_url).prepare(request).plan.breakpoints
    assert not open_gateway(simulator.base_url, enable_prompt_caching=False).prepare(request).plan.breakpoints


async def test_the_second_call_reads_the_first_ones_prefix_from_the_cache(
    gateway: ModelGateway, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    messages = (Message("system", "Explain pensions in plain words. " * 900, part="conduct"), Message("user", "Hello?"))
    for _ in range(2):
        async for _delta in gateway.stream(ask(model, messages=messages, cache_key="line-1")):
            pass
    assert [call.cache_outcome for call in calls] == ["first_write", "hit"]
    assert calls[1].usage is not None
    assert calls[1].usage.cache_read_tokens > 2_000


async def test_a_missing_key_is_named_before_anything_is_sent(ask: Ask) -> None:
    async with ModelGateway(Settings.load(), environ={}) as gateway:
        with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
            await gateway.complete(ask("anthropic/claude-haiku-5-5"))


class NamedTransport:
    """A transport that only says that it was chosen."""

    name = "litellm"

    async def open(self, call: PreparedCall) -> TransportStream:
        raise NotImplementedError

    async def complete(self, call: PreparedCall) -> RawCompletion:
        return RawCompletion(text=f"for {call.request.model}", finish_reason="stop", usage=None)

    async def embed(self, call: PreparedCall, texts: Sequence[str], dimensions: int | None) -> RawEmbeddings:
        raise NotImplementedError

    async def aclose(self) -> None:
        return None


async def test_litellm_takes_what_has_no_native_transport_and_everything_when_asked(
    open_gateway: OpenGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    gateway = open_gateway(simulator.base_url, transport="litellm", transports={"litellm": NamedTransport()})
    whole = await gateway.complete(ask("anthropic/claude-haiku-5-5"))
    assert whole.call.transport == "litellm"
    assert whole.usage.estimated


async def test_a_model_without_a_native_transport_is_refused_when_only_native_is_allowed(ask: Ask) -> None:
    environ = {"GEMINI_API_KEY": "test-gemini-key-1234"}
    async with ModelGateway(Settings.load(transport="native"), environ=environ) as gateway:
        prepared = gateway.prepare(ask("gemini/gemini-3.6-flash"))
        if prepared.endpoint.wire is not None:
            pytest.skip("every provider that could be asked has a native wire format")
        with pytest.raises(UnknownModelError, match="gemini"):
            await gateway.complete(ask("gemini/gemini-3.6-flash"))


async def test_the_event_loop_is_never_blocked(
    open_gateway: OpenGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    gateway = open_gateway(simulator.base_url)
    with blockbuster_ctx("guidance_agent.llm"):
        async with gateway.stream(ask(model)) as stream:
            async for _ in stream:
                pass
        await gateway.complete(ask(model))
    assert stream.call is not None


def test_importing_the_gateway_imports_no_http_client() -> None:
    code = (
        "import sys, guidance_agent.llm.gateway\n"
        "print([name for name in ('aiohttp', 'litellm', 'httpx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"

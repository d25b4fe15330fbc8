"""Every call through the door is a span, with what was sent, what came back and what it cost."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from guidance_agent.errors import ModelError, StreamTruncated
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest, ToolSpec
from guidance_agent.llm.response_cache import ResponseCache
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from guidance_agent.settings import Settings
from guidance_agent.tracing import Tracing
from guidance_agent.tracing.memory import MemorySink, tracing_in_memory
from guidance_agent.tracing.preparing import LONGEST_VALUE, FinishedSpan
from tests.integration.llm.conftest import KEYS

Ask = Callable[..., ModelRequest]
WITHIN = 5.0


class Traced:
    """A gateway and what it traces."""

    def __init__(self, gateway: ModelGateway, tracing: Tracing, sink: MemorySink) -> None:
        self.gateway = gateway
        self.tracing = tracing
        self._sink = sink

    async def spans(self) -> list[FinishedSpan]:
        assert await asyncio.to_thread(self.tracing.flush, WITHIN)
        return self._sink.spans

    async def span(self) -> FinishedSpan:
        (span,) = await self.spans()
        return span


@pytest.fixture
def tracing() -> Iterator[tuple[Tracing, MemorySink]]:
    made, sink = tracing_in_memory()
    yield made, sink
    made.close(WITHIN)


@pytest.fixture
async def door(simulator: ProviderSimulator, tracing: tuple[Tracing, MemorySink]) -> AsyncIterator[Traced]:
    environ = KEYS | {"ANTHROPIC_BASE_URL": simulator.base_url, "OPENAI_BASE_URL": f"{simulator.base_url}/v1"}
    settings = Settings.load(retry={"max_attempts": 3, "backoff_factor": 0.001})
    async with ModelGateway(settings, environ=environ, tracing=tracing[0]) as gateway:
        yield Traced(gateway, *tracing)


async def test_a_streamed_answer_has_its_messages_figures_and_times(door: Traced, model: str, ask: Ask) -> None:
    request = ask(
        model,
        operation="guidance",
        temperature=0.5,
        metadata={"turn_id": "turn_1", "consultation_id": "cons_1"},
    )
    stream = door.gateway.stream(request)
    text = "".join([delta.text async for delta in stream])
    call = stream.call
    assert call is not None and call.usage is not None and call.cost is not None
    span = await door.span()
    provider, _, name = model.partition("/")
    assert span.name == "guidance"
    assert span.status is True
    expected = {
        "openinference.span.kind": "LLM",
        "guidance.outcome": "completed",
        "guidance.operation": "guidance",
        "guidance.transport": "native",
        "guidance.attempts": 1,
        "guidance.simulated": True,
        "guidance.call_id": call.id,
        "guidance.turn_id": "turn_1",
        "guidance.consultation_id": "cons_1",
        "session.id": "cons_1",
        "gen_ai.conversation.id": "cons_1",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "gen_ai.response.model": name,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": call.request_id,
        "gen_ai.response.finish_reasons": ["stop"],
        "llm.model_name": name,
        "llm.provider": provider,
        "llm.finish_reason": "stop",
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": "You explain pensions.",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "What is drawdown?",
        "input.value": "What is drawdown?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": text,
        "output.value": text,
        "llm.token_count.prompt": call.usage.total_input_tokens,
        "llm.token_count.completion": call.usage.output_tokens,
        "gen_ai.usage.input_tokens": call.usage.total_input_tokens,
        "guidance.usage.estimated": False,
        "guidance.cost.usd": call.cost.usd,
        "guidance.cache.outcome": call.cache_outcome,
        "gen_ai.response.time_to_first_chunk": call.timing.first_token,
        "guidance.stream.chunks": call.timing.chunks,
        "guidance.stream.tokens_per_second": call.timing.tokens_per_second,
    }
    assert {key: span.attributes.get(key) for key in expected} == expected
    assert json.loads(str(span.attributes["llm.invocation_parameters"])) == {"max_tokens": 1024, "temperature": 0.5}
    assert [event.name for event in span.events] == ["attempt"]
    assert (span.finished - span.started) / 1e9 == pytest.approx(call.timing.total, abs=0.1)
    assert stream.span.span_id == f"{span.context.span_id:016x}"


async def test_a_whole_answer_has_no_time_to_first_token(door: Traced, model: str, ask: Ask) -> None:
    completion = await door.gateway.complete(ask(model, operation="judge"))
    span = await door.span()
    assert span.name == "judge"
    assert span.attributes["output.value"] == completion.text
    assert span.attributes["gen_ai.request.stream"] is False
    assert not {key for key in span.attributes if "first" in key or "stream." in key} - {"gen_ai.request.stream"}


async def test_an_embedding_is_one_of_its_kind(door: Traced) -> None:
    await door.gateway.embed("openai/text-embedding-3-small", ["Can I retire at 55?", "And tax?"])
    span = await door.span()
    assert span.name == "embedding"
    assert span.attributes["openinference.span.kind"] == "EMBEDDING"
    assert span.attributes["embedding.model_name"] == "text-embedding-3-small"
    assert span.attributes["embedding.embeddings.1.embedding.text"] == "And tax?"
    assert span.attributes["guidance.embedding.texts"] == 2
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert "llm.model_name" not in span.attributes


async def test_cached_tokens_are_counted_with_the_prompt(door: Traced, ask: Ask) -> None:
    messages = (Message("system", "You explain pensions. " * 2_000, part="conduct"), Message("user", "And tax?"))
    for _ in range(2):
        async for _ in door.gateway.stream(ask("anthropic/claude-sonnet-5-5", messages=messages)):
            pass
    first, second = await door.spans()
    assert first.attributes["guidance.cache.outcome"] == "first_write"
    assert first.attributes["llm.token_count.prompt_details.cache_write"]
    assert second.attributes["guidance.cache.outcome"] == "hit"
    assert second.attributes["guidance.cache.part.conduct"] == "read"
    read = second.attributes["llm.token_count.prompt_details.cache_read"]
    assert isinstance(read, int)
    assert read == second.attributes["gen_ai.usage.cache_read.input_tokens"]
    prompt = second.attributes["llm.token_count.prompt"]
    assert isinstance(prompt, int)
    assert prompt > read > 5_000


async def test_attempts_are_events(door: Traced, simulator: ProviderSimulator, model: str, ask: Ask) -> None:
    simulator.faults.add(Fault(kind="status", status=529, times=2))
    await door.gateway.complete(ask(model))
    span = await door.span()
    assert [event.name for event in span.events] == ["attempt", "attempt_failed"] * 2 + ["attempt"]
    failed = span.events[1].attributes
    assert failed["guidance.attempt.number"] == 1
    assert failed["exception.type"] == "ProviderUnavailableError"
    assert "guidance.attempt.wait_seconds" in failed
    assert span.attributes["guidance.attempts"] == 3
    assert span.status is True


async def test_a_call_that_fails_is_an_error_with_its_reason(
    door: Traced, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=401, times=None))
    with pytest.raises(ModelError):
        await door.gateway.complete(ask(model))
    span = await door.span()
    assert span.status is False
    assert span.message.startswith("AuthenticationError: ")
    assert span.attributes["guidance.outcome"] == "failed"
    assert span.events[-1].name == "exception"
    assert "guidance.cost.usd" not in span.attributes


async def test_a_truncated_stream_says_so_and_keeps_what_came(
    door: Traced, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="truncate", after_chunks=5))
    said: list[str] = []
    stream = door.gateway.stream(ask(model))
    with pytest.raises(StreamTruncated):
        while (deltas := await stream.read()) is not None:
            said += [delta.text for delta in deltas]
    span = await door.span()
    assert span.status is False
    assert span.attributes["guidance.outcome"] == "truncated"
    assert span.attributes["output.value"] == "".join(said) != ""
    assert span.attributes["guidance.usage.estimated"] is True


async def test_leaving_early_is_no_error_and_its_usage_is_estimated(
    door: Traced, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="stall", after_chunks=3))
    async with door.gateway.stream(ask(model)) as stream:
        await stream.read()
    span = await door.span()
    assert span.status is True
    assert span.attributes["guidance.outcome"] == "closed_early"
    assert span.attributes["guidance.usage.estimated"] is True


async def test_a_cancelled_call_is_cancelled_and_no_error(
    door: Traced, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="stall", after_chunks=3))
    read = asyncio.Event()

    async def reads() -> None:
        async for _ in door.gateway.stream(ask(model)):
            read.set()

    task = asyncio.create_task(reads())
    await asyncio.wait_for(read.wait(), WITHIN)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = await door.span()
    assert span.status is True
    assert span.attributes["guidance.outcome"] == "cancelled"


async def test_a_stream_that_is_dropped_ends_its_span(door: Traced, model: str, ask: Ask) -> None:
    stream = door.gateway.stream(ask(model))
    await stream.read()
    del stream
    gc.collect()
    await door.gateway.release()
    span = await door.span()
    assert span.status is True
    assert span.attributes["guidance.outcome"] == "closed_early"


async def test_a_stream_that_is_never_read_has_no_span(door: Traced, model: str, ask: Ask) -> None:
    door.gateway.stream(ask(model))
    assert await door.spans() == []


async def test_calls_stand_below_the_current_span_and_are_not_current_themselves(
    door: Traced, model: str, ask: Ask
) -> None:
    root = door.tracing.span("turn", "AGENT")
    root.share({"user.id": "user_1"})
    with door.tracing.current(root):
        stream = door.gateway.stream(ask(model))
    async for _ in stream:
        assert not door.tracing.current_span.is_recording
    root.end()
    call, turn = await door.spans()
    assert call.parent == turn.context
    assert call.attributes["user.id"] == "user_1"


async def test_a_long_conversation_shows_its_beginning_and_its_end(door: Traced, model: str, ask: Ask) -> None:
    roles = ("user", "assistant")
    said = [Message(roles[number % 2], f"message {number}") for number in range(99)]  # type: ignore[arg-type]
    await door.gateway.complete(ask(model, messages=(Message("system", "You explain."), *said)))
    attributes = (await door.span()).attributes
    shown = [key for key in attributes if key.startswith("llm.input_messages.") and key.endswith(".content")]
    assert len(shown) == 64
    assert attributes["guidance.messages_left_out"] == 36
    assert attributes["llm.input_messages.7.message.content"] == "message 6"
    assert attributes["llm.input_messages.8.message.content"] == "message 43"
    assert attributes["llm.input_messages.63.message.content"] == "message 98"


async def test_a_prompt_of_a_megabyte_is_cut_with_a_mark(door: Traced, model: str, ask: Ask) -> None:
    messages = (Message("user", "x" * 1_000_000),)
    await door.gateway.complete(ask(model, messages=messages))
    content = str((await door.span()).attributes["llm.input_messages.0.message.content"])
    assert content.endswith("1,000,000 characters in all]")
    assert len(content) < LONGEST_VALUE + 60


async def test_tools_that_a_model_calls_are_shown(door: Traced, model: str, ask: Ask) -> None:
    tool = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "integer"}}})
    completion = await door.gateway.complete(ask(model, tools=(tool,)))
    attributes = (await door.span()).attributes
    for number, call in enumerate(completion.tool_calls):
        place = f"llm.output_messages.0.message.tool_calls.{number}.tool_call"
        assert attributes[f"{place}.function.name"] == call.name
        assert attributes[f"{place}.function.arguments"] == call.arguments


async def test_an_answer_of_the_response_cache_is_a_span_that_cost_nothing(
    simulator: ProviderSimulator, tracing: tuple[Tracing, MemorySink], model: str, ask: Ask
) -> None:
    class Store:
        def __init__(self) -> None:
            self.kept: dict[str, str] = {}

        async def get(self, key: str) -> str | None:
            return self.kept.get(key)

        async def put(self, key: str, content: str, *, operation: str, model: str, simulated: bool) -> None:
            self.kept[key] = content

    environ = KEYS | {"ANTHROPIC_BASE_URL": simulator.base_url, "OPENAI_BASE_URL": f"{simulator.base_url}/v1"}
    cache = ResponseCache(Store(), operations=["completion"], release="1", simulated=True)
    async with ModelGateway(Settings.load(), environ=environ, responses=cache, tracing=tracing[0]) as gateway:
        door = Traced(gateway, *tracing)
        for _ in range(2):
            async for _ in gateway.stream(ask(model)):
                pass
        asked, found = await door.spans()
    assert "guidance.response_cache" not in asked.attributes
    assert found.attributes["guidance.response_cache"] == "hit"
    assert found.attributes["guidance.cache.outcome"] == "local_hit"
    assert found.attributes["guidance.cost.usd"] == 0
    assert found.attributes["guidance.attempts"] == 0
    assert found.attributes["output.value"] == asked.attributes["output.value"]


async def test_the_log_line_of_a_call_names_its_trace(
    door: Traced, model: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="guidance_agent.calls"):
        await door.gateway.complete(ask(model))
    span = await door.span()
    assert f"trace_id={span.context.trace_id:032x}" in caplog.text

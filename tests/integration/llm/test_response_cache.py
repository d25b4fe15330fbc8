"""The response cache over real HTTP and a real database: what is served, what is kept, and what it must never do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from blockbuster import blockbuster_ctx

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.response_cache import ResponseCacheTable
from guidance_agent.core.schema import response_cache
from guidance_agent.errors import DatabaseUnavailableError, ModelError, StreamTruncated, UnknownModelError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Completion, Message, ModelCall, ModelRequest, ToolSpec, Usage
from guidance_agent.llm.response_cache import LONGEST_KEPT, ResponseCache, ResponseStore
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from guidance_agent.settings import Settings
from tests.conformance.subjects import SUBJECTS, Subject

Ask = Callable[..., ModelRequest]
Opens = Callable[..., AbstractAsyncContextManager[ModelGateway]]

TOOL = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "integer"}}})


@pytest.fixture
def store(database: Database, clock: SystemClock) -> ResponseCacheTable:
    return ResponseCacheTable(database, clock, ttl=60.0, max_entries=100)


@pytest.fixture
def opens(simulator: ProviderSimulator, store: ResponseCacheTable, calls: list[ModelCall]) -> Opens:
    """Open gateways with the cache before them; keywords are the cache's arguments and settings."""

    @asynccontextmanager
    async def opened(
        base_url: str = simulator.base_url,
        *,
        store: ResponseStore = store,
        operations: tuple[str, ...] = ("completion",),
        simulated: bool = True,
        **settings: Any,
    ) -> AsyncIterator[ModelGateway]:
        environ = {"ANTHROPIC_BASE_URL": base_url, "OPENAI_BASE_URL": f"{base_url}/v1"}
        environ |= {"ANTHROPIC_API_KEY": "sk-ant-test-1234", "OPENAI_API_KEY": "sk-test-1234"}
        cache = ResponseCache(store, operations=operations, release="1.0", simulated=simulated)
        loaded = Settings.load(**{"retry": {"max_attempts": 1}, **settings})
        async with ModelGateway(loaded, environ=environ, sinks=[calls], responses=cache) as gateway:  # type: ignore[list-item]
            yield gateway

    return opened


async def streamed(gateway: ModelGateway, request: ModelRequest) -> Completion:
    text, reasoning = "", ""
    stream = gateway.stream(request)
    async for delta in stream:
        text += delta.text
        reasoning += delta.reasoning
    assert stream.call is not None
    assert stream.call.finish_reason is not None
    return Completion(text=text, reasoning=reasoning, finish_reason=stream.call.finish_reason, call=stream.call)


async def whole(gateway: ModelGateway, request: ModelRequest) -> Completion:
    return await gateway.complete(request)


WAYS: Mapping[str, Any] = {"streamed": streamed, "whole": whole}


async def rows(database: Database) -> list[dict[str, Any]]:
    query = sa.select(response_cache)
    return await database.run(lambda connection: [dict(row._mapping) for row in connection.execute(query)])


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
async def test_an_equal_call_gets_the_same_answer_and_no_provider_is_asked(
    first: str, second: str, opens: Opens, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    said = Script(text="<think>Age first.</think>From 55, for now: £1.", reasoning="Hm.")
    simulator.faults.add(Fault(kind="script", script=said))
    async with opens() as gateway:
        asked = await WAYS[first](gateway, ask(model))
        found = await WAYS[second](gateway, ask(model))
    assert found.text == asked.text == "From 55, for now: £1."
    assert "Age first." in asked.reasoning
    assert (found.reasoning, found.finish_reason) == (asked.reasoning, asked.finish_reason)
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
async def test_an_answer_is_found_by_a_later_process(
    subject: Subject, opens: Opens, simulator: ProviderSimulator, ask: Ask
) -> None:
    for _ in range(2):
        async with opens(transport=subject.transport) as gateway:
            answer = await gateway.complete(ask(subject.model))
    assert answer.call.cache_outcome == "local_hit"
    assert answer.call.simulated
    assert len(simulator.requests) == 1


async def test_a_hit_is_marked_free_and_not_a_call_of_the_provider(
    opens: Opens, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    async with opens() as gateway:
        for way in (streamed, whole, streamed):
            await way(gateway, ask(model, metadata={"turn_id": "turn_1"}))
    paid, *found = calls
    assert paid.cost is not None
    assert paid.cost.usd > 0
    for hit in found:
        assert (hit.cache_outcome, hit.transport, hit.attempts) == ("local_hit", "response_cache", 0)
        assert hit.usage == Usage()
        assert hit.cost is not None
        assert (hit.cost.usd, hit.cost.prices.source) == (0.0, "local response cache")
        assert (hit.outcome, hit.model, hit.metadata) == ("completed", model, {"turn_id": "turn_1"})
        assert hit.simulated
        assert hit.request_id is None
        assert hit.timing.tokens_per_second is None
    assert found[-1].timing.first_token is not None


async def test_a_hit_is_no_news_for_the_history_of_the_providers_cache(
    opens: Opens, calls: list[ModelCall], ask: Ask
) -> None:
    conduct = Message("system", "You explain pensions. " * 3_000, "conduct")
    request = ask("anthropic/claude-haiku-5-5", messages=(conduct, Message("user", "What is drawdown?")))
    async with opens() as gateway:
        for _ in range(2):
            await gateway.complete(request)
        await gateway.complete(replace(request, messages=(conduct, Message("user", "And tax?"))))
    assert [call.cache_outcome for call in calls] == ["first_write", "local_hit", "hit"]


async def test_tool_calls_are_played_back(opens: Opens, simulator: ProviderSimulator, model: str, ask: Ask) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(tool="figures", arguments={"year": 2026}), times=None))
    async with opens() as gateway:
        asked = await gateway.complete(ask(model, tools=(TOOL,)))
        found = await gateway.complete(ask(model, tools=(TOOL,)))
        stream = gateway.stream(ask(model, tools=(TOOL,)))
        pieces = [delta.tool_call async for delta in stream if delta.tool_call is not None]
    assert asked.finish_reason == found.finish_reason == stream.finish_reason == "tool_calls"
    assert found.tool_calls == asked.tool_calls
    assert [(piece.id, piece.name) for piece in pieces] == [(call.id, call.name) for call in asked.tool_calls]
    assert len(simulator.requests) == 1


async def test_two_equal_calls_at_once_are_two_calls_and_one_kept_answer(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    async with opens() as gateway:
        one, other = await asyncio.gather(streamed(gateway, ask(model)), whole(gateway, ask(model)))
        third = await whole(gateway, ask(model))
    assert one.text == other.text == third.text
    assert len(simulator.requests) == 2
    assert len(await rows(database)) == 1


async def test_an_answer_is_found_before_it_is_written(
    simulator: ProviderSimulator, opens: Opens, model: str, ask: Ask
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.goes_on = asyncio.Event()

        async def get(self, key: str) -> str | None:
            return None

        async def put(self, key: str, content: str, *, operation: str, model: str, simulated: bool) -> None:
            await self.goes_on.wait()

    slow = Slow()
    async with opens(store=slow) as gateway:
        await gateway.complete(ask(model))
        assert (await gateway.complete(ask(model))).call.cache_outcome == "local_hit"
        slow.goes_on.set()
    assert len(simulator.requests) == 1


# What is not kept


async def not_kept(
    database: Database, gateway: ModelGateway, simulator: ProviderSimulator, request: ModelRequest
) -> None:
    """Check that the last call left nothing and that an equal one is sent."""
    sent = len(simulator.requests)
    simulator.faults.clear()
    assert (await gateway.complete(request)).call.cache_outcome != "local_hit"
    assert len(simulator.requests) == sent + 1
    assert len(await rows(database)) <= 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stop", ["length", "refusal"])
async def test_an_answer_that_is_not_whole_is_not_kept(
    way: str, stop: Any, opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(text="I would rather", stop=stop)))
    async with opens() as gateway:
        assert (await WAYS[way](gateway, ask(model))).finish_reason == stop
        await not_kept(database, gateway, simulator, ask(model))


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_without_content_is_not_kept(
    way: str, opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    simulator.faults.script("")
    async with opens() as gateway:
        assert (await WAYS[way](gateway, ask(model))).text == ""
        await not_kept(database, gateway, simulator, ask(model))


async def test_a_truncated_answer_is_not_kept(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="truncate", after_chunks=3))
    async with opens() as gateway:
        with pytest.raises(StreamTruncated):
            await streamed(gateway, ask(model))
        await not_kept(database, gateway, simulator, ask(model))


async def test_a_failed_call_is_not_kept(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=500))
    async with opens() as gateway:
        with pytest.raises(ModelError):
            await gateway.complete(ask(model))
        await not_kept(database, gateway, simulator, ask(model))


async def test_an_answer_that_was_left_early_is_not_kept(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    async with opens() as gateway:
        async with gateway.stream(ask(model)) as stream:
            await stream.read()
        await not_kept(database, gateway, simulator, ask(model))


async def test_what_a_fallback_said_is_not_kept_for_the_model_that_was_asked(
    opens: Opens, simulator: ProviderSimulator, database: Database, ask: Ask
) -> None:
    request = ask("anthropic/claude-haiku-5-5", fallbacks=("openai/gpt-6-luna",))
    simulator.faults.add(Fault(kind="status", status=529, model="claude-haiku-5-5"))
    async with opens() as gateway:
        for way in (streamed, whole):
            simulator.faults.add(Fault(kind="status", status=529, model="claude-haiku-5-5"))
            assert (await way(gateway, request)).call.model == "openai/gpt-6-luna"
            assert await rows(database) == []
        simulator.faults.clear()
        assert (await gateway.complete(request)).call.model == "anthropic/claude-haiku-5-5"


async def test_a_very_long_answer_is_not_kept(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(bytes=LONGEST_KEPT + 1), times=2))
    async with opens() as gateway:
        for way in (streamed, whole):
            assert len((await way(gateway, ask(model, max_tokens=128_000))).text) == LONGEST_KEPT + 1
    assert await rows(database) == []


async def test_only_the_named_operations_are_kept_or_looked_up(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    async with opens(operations=("classification",)) as gateway:
        for _ in range(2):
            await gateway.complete(ask(model, operation="guidance"))
        assert await rows(database) == []
        for _ in range(2):
            await gateway.complete(ask(model, operation="classification"))
    assert [row["operation"] for row in await rows(database)] == ["classification"]
    assert len(simulator.requests) == 3


# Simulated and real answers


async def test_a_simulated_answer_is_not_kept_where_real_ones_are_expected(
    opens: Opens, simulator: ProviderSimulator, database: Database, model: str, ask: Ask
) -> None:
    async with opens(simulated=False) as gateway:
        for way in (streamed, whole, whole):
            assert (await way(gateway, ask(model))).call.cache_outcome != "local_hit"
    assert await rows(database) == []
    assert len(simulator.requests) == 3


async def test_a_simulated_answer_is_never_served_where_real_ones_are_expected(
    opens: Opens, simulator: ProviderSimulator, database: Database, ask: Ask, model: str
) -> None:
    async with opens() as gateway:
        await gateway.complete(ask(model))
    [row] = await rows(database)
    assert row["simulated"]
    async with opens(simulated=False) as gateway:
        assert (await gateway.complete(ask(model))).call.cache_outcome != "local_hit"
    # Even one that stands under the very key of a real answer.
    stored = Poisoned(row["content"])
    async with opens(simulated=False, store=stored) as gateway:
        assert (await gateway.complete(ask(model))).call.cache_outcome != "local_hit"
    assert len(simulator.requests) == 3


async def test_a_real_answer_is_neither_kept_nor_served_where_everything_is_simulated(
    opens: Opens, byte_server: Any, database: Database, ask: Ask
) -> None:
    body = b'{"id":"1","choices":[{"message":{"content":"Real."},"finish_reason":"stop"}]}'
    byte_server.answer(200, body)
    model = "openai/gpt-6-luna"
    async with opens(byte_server.base_url) as gateway:
        assert (await gateway.complete(ask(model))).text == "Real."
    assert await rows(database) == []
    async with opens(byte_server.base_url, simulated=False) as gateway:
        await gateway.complete(ask(model))
        assert (await gateway.complete(ask(model))).call.cache_outcome == "local_hit"
    [row] = await rows(database)
    assert not row["simulated"]
    async with opens(byte_server.base_url) as gateway:
        assert (await gateway.complete(ask(model))).call.cache_outcome != "local_hit"
    async with opens(byte_server.base_url, store=Poisoned(row["content"])) as gateway:
        assert (await gateway.complete(ask(model))).call.cache_outcome != "local_hit"


class Poisoned:
    """A store that has the same content under every key."""

    def __init__(self, content: str) -> None:
        self.content = content

    async def get(self, key: str) -> str | None:
        return self.content

    async def put(self, key: str, content: str, *, operation: str, model: str, simulated: bool) -> None:
        raise DatabaseUnavailableError("The disk is full.")


# What the cache must never do to a call


@pytest.mark.parametrize("way", WAYS)
async def test_a_store_that_fails_costs_one_warning_and_no_call(
    way: str,
    opens: Opens,
    database: Database,
    simulator: ProviderSimulator,
    model: str,
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await database.transaction(lambda connection: connection.execute(sa.text("DROP TABLE response_cache")))
    with caplog.at_level(logging.WARNING, logger="guidance_agent.llm"):
        async with opens() as gateway:
            answers = [await WAYS[way](gateway, ask(model, max_tokens=limit)) for limit in (500, 501, 502)]
    assert all(answer.text for answer in answers)
    assert len(simulator.requests) == 3
    [told] = caplog.records
    assert "response cache" in told.getMessage()
    assert "What is drawdown?" not in caplog.text


@pytest.mark.parametrize("content", ["", "null", "[]", '{"finish_reason": "length"}', '{"finish_reason": "stop"}'])
async def test_stored_content_that_cannot_be_read_is_a_miss(
    content: str, opens: Opens, model: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    async with opens(store=Poisoned(content)) as gateway:
        assert (await gateway.complete(ask(model))).text
    assert "response cache" in caplog.text


async def test_a_store_that_hangs_holds_up_no_call_for_long(opens: Opens, model: str, ask: Ask) -> None:
    class Hanging(Poisoned):
        async def get(self, key: str) -> str | None:
            await asyncio.Event().wait()
            return None

    began = time.monotonic()
    async with opens(store=Hanging("")) as gateway:
        assert (await gateway.complete(ask(model))).text
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancel_during_the_look_up_leaves_one_record(
    way: str, opens: Opens, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    class Waiting(Poisoned):
        def __init__(self) -> None:
            super().__init__("")
            self.asked = asyncio.Event()

        async def get(self, key: str) -> str | None:
            self.asked.set()
            await asyncio.Event().wait()
            return None

    waiting = Waiting()
    async with opens(store=waiting) as gateway:
        task = asyncio.create_task(WAYS[way](gateway, ask(model)))
        await waiting.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [call.outcome for call in calls] == ["cancelled"]
    assert len(simulator.requests) == 0


async def test_a_replay_that_is_left_early_is_recorded_as_that(
    opens: Opens, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    async with opens() as gateway:
        await gateway.complete(ask(model))
        async with gateway.stream(ask(model)) as stream:
            await stream.read()
    assert [(call.outcome, call.cache_outcome) for call in calls[1:]] == [("closed_early", "local_hit")]


async def test_a_model_that_cannot_be_called_is_the_same_error_as_without_the_cache(opens: Opens, ask: Ask) -> None:
    async with opens() as gateway:
        with pytest.raises(UnknownModelError, match="nowhere"):
            await gateway.complete(ask("nowhere/model"))


async def test_a_closed_gateway_serves_no_kept_answer(opens: Opens, model: str, ask: Ask) -> None:
    async with opens() as gateway:
        await gateway.complete(ask(model))
    with pytest.raises(RuntimeError, match="closed"):
        await gateway.complete(ask(model))


async def test_the_event_loop_is_never_blocked(opens: Opens, model: str, ask: Ask) -> None:
    async with opens() as gateway:
        await gateway.complete(ask(model))
        with blockbuster_ctx():
            for limit in (1024, 1025, 1025):
                await streamed(gateway, ask(model, max_tokens=limit))


async def test_neither_the_question_nor_the_key_is_stored(
    opens: Opens, database: Database, model: str, ask: Ask
) -> None:
    async with opens() as gateway:
        await gateway.complete(ask(model, messages=(Message("user", "I am Zebedee Fictional."),)))
    [row] = await rows(database)
    for said in ("Fictional", "sk-ant-test-1234", "sk-test-1234"):
        assert said not in str({name: value for name, value in row.items() if name != "content"})
    assert row["model"] == model

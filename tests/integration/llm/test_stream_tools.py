"""The stream tools on a model's stream over real HTTP: equal answers, true counts, and the same without await."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.errors import MidStreamError, ModelError, StreamTruncated
from guidance_agent.llm import (
    ModelGateway,
    Progress,
    collect,
    iterate_sync,
    partial_text,
    rechunk,
    to_file,
    with_callbacks,
)
from guidance_agent.llm.messages import ModelCall, ModelRequest, ToolSpec
from guidance_agent.provider_simulator import Fault, ProviderSimulator, ProviderSimulatorProcess, Script
from guidance_agent.settings import Settings
from tests.conformance.subjects import SUBJECTS, Subject, open_gateway

Ask = Callable[..., ModelRequest]

TOOL = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "integer"}}})


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
async def test_a_collected_stream_is_what_the_whole_answer_is(
    subject: Subject, simulator: ProviderSimulator, ask: Ask
) -> None:
    said = Script(text="A quarter is tax-free.", reasoning="Age first.", tool="figures", arguments={"year": 2026})
    simulator.faults.add(Fault(kind="script", script=said, times=2))
    async with open_gateway(subject, simulator.base_url) as gateway:
        request = ask(subject.model, tools=(TOOL,))
        streamed = await collect(gateway.stream(request))
        whole = await gateway.complete(request)
    assert (streamed.text, streamed.reasoning) == (whole.text, whole.reasoning)
    assert streamed.finish_reason == whole.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in streamed.tool_calls] == [("figures", '{"year": 2026}')]
    assert streamed.call.outcome == "completed"
    assert streamed.usage == whole.usage
    assert streamed.call.timing.first_token is not None


async def test_tools_on_top_of_each_other_are_still_the_answer_and_its_record(
    gateway: ModelGateway, model: str, ask: Ask, tmp_path: Path
) -> None:
    whole = await gateway.complete(ask(model))
    told: list[Progress] = []
    answer = await collect(with_callbacks(gateway.stream(ask(model)), on_progress=told.append))
    assert answer.text == whole.text
    assert answer.call.cost is not None
    watched = with_callbacks(gateway.stream(ask(model)), on_progress=told.append)
    assert await collect(rechunk(rechunk(watched, words=2), characters=30)) == whole.text
    written = await to_file(with_callbacks(gateway.stream(ask(model))), tmp_path / "a.txt")
    assert written.path.read_text() == whole.text
    assert written.call is not None
    assert written.call.outcome == "completed"


async def test_progress_ends_with_the_providers_own_count(gateway: ModelGateway, model: str, ask: Ask) -> None:
    told: list[Progress] = []
    answer = await collect(with_callbacks(gateway.stream(ask(model)), on_progress=told.append, interval=0))
    first, last = told[0], told[-1]
    assert first.estimated
    assert first.tokens >= 1
    assert first.first_token is not None
    assert (last.tokens, last.estimated, last.finished) == (answer.usage.output_tokens, False, True)
    assert last.characters == len(answer.text)
    assert last.chunks == answer.call.timing.chunks
    assert last.tokens_per_second is not None
    assert all(one.characters <= other.characters for one, other in itertools.pairwise(told))
    # The estimate on the way is of the same size as the count at the end.
    assert told[-2].tokens == pytest.approx(last.tokens, rel=0.5)


@pytest.mark.parametrize("fault", ["truncate", "drop", "error_event"])
async def test_a_broken_answer_is_an_error_and_its_text_is_in_the_part(
    fault: Any, gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask, tmp_path: Path
) -> None:
    whole = (await gateway.complete(ask(model))).text
    simulator.faults.add(Fault(kind=fault, after_chunks=5, times=3))
    for stream in (gateway.stream(ask(model)), rechunk(gateway.stream(ask(model)), sentences=1)):
        with pytest.raises(ModelError):
            await collect(stream)
    with pytest.raises(ModelError) as caught:
        await to_file(gateway.stream(ask(model)), tmp_path / "a.txt")
    assert isinstance(caught.value, StreamTruncated | MidStreamError)
    begun = await partial_text(tmp_path / "a.txt")
    assert len(begun) > 10
    assert whole.startswith(begun)
    assert "a.txt.part" in "".join(caught.value.__notes__)


# Without await


@pytest.fixture(scope="module")
def far() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--any-model", "--instant", "--no-bodies"]) as running:
        yield running


def far_gateway(far: ProviderSimulatorProcess, calls: list[ModelCall]) -> ModelGateway:
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1234", "ANTHROPIC_BASE_URL": far.base_url}
    return ModelGateway(Settings.load(), environ=environ, sinks=[calls])  # type: ignore[list-item]


def sync_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("guidance-agent")]


def test_read_without_await_a_stream_is_the_same(
    far: ProviderSimulatorProcess, calls: list[ModelCall], ask: Ask
) -> None:
    request = ask("anthropic/claude-haiku-5-5")

    async def expected() -> list[str]:
        async with far_gateway(far, calls) as gateway:
            return [piece async for piece in rechunk(gateway.stream(request), words=4, max_delay=None)]

    pieces = asyncio.run(expected())
    assert len(pieces) > 5
    for opened in (
        lambda gateway: gateway.stream(request),
        lambda gateway: with_callbacks(gateway.stream(request)),
        lambda gateway: rechunk(gateway.stream(request), words=4, max_delay=None),
    ):
        gateway = far_gateway(far, calls)
        items = list(iterate_sync(lambda: opened(gateway), owner=gateway))  # noqa: B023 - read before the next round
        assert "".join(getattr(item, "text", item) for item in items) == "".join(pieces)
    assert sync_threads() == []
    assert {call.outcome for call in calls} == {"completed"}


@pytest.mark.parametrize("way", ["break", "close", "raise"])
def test_leaving_a_sync_iterator_closes_the_socket_before_it_returns(
    way: str, far: ProviderSimulatorProcess, calls: list[ModelCall], ask: Ask
) -> None:
    gateway = far_gateway(far, calls)
    items = iterate_sync(
        lambda: rechunk(gateway.stream(ask("anthropic/script-6000x10", max_tokens=60_000)), words=2), owner=gateway
    )
    next(items)
    began = time.monotonic()
    if way == "close":
        items.close()  # type: ignore[attr-defined]
    elif way == "break":
        for _ in items:
            break
        del items
    else:
        with pytest.raises(LookupError):
            for _ in items:
                raise LookupError
        del items
    gc.collect()
    assert time.monotonic() - began < 10.0  # the answer itself goes on for a minute
    assert [call.outcome for call in calls] == ["closed_early"]
    assert sync_threads() == []
    assert far.wait_for(1)[-1]["client_closed_at"] is not None


def test_an_error_comes_out_of_the_sync_iterator_with_its_own_type(calls: list[ModelCall], ask: Ask) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1234", "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}
    gateway = ModelGateway(Settings.load(retry={"max_attempts": 1}), environ=environ, sinks=[calls])  # type: ignore[list-item]
    with pytest.raises(ModelError):
        list(iterate_sync(lambda: gateway.stream(ask("anthropic/claude-haiku-5-5")), owner=gateway))
    assert sync_threads() == []


def test_a_stream_without_an_owner_is_closed_when_it_is_left() -> None:
    class Letters:
        closed = False

        def __aiter__(self) -> Letters:
            return self

        async def __anext__(self) -> str:
            return "a"

        async def aclose(self) -> None:
            self.closed = True

    letters = Letters()
    for letter in iterate_sync(letters):
        assert letter == "a"
        break
    assert letters.closed


def test_a_stream_without_an_owner_is_read_without_await() -> None:
    async def numbers() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0)
        yield "b"

    assert list(iterate_sync(numbers())) == ["a", "b"]
    assert list(iterate_sync(rechunk(numbers(), characters=1))) == ["a", "b"]

"""However a caller leaves an answer that LiteLLM streams, the provider sees the socket close within half a second."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest
from blockbuster import BlockBuster

from guidance_agent.llm.messages import Delta, Message, ModelRequest
from guidance_agent.llm.providers.base import CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports import litellm_import
from guidance_agent.llm.transports.base import PreparedCall, TransportStream
from guidance_agent.llm.transports.litellm import LiteLLMTransport
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings, TimeoutSettings

# What pydantic says about LiteLLM's own models, when it builds and reads them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
PROMISED_SECONDS = 0.5
BOTH = pytest.mark.parametrize("provider", ["anthropic", "openai"])
Leave = Callable[["Answer"], Awaitable[None]]


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings(chunk_interval=0.02)) as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[LiteLLMTransport]:
    opened = LiteLLMTransport(Settings())
    yield opened
    await opened.aclose()


def prepared(simulator: ProviderSimulator, provider: str, model: str = "script-500x20") -> PreparedCall:
    wire: Any = provider
    return PreparedCall(
        request=ModelRequest(model=f"{provider}/{model}", messages=(Message("user", "Tell me all."),)),
        endpoint=Endpoint(
            provider=provider,
            base_url=simulator.base_url + ("/v1" if provider == "openai" else ""),
            wire=wire,
            api_key="sk-test",
        ),
        traits=ModelTraits(),
        plan=CachePlan(caching="none"),
        timeouts=TimeoutSettings(),
    )


class Answer:
    """An open answer as a caller holds it, with its text begun."""

    def __init__(self, stream: TransportStream) -> None:
        self.stream: TransportStream | None = stream

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        assert self.stream is not None
        try:
            while (arrived := await self.stream.read()) is not None:
                for delta in arrived:
                    yield delta
        finally:
            await self.stream.aclose()

    async def read_on(self) -> None:
        async for _ in self.deltas():
            pass


async def until(happened: Callable[[], bool], what: str) -> None:
    """Look again and again, for at most twice the promised time."""
    deadline = time.monotonic() + 2 * PROMISED_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen"
        await asyncio.sleep(0.005)


async def closed_by_client(simulator: ProviderSimulator, since: float) -> float:
    """Seconds until the simulator saw the client close the socket of the last request."""
    record = simulator.requests[-1]
    await until(lambda: record.client_closed_at is not None, "the close")
    assert not record.finished
    return time.monotonic() - since


async def _break_and_close(answer: Answer) -> None:
    async with aclosing(answer.deltas()) as deltas:
        async for _ in deltas:
            break


async def _close(answer: Answer) -> None:
    assert answer.stream is not None
    await answer.stream.aclose()
    await answer.stream.aclose()


async def _raise_in_the_loop(answer: Answer) -> None:
    with suppress(LookupError):
        async with aclosing(answer.deltas()) as deltas:
            async for _ in deltas:
                raise LookupError


async def _cancel(answer: Answer) -> None:
    task = asyncio.create_task(answer.read_on())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancel_twice(answer: Answer) -> None:
    task = asyncio.create_task(answer.read_on())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _deadline(answer: Answer) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await answer.read_on()


async def _close_while_another_task_reads(answer: Answer) -> None:
    assert answer.stream is not None
    task = asyncio.create_task(answer.read_on())
    await asyncio.sleep(0.05)
    await answer.stream.aclose()
    await task


async def _drop(answer: Answer) -> None:
    answer.stream = None


@BOTH
@pytest.mark.parametrize(
    "leave",
    [
        _break_and_close,
        _close,
        _raise_in_the_loop,
        _cancel,
        _cancel_twice,
        _deadline,
        _close_while_another_task_reads,
        _drop,
    ],
    ids=lambda leave: leave.__name__.strip("_"),
)
async def test_leaving_an_answer_closes_its_socket(
    provider: str, leave: Leave, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    stream = await transport.open(prepared(simulator, provider))
    assert await stream.read()
    answer = Answer(stream)
    del stream
    began = time.monotonic()
    await leave(answer)
    assert await closed_by_client(simulator, began) < PROMISED_SECONDS


@BOTH
async def test_cancelling_before_the_answer_begins_closes_the_socket(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    await Answer(await transport.open(prepared(simulator, provider, "script-1x1"))).read_on()
    simulator.faults.add(Fault(kind="slow_headers"))
    task = asyncio.create_task(transport.open(prepared(simulator, provider)))
    await until(lambda: len(simulator.requests) == 2, "the request")
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await closed_by_client(simulator, began) < PROMISED_SECONDS


async def _check_whole_answer(provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport) -> None:
    await Answer(await transport.open(prepared(simulator, provider, "script-5x1"))).read_on()
    record = simulator.requests[-1]
    await until(lambda: record.finished, "the end of the response")
    assert record.text_chunks == 5


@BOTH
async def test_a_call_cancelled_while_litellm_is_imported_leaves_the_next_one_whole(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm_import, "_loaded", None)
    with litellm_import._lock:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await transport.open(prepared(simulator, provider))
        assert len(simulator.requests) == 0
    await _check_whole_answer(provider, simulator, transport)


@BOTH
async def test_a_call_cancelled_before_its_headers_leaves_the_next_one_whole(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    await _check_whole_answer(provider, simulator, transport)
    simulator.faults.add(Fault(kind="slow_headers"))
    task = asyncio.create_task(transport.open(prepared(simulator, provider)))
    await until(lambda: len(simulator.requests) == 2, "the request")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _check_whole_answer(provider, simulator, transport)


@BOTH
async def test_a_call_cancelled_in_mid_stream_leaves_the_next_one_whole(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    stream = await transport.open(prepared(simulator, provider))
    assert await stream.read()
    await _deadline(Answer(stream))
    await _check_whole_answer(provider, simulator, transport)


@BOTH
async def test_an_answer_is_whole_where_warnings_are_errors_and_the_filters_of_the_import_are_lost(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    await litellm_import.load()
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        await _check_whole_answer(provider, simulator, transport)


@BOTH
async def test_an_answer_read_to_its_end_was_not_cut_off(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    answer = Answer(await transport.open(prepared(simulator, provider, "script-5x1")))
    await answer.read_on()
    record = simulator.requests[-1]
    await until(lambda: record.finished, "the end of the response")
    assert record.text_chunks == 5


@BOTH
async def test_many_answers_at_a_time_all_close(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    streams = await asyncio.gather(*(transport.open(prepared(simulator, provider)) for _ in range(20)))
    for stream in streams:
        assert await stream.read()
    await asyncio.gather(*(stream.aclose() for stream in streams))
    await until(lambda: all(record.client_closed_at for record in simulator.requests), "every close")
    assert len(simulator.requests) == 20


@BOTH
async def test_a_warm_stream_does_not_block_the_event_loop(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    call = prepared(simulator, provider, "script-20x1")
    await Answer(await transport.open(call)).read_on()
    detector = BlockBuster()
    detector.activate()
    try:
        await Answer(await transport.open(call)).read_on()
    finally:
        detector.deactivate()


async def test_a_closed_transport_leaves_no_task_and_opens_again(simulator: ProviderSimulator) -> None:
    before = asyncio.all_tasks()
    for _ in range(2):
        transport = LiteLLMTransport(Settings())
        for _ in range(2):
            for provider in ("anthropic", "openai"):
                await Answer(await transport.open(prepared(simulator, provider, "script-3x1"))).read_on()
            await transport.aclose()
        await transport.aclose()
    del transport
    gc.collect()
    left = [task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)]
    assert left == []

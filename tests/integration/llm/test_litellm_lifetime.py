"""LiteLLM in a process that is not its own: imported late, with warnings as errors, and closed without a trace."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.providers.base import CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports import litellm_import
from guidance_agent.llm.transports.base import PreparedCall, TransportStream
from guidance_agent.llm.transports.litellm import LiteLLMTransport
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings, TimeoutSettings

# What pydantic says about LiteLLM's own models, when it builds and reads them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
BOTH = pytest.mark.parametrize("provider", ["anthropic", "openai"])


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


async def read_on(stream: TransportStream) -> None:
    while await stream.read() is not None:
        pass
    await stream.aclose()


async def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen"
        await asyncio.sleep(0.005)


async def _check_whole_answer(provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport) -> None:
    await read_on(await transport.open(prepared(simulator, provider, "script-5x1")))
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
async def test_an_answer_is_whole_where_warnings_are_errors_and_the_filters_of_the_import_are_lost(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    await litellm_import.load()
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        await _check_whole_answer(provider, simulator, transport)


async def test_a_closed_transport_leaves_no_task_and_opens_again(simulator: ProviderSimulator) -> None:
    before = asyncio.all_tasks()
    for _ in range(2):
        transport = LiteLLMTransport(Settings())
        for _ in range(2):
            for provider in ("anthropic", "openai"):
                await read_on(await transport.open(prepared(simulator, provider, "script-3x1")))
            await transport.aclose()
        await transport.aclose()
    del transport
    gc.collect()
    left = [task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)]
    assert left == []

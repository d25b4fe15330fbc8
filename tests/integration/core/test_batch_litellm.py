"""Batches through LiteLLM: the same jobs, with what LiteLLM does by itself switched off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor, BatchStatus
from guidance_agent.core.database import Database
from guidance_agent.errors import BatchTimeoutError
from guidance_agent.llm.transports.batches.litellm import LiteLLMBatches
from guidance_agent.llm.transports.batches.registry import BatchWires
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from guidance_agent.settings import Settings
from tests.integration.core.batch_desk import (
    APPLIES,
    FAST,
    MODELS,
    applied,
    gateway_before,
    make_ledger,
    options,
    requests,
)
from tests.integration.core.batch_fixtures import provider, seen

__all__ = ["provider"]

pytestmark = [
    pytest.mark.only_on("sqlite"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
VLLM = "hosted_vllm/gpt-6-luna"
Open = Callable[..., BatchProcessor]


@pytest.fixture
async def open_processor(database: Database, provider: ProviderSimulator) -> AsyncIterator[Open]:
    """Make processors that go through LiteLLM."""
    await make_ledger(database)
    vllm = {"hosted_vllm": {"base_url": f"{provider.base_url}/v1", "api_key": "sk-vllm"}}
    async with AsyncExitStack() as stack:

        def make(options: BatchOptions = FAST) -> BatchProcessor:
            gateway = gateway_before(provider.base_url, transport="litellm", providers=vllm)
            made = BatchProcessor(database, gateway, kinds=[APPLIES], options=options)
            stack.push_async_callback(gateway.aclose)
            stack.push_async_callback(made.aclose)
            return made

        yield make


async def run(processor: BatchProcessor, model: str, count: int = 12) -> BatchStatus:
    handle = await processor.submit(requests(count), kind=APPLIES.name, model=model)
    return await processor.wait(handle.job_key, timeout=30)


def operations(provider: ProviderSimulator) -> list[str]:
    return [request.operation.partition(".")[2] for request in provider.requests]


@pytest.mark.parametrize("model", [MODELS["openai"], VLLM])
async def test_a_job_goes_through_litellm_and_its_results_are_downloaded_once(
    open_processor: Open, provider: ProviderSimulator, database: Database, model: str
) -> None:
    processor = open_processor()
    status = await run(processor, model)
    await processor.aclose()
    assert (status.outcomes, status.applied) == ({"succeeded": 12}, 12)
    assert len(await applied(database)) == 12
    found = [result async for result in processor.results(status.job_key)]
    assert all(result.response and result.usage and result.simulated for result in found)
    assert {request.headers["user-agent"].partition("/")[0] for request in provider.requests} == {"AsyncOpenAI"}
    did = operations(provider)
    assert (did.count("files.create"), did.count("batches.create"), did.count("files.content")) == (1, 1, 1)


async def test_a_submission_through_litellm_whose_answer_was_lost_is_found_and_not_sent_again(
    open_processor: Open, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="answer_lost", operation="batches.create"))
    status = await run(open_processor(), VLLM)
    assert status.batches[0].notes["adopted"] is True
    assert ((await seen(provider))["requests"], status.outcomes) == (12, {"succeeded": 12})


async def test_a_submission_that_is_refused_through_litellm_is_tried_again_once_at_a_time(
    open_processor: Open, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="status", status=429, operation="batches.create", times=2))
    status = await run(open_processor(), VLLM, 3)
    assert status.outcomes == {"succeeded": 3}
    assert operations(provider).count("batches.create") == 3


async def test_failed_items_and_results_that_break_off_are_told_through_litellm(
    open_processor: Open, provider: ProviderSimulator
) -> None:
    provider.faults.add(
        Fault(kind="status", status=400, operation="batches.item", times=2),
        Fault(kind="truncate", operation="files.content", after_chunks=3),
    )
    status = await run(open_processor(), VLLM)
    assert status.outcomes == {"succeeded": 10, "errored_fatal": 2}
    assert (await seen(provider))["repeated"] == {}


async def test_a_job_through_litellm_is_cancelled(open_processor: Open, provider: ProviderSimulator) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    processor = open_processor()
    handle = await processor.submit(requests(6), model=VLLM)
    await processor.cancel(handle.job_key)
    status = await processor.wait(handle.job_key, timeout=30)
    assert status.outcomes.get("canceled", 0) > 3


async def test_where_batches_are_not_listed_an_unclear_submission_waits_for_a_person(
    open_processor: Open, provider: ProviderSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LiteLLMBatches.__init__.__globals__["_WAYS"], "hosted_vllm", LiteLLMBatches("mistral")._way)
    provider.faults.add(Fault(kind="answer_lost", operation="batches.create"))
    processor = open_processor(options(longest_wait=0.01))
    handle = await processor.submit(requests(2), model=VLLM)
    with pytest.raises(BatchTimeoutError):
        await processor.wait(handle.job_key, timeout=0.3)
    status = await processor.status(handle.job_key)
    assert (status.batches[0].state, status.needs_person) == ("submitting", True)
    assert "not listed" in (status.batches[0].reason or "")
    assert operations(provider).count("batches.create") == 1


@pytest.mark.parametrize(
    ("transport", "name", "wire", "home"),
    [
        ("auto", "azure", None, "litellm"),
        ("auto", "mistral", "openai", "litellm"),
        ("native", "mistral", "openai", "openai"),
        ("auto", "groq", "openai", "openai"),
        ("litellm", "openai", "openai", "litellm"),
        ("litellm", "anthropic", "anthropic", "anthropic"),
    ],
)
async def test_the_way_follows_from_provider_and_setting(transport: Any, name: str, wire: Any, home: str) -> None:
    from guidance_agent.llm.providers.base import Endpoint

    wires = BatchWires(Settings.load(transport=transport))
    found = await wires.of(Endpoint(provider=name, base_url="http://127.0.0.1:9", wire=wire))
    assert type(found).__module__.rpartition(".")[2] == home
    await wires.aclose()

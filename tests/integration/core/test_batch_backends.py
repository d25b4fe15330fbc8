"""One word decides who answers a job: the provider's batch API, or calls right away. Everything else is the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from guidance_agent.core.batch_processing import BatchProcessor, BatchRequest
from guidance_agent.core.database import Database
from guidance_agent.llm.structured import answer_schema
from guidance_agent.provider_simulator import ProviderSimulator
from tests.integration.core.batch_desk import FAST, gateway_before
from tests.integration.core.batch_fixtures import provider

__all__ = ["provider"]

MODEL = "openai/gpt-6-luna"


class Topic(BaseModel):
    topic: str


REQUESTS = [
    *[
        BatchRequest(user_message=f"What is drawdown {n}?", custom_id=f"q-{n}", metadata={"n": str(n)})
        for n in range(20)
    ],
    BatchRequest(user_message="Which topic?", custom_id="typed", response_schema=answer_schema(Topic)),
]


@pytest.mark.parametrize("backend", ["provider", "concurrent"])
async def test_a_job_switches_with_one_word(backend: Any, database: Database, provider: ProviderSimulator) -> None:
    async with (
        gateway_before(provider.base_url) as gateway,
        BatchProcessor(database, gateway, options=FAST, backend=backend) as processor,
    ):
        handle = await processor.submit(REQUESTS, model=MODEL)
        status = await processor.wait(handle.job_key, timeout=20)
        results = [result async for result in processor.results(handle.job_key)]
        assert [each.job_key for each in await processor.list()] == [handle.job_key]
    assert status.outcomes == {"succeeded": len(REQUESTS)}
    assert [result.custom_id for result in results] == [request.custom_id for request in REQUESTS]
    assert results[3].metadata == {"n": "3"}
    assert results[-1].parsed.keys() == {"topic"}
    for result in results:
        assert result.success
        assert result.cost is not None
        assert result.interactive_cost is not None
        share = 1.0 if backend == "concurrent" else 0.5
        assert result.cost == pytest.approx(result.interactive_cost * share)
        assert result.route == ("online" if backend == "concurrent" else "batch")


async def test_a_concurrent_job_is_ended_by_whoever_resumes_it(database: Database, provider: ProviderSimulator) -> None:
    class Died(Exception):
        pass

    def die(point: str) -> None:
        if point == "collecting":
            raise Died

    async with gateway_before(provider.base_url) as gateway:
        first = BatchProcessor(database, gateway, options=FAST, backend="concurrent", crash=die)
        with pytest.raises(Died):
            await first.submit(REQUESTS, model=MODEL, job_key="tonight")
        answered = len(provider.requests)
        assert 0 < answered < len(REQUESTS)
        second = BatchProcessor(database, gateway, options=FAST)
        status = await second.wait("tonight", timeout=20)
        assert status.outcomes == {"succeeded": len(REQUESTS)}
        assert len(provider.requests) == len(REQUESTS)
        await second.aclose()
        await first.aclose()


async def test_a_concurrent_job_that_is_cancelled_asks_nothing_more(
    database: Database, provider: ProviderSimulator
) -> None:
    begun = asyncio.Event()

    def note(point: str) -> None:
        if point == "collecting":
            begun.set()

    many = [BatchRequest(user_message=f"What is drawdown {n}?", max_tokens=20) for n in range(200)]
    async with (
        gateway_before(provider.base_url) as gateway,
        BatchProcessor(database, gateway, options=FAST, backend="concurrent", crash=note) as first,
        BatchProcessor(database, gateway, options=FAST) as second,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(first.submit(many, model=MODEL, job_key="tonight"))
        await begun.wait()
        await second.cancel("tonight")
        status = await second.wait("tonight", timeout=20)
        assert status.outcomes["canceled"] == len(many) - len(provider.requests) > 0
        assert status.outcomes["succeeded"] == len(provider.requests)

"""Limits at the gateway, against a simulator that enforces them: calls queue instead of failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from guidance_agent.errors import LimitWaitError, RateLimitedError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import ModelRequest
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.llm.conftest import CallList

Open = Callable[..., ModelGateway]
Ask = Callable[..., ModelRequest]


@pytest.fixture
async def strict() -> AsyncIterator[ProviderSimulator]:
    """Allows 1,200 requests a minute: the first 1,200 at once, then 20 a second."""
    async with ProviderSimulator(
        SimulatorSettings.instant().but(requests_per_minute=1_200, answer_tokens=5)
    ) as running:
        yield running


async def queued(gateway: ModelGateway, model: str, calls: int) -> None:
    async with asyncio.timeout(10):
        while gateway.limiter.status[model].chat < calls:  # noqa: ASYNC110 - a queue has no event for this
            await asyncio.sleep(0.001)


def limits(model: str, **fields: Any) -> dict[str, Any]:
    return {model.partition("/")[0]: {"limits": fields}}


async def test_calls_beyond_the_limit_wait_and_their_records_say_how_long(
    open_gateway: Open, simulator: ProviderSimulator, ask: Ask, model: str, calls: CallList
) -> None:
    settings = limits(model, requests_per_minute=1_200)
    gateway = open_gateway(simulator.base_url, providers=settings, limits={"burst": 0.2})
    await asyncio.gather(*(gateway.complete(ask(model)) for _ in range(14)))
    assert [call.outcome for call in calls] == ["completed"] * 14
    waits = sorted(call.limit_wait for call in calls)
    assert waits[:4] == [0.0] * 4
    assert 0.4 <= waits[-1] < 5
    assert gateway.limiter.status[model].granted == 14


async def test_a_stream_waits_too_and_its_first_token_counts_from_the_question(
    open_gateway: Open, simulator: ProviderSimulator, ask: Ask, model: str, calls: CallList
) -> None:
    settings = limits(model, requests_per_minute=300)
    gateway = open_gateway(simulator.base_url, providers=settings, limits={"burst": 0.1})
    for _ in range(2):
        async with gateway.stream(ask(model)) as stream:
            async for _ in stream:
                pass
    assert calls[1].timing.first_token is not None
    assert calls[1].timing.first_token >= calls[1].limit_wait > 0.1


async def test_a_wait_beyond_the_deadline_is_an_error_at_once_and_a_fallback_answers(
    open_gateway: Open, simulator: ProviderSimulator, ask: Ask, calls: CallList
) -> None:
    first, other = "anthropic/claude-haiku-5-5", "openai/gpt-6-luna"
    gateway = open_gateway(
        simulator.base_url, providers=limits(first, requests_per_minute=1), retry={"deadline": 2, "max_attempts": 1}
    )
    await gateway.complete(ask(first))
    with pytest.raises(LimitWaitError, match="nothing was sent"):
        await gateway.complete(ask(first))
    answer = await gateway.complete(ask(first, fallbacks=(other,)))
    assert answer.call.model == other
    assert [(call.outcome, call.attempts) for call in calls] == [
        ("completed", 1),
        ("error:LimitWaitError", 0),
        ("completed", 1),
    ]


async def test_a_cancelled_wait_leaves_the_limit_to_the_others(
    open_gateway: Open, simulator: ProviderSimulator, ask: Ask, model: str, calls: CallList
) -> None:
    gateway = open_gateway(simulator.base_url, providers=limits(model, requests_per_minute=120), limits={"burst": 0.1})
    await gateway.complete(ask(model))
    waiting = [asyncio.create_task(gateway.complete(ask(model))) for _ in range(8)]
    await queued(gateway, model, 8)
    for task in waiting[:7]:
        task.cancel()
    async with asyncio.timeout(1.5):
        await waiting[7]
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [call.outcome for call in calls].count("cancelled") == 7


async def test_the_first_refusal_teaches_the_limit_and_there_is_no_second_episode(
    open_gateway: Open, strict: ProviderSimulator, ask: Ask, model: str, calls: CallList
) -> None:
    gateway = open_gateway(strict.base_url, retry={"max_attempts": 8, "deadline": 30}, limits={"burst": 1})
    strict.faults.add(Fault(kind="status", status=429, times=3, retry_after=0.2))
    await asyncio.gather(*(gateway.complete(ask(model)) for _ in range(10)))
    assert {call.outcome for call in calls} == {"completed"}
    assert sum(call.rate_limited for call in calls) == 3
    assert model in gateway.limiter.status


async def test_a_refusal_limits_nothing_where_the_settings_say_so(
    open_gateway: Open, simulator: ProviderSimulator, ask: Ask, model: str
) -> None:
    gateway = open_gateway(simulator.base_url, limits={"adapt": False})
    simulator.faults.add(Fault(kind="status", status=429, times=1))
    with pytest.raises(RateLimitedError):
        await gateway.complete(ask(model))
    assert gateway.limiter.status == {}


async def test_closing_the_gateway_ends_every_wait(
    open_gateway: Open, simulator: ProviderSimulator, ask: Ask, model: str
) -> None:
    gateway = open_gateway(simulator.base_url, providers=limits(model, requests_per_minute=6), limits={"burst": 1})
    await gateway.complete(ask(model))
    waiting = asyncio.create_task(gateway.complete(ask(model)))
    await queued(gateway, model, 1)
    async with asyncio.timeout(1):
        await gateway.aclose()
        with pytest.raises(LimitWaitError, match="gateway was closed"):
            await waiting

"""Three gateways with a database connection each share a limit that the provider enforces."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.limit_store import LimitTable
from guidance_agent.errors import RateLimitedError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings

MODEL = "anthropic/claude-haiku-5-5"
REQUEST = ModelRequest(model=MODEL, messages=(Message("user", "Hello?"),), max_tokens=16)
PER_MINUTE = 120


class Calls(list[ModelCall]):
    def record(self, call: ModelCall) -> None:
        self.append(call)


async def use_up(base_url: str) -> None:
    """Make calls until the provider refuses one."""
    provider = {"anthropic": {"base_url": base_url, "api_key": "sk-test-1234"}}
    settings = Settings.load(providers=provider, limits={"adapt": False}, retry={"max_attempts": 1})
    async with ModelGateway(settings, environ={}) as gateway:
        with pytest.raises(RateLimitedError):
            while True:
                await asyncio.gather(*(gateway.complete(REQUEST) for _ in range(20)))


@pytest.mark.only_on("sqlite")
async def test_a_used_up_limit_refuses_no_call_twice_and_then_the_calls_keep_to_it(settings: Settings) -> None:
    calls, clock = Calls(), SystemClock()
    strict = SimulatorSettings.instant().but(requests_per_minute=PER_MINUTE)
    async with ProviderSimulator(strict) as simulator, AsyncExitStack() as stack:
        await use_up(simulator.base_url)
        limits = {"requests_per_minute": PER_MINUTE}
        provider = {"base_url": simulator.base_url, "api_key": "sk-test-1234", "limits": limits}
        own = Settings.load(providers={"anthropic": provider}, limits={"burst": 1}, retry={"max_attempts": 4})
        tables, gateways = [], []
        for _ in range(3):
            tables.append(LimitTable(await stack.enter_async_context(Database(database_url(settings))), clock))
            gateway = ModelGateway(own, environ={}, clock=clock, sinks=[calls], limits=tables[-1])
            gateways.append(await stack.enter_async_context(gateway))
        await asyncio.gather(*(gateways[number % 3].complete(REQUEST) for number in range(6)))
        [(state, _)] = (await tables[0].states()).values()
    assert [call.outcome for call in calls] == ["completed"] * 6
    # What goes at once, before anybody knows, may be refused; on a busy machine the limit has refilled for it by then.
    assert state.episodes <= 1
    assert max(call.rate_limited for call in calls) <= 1
    assert sum(call.rate_limited for call in calls) <= 2

"""Each label of a call's cache plan, provoked at a provider over real HTTP, on all three ways of caching."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
import pytest_asyncio

from guidance_agent.core.clock import SystemClock
from guidance_agent.errors import ModelError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest, ToolSpec
from guidance_agent.provider_simulator import Fault, ManualClock, ProviderSimulator, Script, SimulatorSettings
from guidance_agent.settings import Settings
from tests.integration.llm.conftest import KEYS

CLAUDE, GPT_BREAKPOINTS, GPT_PREFIX = "anthropic/claude-sonnet-5-5", "openai/gpt-6-sol", "openai/gpt-5.5"
LIFE = {CLAUDE: 3_600.0, GPT_BREAKPOINTS: 1_800.0, GPT_PREFIX: 300.0}
EVERY_WAY = pytest.mark.parametrize("model", [CLAUDE, GPT_BREAKPOINTS, GPT_PREFIX])


class SharedClock(SystemClock):
    """The gateway's clock, moved together with the provider's."""

    def __init__(self) -> None:
        self.provider = ManualClock()

    def advance(self, seconds: float) -> None:
        self.provider.advance(seconds)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.provider.now(), UTC)

    def today(self) -> date:
        return self.now().date()

    def monotonic(self) -> float:
        return self.provider.now()


class Provider:
    """A simulator with a clock that is moved by hand, and a gateway before it that shares the clock."""

    def __init__(self, simulator: ProviderSimulator, gateway: ModelGateway, clock: SharedClock) -> None:
        self.simulator = simulator
        self.gateway = gateway
        self.clock = clock

    async def ask(self, request: ModelRequest, *, after: float = 10.0) -> ModelCall:
        self.clock.advance(after)
        async with self.gateway.stream(request) as stream:
            while await stream.read() is not None:
                pass
        assert stream.call is not None
        return stream.call


@pytest_asyncio.fixture
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    """A fresh provider; an indirect parameter holds settings of the simulator."""
    clock = SharedClock()
    settings = SimulatorSettings.instant(seed=7).but(**getattr(request, "param", {}))
    async with ProviderSimulator(settings, clock=clock.provider) as simulator:
        base_url = simulator.base_url
        environ = KEYS | {"ANTHROPIC_BASE_URL": base_url, "OPENAI_BASE_URL": f"{base_url}/v1"}
        loaded = Settings.load(retry={"max_attempts": 1})
        async with ModelGateway(loaded, environ=environ, clock=clock) as gateway:
            yield Provider(simulator, gateway, clock)


def turn(model: str, number: int, *, line: str = "c-1", size: int = 700, **texts: str) -> ModelRequest:
    """The request of a consultation's turn; keywords replace the text that a part repeats."""
    said = {
        "conduct": "conduct",
        "requirements": "rule",
        "customer": f"customer {line}",
        "conversation": "answer",
        **texts,
    }
    history = [
        message
        for past in range(number)
        for message in (Message("user", f"Question {past}?"), Message("assistant", f"{said['conversation']} " * 200))
    ]
    if history:
        history[-1] = replace(history[-1], part="conversation")
    return ModelRequest(
        model=model,
        messages=(
            Message("system", f"{said['conduct']} " * size, part="conduct"),
            Message("system", f"{said['requirements']} " * size * 2, part="requirements"),
            Message("system", f"{said['customer']} " * 120, part="customer"),
            *history,
            Message("user", f"Question {number}?"),
        ),
        max_tokens=64,
        metadata={"consultation_id": line},
    )


def tokens(call: ModelCall) -> tuple[int, int]:
    assert call.usage is not None
    return call.usage.cache_read_tokens, call.usage.cache_write_tokens


@EVERY_WAY
async def test_first_write_then_hit(provider: Provider, model: str) -> None:
    first = await provider.ask(turn(model, 0))
    assert first.cache_outcome == "first_write"
    second = await provider.ask(turn(model, 1))
    assert second.cache_outcome == "hit"
    assert tokens(second)[0] > 2_000
    assert {second.cache_use[part] for part in ("conduct", "requirements", "customer")} == {"read"}
    another = await provider.ask(turn(model, 0, line="c-2") if model == CLAUDE else turn(model, 2))
    assert another.cache_outcome == "hit"


CHANGES: dict[str, dict[str, Any]] = {
    "conduct": {"conduct": "other"},
    "requirements": {"requirements": "other"},
    "customer": {"customer": "other"},
    "conversation": {"conversation": "rewritten"},
}


@EVERY_WAY
@pytest.mark.parametrize("part", sorted(CHANGES))
async def test_part_changed_names_the_part(provider: Provider, model: str, part: str) -> None:
    await provider.ask(turn(model, 0))
    unchanged = await provider.ask(turn(model, 1))
    changed = await provider.ask(turn(model, 2, **CHANGES[part]))
    assert (unchanged.cache_outcome, changed.cache_outcome) == ("hit", f"part_changed:{part}")
    assert changed.cache_use[part] != "read"
    assert (await provider.ask(turn(model, 3, **CHANGES[part]))).cache_outcome == "hit"


@EVERY_WAY
async def test_part_changed_names_what_is_sent_before_the_messages(provider: Provider, model: str) -> None:
    tool = ToolSpec("lookup", "Looks a figure up.", {"type": "object", "properties": {}})
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    await provider.ask(turn(model, 0))
    with_tool = await provider.ask(replace(turn(model, 1), tools=(tool,)))
    assert with_tool.cache_outcome == "part_changed:tools"
    with_schema = await provider.ask(replace(turn(model, 2), response_schema=schema))
    assert with_schema.cache_outcome in ("part_changed:schema", "part_changed:tools")


@EVERY_WAY
async def test_part_changed_for_a_new_customer_when_a_shared_part_was_replaced(provider: Provider, model: str) -> None:
    for line in ("c-1", "c-2", "c-3"):
        await provider.ask(turn(model, 0, line=line))
    released = await provider.ask(turn(model, 0, line="c-4", requirements="new rule"))
    assert released.cache_outcome == "part_changed:requirements"


@EVERY_WAY
async def test_expired_after_the_life_of_the_entry_and_not_before(provider: Provider, model: str) -> None:
    await provider.ask(turn(model, 0))
    assert (await provider.ask(turn(model, 0), after=LIFE[model] - 1)).cache_outcome == "hit"
    late = await provider.ask(turn(model, 0), after=LIFE[model] + 1)
    assert late.cache_outcome == "expired"
    assert tokens(late)[0] == 0


async def test_a_conversation_that_rested_is_written_again_behind_its_stable_parts(provider: Provider) -> None:
    await provider.ask(turn(CLAUDE, 0))
    await provider.ask(turn(CLAUDE, 1))
    rested = await provider.ask(turn(CLAUDE, 2), after=400.0)
    assert rested.cache_outcome == "hit"
    assert rested.cache_use == {
        "conduct": "read",
        "requirements": "read",
        "customer": "read",
        "conversation": "written",
    }


@EVERY_WAY
async def test_below_minimum(provider: Provider, model: str) -> None:
    for _ in range(2):
        short = await provider.ask(turn(model, 0, size=60, customer="customer"))
        assert (short.cache_outcome, tokens(short)) == ("below_minimum", (0, 0))


async def test_below_minimum_of_a_model_that_asks_for_more(provider: Provider) -> None:
    call = await provider.ask(turn("anthropic/claude-haiku-4-5", 0))
    assert (call.cache_outcome, tokens(call)) == ("below_minimum", (0, 0))


@EVERY_WAY
async def test_not_supported_when_caching_is_switched_off_or_nothing_is_named(provider: Provider, model: str) -> None:
    off = await provider.ask(replace(turn(model, 0), use_cache=False))
    nameless = turn(model, 0)
    nameless = replace(nameless, messages=tuple(replace(message, part=None) for message in nameless.messages))
    assert off.cache_outcome == "not_supported"
    if model != GPT_PREFIX:
        assert (await provider.ask(nameless)).cache_outcome == "not_supported"


@EVERY_WAY
async def test_provider_miss_when_an_entry_is_gone_before_its_time(provider: Provider, model: str) -> None:
    await provider.ask(turn(model, 0))
    provider.simulator.cache.clear()
    missed = await provider.ask(turn(model, 1))
    assert (missed.cache_outcome, tokens(missed)[0]) == ("provider_miss", 0)


@pytest.mark.parametrize("model", [GPT_BREAKPOINTS, GPT_PREFIX])
@pytest.mark.parametrize("provider", [{"openai_miss_rate": 1.0}], indirect=True, ids=["misses"])
async def test_provider_miss_when_the_provider_does_not_find_what_it_has(provider: Provider, model: str) -> None:
    await provider.ask(turn(model, 0))
    assert (await provider.ask(turn(model, 1))).cache_outcome == "provider_miss"


@EVERY_WAY
async def test_unknown_when_the_call_fails_before_any_usage(provider: Provider, model: str) -> None:
    provider.simulator.faults.add(Fault(kind="status", status=500))
    stream = provider.gateway.stream(turn(model, 0))
    with pytest.raises(ModelError):
        async with stream:
            await stream.read()
    assert stream.call is not None
    assert (stream.call.cache_outcome, stream.call.cache_use) == ("unknown", {})


async def test_unknown_when_an_answer_is_left_before_its_usage(provider: Provider) -> None:
    slow = Script(chunks=9, first_ms=0, interval_ms=1_000)
    provider.simulator.faults.add(Fault(kind="script", script=slow))
    async with provider.gateway.stream(turn(GPT_PREFIX, 0)) as stream:
        await anext(stream)
    assert stream.call is not None
    assert stream.call.cache_outcome == "unknown"


async def test_an_answer_that_is_left_early_still_tells_what_it_read(provider: Provider) -> None:
    await provider.ask(turn(CLAUDE, 0))
    provider.clock.advance(10)
    async with provider.gateway.stream(turn(CLAUDE, 1)) as stream:
        await anext(stream)
    assert stream.call is not None
    assert stream.call.cache_outcome == "hit"
    assert stream.call.cache_use["customer"] == "read"

"""Cache plans under the published rules: whole consultations, accounted by the provider simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from guidance_agent.llm.caching import CacheHistory, CallIdentity, saving
from guidance_agent.llm.endpoints import resolve
from guidance_agent.llm.messages import Message, ModelRequest, Usage
from guidance_agent.llm.pricing import PriceTable, cost_of
from guidance_agent.llm.transports.anthropic_body import build_anthropic_body
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.openai_body import build_openai_body
from guidance_agent.provider_simulator.cache import PromptCaches
from guidance_agent.provider_simulator.read_anthropic import read_messages_request
from guidance_agent.provider_simulator.read_openai import read_chat_request
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.settings import Settings

KEYS: Mapping[str, str] = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}
MODELS = ["anthropic/claude-sonnet-5-5", "openai/gpt-6-sol", "openai/gpt-5.5"]

CUSTOMERS = 50
TURNS = 5


class Call(NamedTuple):
    turn: int
    usage: Usage
    outcome: str
    stable_tokens: int


class Consultations:
    """A gateway without a network: plans, bodies and labels are real, the usage is the simulator's accounting."""

    def __init__(self, model: str, *, use_cache: bool = True) -> None:
        self.model = model
        self.use_cache = use_cache
        self.resolved = resolve(model, Settings(), KEYS)
        self.simulator = SimulatorSettings()
        self.caches = PromptCaches(self.simulator)
        self.now = 0.0
        self.history = CacheHistory(clock=lambda: self.now)

    def turn(self, customer: int, turn: int) -> Call:
        self.now += 2.0
        request = _request(self.model, customer, turn, self.use_cache)
        endpoint, profile = self.resolved
        plan = profile.cache_plan(request)
        traits = profile.traits(self.model.partition("/")[2])
        call = PreparedCall(request=request, endpoint=endpoint, traits=traits, plan=plan, timeouts=Settings().timeouts)
        lease = self.caches.begin(self._read(call), workspace="w", now=self.now)
        lease.commit(self.now + 0.5)
        usage = Usage(
            input_tokens=lease.use.uncached,
            cache_read_tokens=lease.use.read,
            cache_write_5m_tokens=lease.use.written_5m,
            cache_write_1h_tokens=lease.use.written_1h,
        )
        identity = CallIdentity.of(endpoint, request)
        outcome = self.history.observe(identity, plan, usage, self.now, first_token_at=self.now + 0.5)
        stable = next((part.tokens for part in plan.parts if part.name == "customer"), 0)
        return Call(turn, usage, outcome, stable)

    def _read(self, call: PreparedCall) -> Any:
        if call.endpoint.wire == "anthropic":
            return read_messages_request(build_anthropic_body(call, stream=True), self.simulator)
        return read_chat_request(build_openai_body(call, stream=True), self.simulator)

    def all_calls(self) -> list[Call]:
        return [self.turn(customer, turn) for turn in range(TURNS) for customer in range(CUSTOMERS)]


def _request(model: str, customer: int, turn: int, use_cache: bool) -> ModelRequest:
    history = [
        message
        for past in range(turn)
        for message in (
            Message("user", f"Question {past} of customer {customer}: what happens to my pension if I move abroad?"),
            Message(
                "assistant", f"Answer {past} to {customer}. " + "Your pension stays where it is until you act. " * 15
            ),
        )
    ]
    if history:
        history[-1] = replace(history[-1], part="conversation")
    return ModelRequest(
        model=model,
        messages=(
            Message("system", "Guide and never advise. " * 200, part="conduct"),
            Message("system", "Say what the rules require of every answer. " * 200, part="requirements"),
            Message("system", f"Customer {customer} is {30 + customer} years old. " * 20, part="customer"),
            *history,
            Message("user", f"Facts of turn {turn} for {customer}. " + "A figure that is valid today. " * 90),
        ),
        use_cache=use_cache,
        cache_key=f"consultation-{customer}",
        metadata={"consultation_id": f"consultation-{customer}"},
    )


@pytest.mark.parametrize("model", MODELS)
def test_every_turn_after_the_first_reads_up_to_the_end_of_the_last_answer(model: str) -> None:
    consultation = Consultations(model)
    before = consultation.turn(0, 0)
    for turn in range(1, TURNS):
        call = consultation.turn(0, turn)
        stored = before.usage.cache_read_tokens + before.usage.cache_write_tokens
        if model == "openai/gpt-5.5":
            # Automatic prefixes are read in steps of 128 tokens and report no writes.
            assert call.usage.cache_read_tokens >= before.stable_tokens * 0.9
        else:
            assert call.usage.cache_read_tokens == stored
        assert call.outcome == "hit"
        before = call


@pytest.mark.parametrize("model", MODELS)
def test_fifty_customers_read_most_of_their_input_from_the_cache(model: str) -> None:
    calls = Consultations(model).all_calls()[1:]
    read = sum(call.usage.cache_read_tokens for call in calls)
    total = sum(call.usage.total_input_tokens for call in calls)
    assert read / total >= 0.7
    assert {call.outcome for call in calls if call.turn} == {"hit"}
    assert {call.outcome for call in calls} <= {"hit", "first_write"}


@pytest.mark.parametrize("model", MODELS)
def test_fifty_customers_pay_far_less_for_input_than_without_caching(model: str) -> None:
    prices = PriceTable.load().prices(model)
    assert prices is not None
    with_cache = [call.usage for call in Consultations(model).all_calls()]
    plain = sum(usage.total_input_tokens for usage in with_cache) * prices.input
    paid = sum(cost_of(usage, prices).usd for usage in with_cache)
    assert paid <= 0.4 * plain
    assert sum(saving(usage, prices) for usage in with_cache) == pytest.approx(plain - paid)


@pytest.mark.parametrize("model", MODELS[:2])
def test_switched_off_caching_neither_reads_nor_writes(model: str) -> None:
    consultation = Consultations(model, use_cache=False)
    calls = [consultation.turn(0, turn) for turn in range(3)]
    assert all(call.usage.cache_read_tokens == call.usage.cache_write_tokens == 0 for call in calls)
    assert {call.outcome for call in calls} == {"not_supported"}

"""The label of a call: one situation for each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guidance_agent.llm.caching import CacheHistory, CallIdentity, cache_parts, saving
from guidance_agent.llm.messages import Message, ModelRequest, ToolSpec, UnitPrices, Usage
from guidance_agent.llm.providers.anthropic import ANTHROPIC
from guidance_agent.llm.providers.base import CachePlan, Endpoint, Profile
from guidance_agent.llm.providers.compatible import COMPATIBLE
from guidance_agent.llm.providers.ollama import OLLAMA
from guidance_agent.llm.providers.openai import OPENAI

CLAUDE = "anthropic/claude-sonnet-5-5"
GPT_BREAKPOINTS = "openai/gpt-6-luna"
GPT_PREFIX = "openai/gpt-5.4-mini"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Calls:
    """Calls of one process, each with the usage that its provider reported."""

    def __init__(self, profile: Profile = ANTHROPIC, model: str = CLAUDE) -> None:
        self.clock = Clock()
        self.history = CacheHistory(clock=self.clock)
        self.profile = profile
        self.model = model

    def request(
        self, *, rules: str = "rule", customer: str = "amy", turns: int = 0, size: int = 1500, line: str = "c-1"
    ) -> ModelRequest:
        history = [Message(role, f"{role} {turn}") for turn in range(turns) for role in ("user", "assistant")]
        if history:
            history[-1] = replace(history[-1], part="conversation")
        return ModelRequest(
            model=self.model,
            messages=(
                Message("system", "conduct " * size, part="conduct"),
                Message("system", f"{rules} " * size, part="requirements"),
                Message("system", f"{customer} " * 50, part="customer"),
                *history,
                Message("user", "What now?"),
            ),
            metadata={"consultation_id": line},
        )

    def plan(self, request: ModelRequest) -> CachePlan:
        return self.profile.cache_plan(request)

    def observe(
        self, request: ModelRequest, usage: Usage | None, *, after: float = 10.0, first_token_after: float | None = 0.5
    ) -> str:
        """Let a call start `after` seconds from now and end at once; return its label."""
        self.clock.now += after
        started = self.clock.now
        identity = CallIdentity.of(Endpoint(provider="p", base_url="http://p", wire=None), request)
        first = None if first_token_after is None else started + first_token_after
        return self.history.observe(identity, self.plan(request), usage, started, first_token_at=first)


def used(*, read: int = 0, hour: int = 0, five: int = 0, rest: int = 100) -> Usage:
    return Usage(
        input_tokens=rest,
        cache_read_tokens=read,
        cache_write_1h_tokens=hour,
        cache_write_5m_tokens=five,
        output_tokens=9,
    )


def test_first_write_when_nothing_was_there() -> None:
    calls = Calls()
    assert calls.observe(calls.request(), used(hour=3100)) == "first_write"


def test_hit_when_the_next_turn_reads_what_the_last_one_wrote() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    assert calls.observe(calls.request(turns=1), used(read=3100, five=20)) == "hit"
    assert calls.observe(calls.request(turns=2), used(read=3120, five=20)) == "hit"


def test_hit_when_another_process_had_written() -> None:
    calls = Calls()
    assert calls.observe(calls.request(), used(read=3100)) == "hit"


def test_another_customer_reads_the_shared_parts() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    other = calls.request(customer="ben", line="c-2")
    assert calls.observe(other, used(read=3000, hour=100)) == "hit"


@pytest.mark.parametrize(
    ("rules", "customer", "part"),
    [("other", "amy", "requirements"), ("rule", "amelia", "customer"), ("other", "amelia", "requirements")],
)
def test_part_changed_names_the_first_part_that_moved(rules: str, customer: str, part: str) -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    assert (
        calls.observe(calls.request(rules=rules, customer=customer), used(read=1500, hour=1600))
        == f"part_changed:{part}"
    )


def test_part_changed_when_the_history_was_rewritten() -> None:
    calls = Calls()
    calls.observe(calls.request(turns=2), used(hour=3100, five=40))
    request = calls.request(turns=3)
    edited = replace(request, messages=(*request.messages[:3], Message("user", "edited"), *request.messages[4:]))
    assert calls.observe(edited, used(read=3100, five=60)) == "part_changed:conversation"


def test_part_changed_names_tools_that_were_added() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    tools = (ToolSpec("lookup", "Looks a figure up.", {"type": "object"}),)
    assert calls.observe(replace(calls.request(), tools=tools), used(hour=3150)) == "part_changed:tools"


def test_part_changed_on_a_new_line_when_all_lines_had_shared_the_part() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    calls.observe(calls.request(customer="ben", line="c-2"), used(read=3000, hour=100))
    released = calls.request(rules="new", customer="cat", line="c-3")
    assert calls.observe(released, used(read=1500, hour=1600)) == "part_changed:requirements"
    later = calls.request(rules="new", customer="dan", line="c-4")
    assert calls.observe(later, used(read=3000, hour=100)) == "hit"


def test_expired_after_the_life_of_the_entry() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    assert calls.observe(calls.request(), used(hour=3100), after=3601.0) == "expired"


def test_a_read_renews_the_life_of_an_entry() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    calls.observe(calls.request(), used(read=3100), after=3500.0)
    assert calls.observe(calls.request(), used(hour=3100), after=3500.0) == "provider_miss"


def test_provider_miss_when_a_living_entry_was_not_read() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    assert calls.observe(calls.request(), used(hour=3100)) == "provider_miss"


def test_provider_miss_when_only_a_part_of_it_was_read() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    assert calls.observe(calls.request(), used(read=1500, hour=1600)) == "provider_miss"


def test_provider_miss_when_what_was_marked_was_neither_read_nor_written() -> None:
    calls = Calls()
    assert calls.observe(calls.request(), used(rest=3200)) == "provider_miss"


def test_a_call_that_started_before_the_first_answer_began_is_not_blamed() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100), first_token_after=5.0)
    assert calls.observe(calls.request(), used(hour=3100), after=1.0) == "first_write"


def test_without_a_first_token_an_entry_counts_from_the_end_of_its_call() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100), first_token_after=None)
    assert calls.observe(calls.request(), used(hour=3100), after=1.0) == "provider_miss"


def test_below_minimum_by_the_plan() -> None:
    calls = Calls()
    assert calls.observe(calls.request(size=100), used(rest=300)) == "below_minimum"


def test_below_minimum_by_the_providers_own_count() -> None:
    calls = Calls()
    request = calls.request(size=300)
    assert calls.plan(request).breakpoints
    assert calls.observe(request, used(rest=500)) == "below_minimum"


@pytest.mark.parametrize("case", ["switched_off", "no_parts", "does_not_cache"])
def test_not_supported_when_nothing_was_asked_for(case: str) -> None:
    calls = Calls()
    request = calls.request()
    if case == "switched_off":
        request = replace(request, use_cache=False)
    if case == "no_parts":
        request = replace(request, messages=request.messages[-1:])
    plan = calls.plan(request)
    if case == "does_not_cache":
        plan = replace(plan, caching="none", breakpoints=())
    identity = CallIdentity("cache", "guidance", None)
    assert calls.history.observe(identity, plan, used(rest=4000), 1.0) == "not_supported"


@pytest.mark.parametrize("usage", [None, Usage(input_tokens=3100, output_tokens=3, estimated=True)])
def test_unknown_without_a_reported_usage(usage: Usage | None) -> None:
    calls = Calls()
    assert calls.observe(calls.request(), usage) == "unknown"
    assert calls.observe(calls.request(), used(hour=3100)) == "first_write"


def test_reads_of_a_call_that_was_closed_early_count() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    closed = replace(used(read=3100), estimated=True)
    assert calls.observe(calls.request(), closed) == "hit"


@pytest.mark.parametrize(
    ("profile", "model"), [(COMPATIBLE["hosted_vllm"], "hosted_vllm/llama"), (OLLAMA, "ollama/llama3.2")]
)
def test_unknown_when_the_server_does_not_report_its_cache(profile: Profile, model: str) -> None:
    calls = Calls(profile, model)
    calls.observe(calls.request(), used(rest=3200))
    assert calls.observe(calls.request(), used(rest=3200)) == "unknown"
    assert calls.observe(calls.request(turns=1), used(read=3100, rest=300)) == "hit"


def test_automatic_prefixes_report_no_writes() -> None:
    calls = Calls(OPENAI, GPT_PREFIX)
    assert calls.observe(calls.request(), used(rest=3200)) == "first_write"
    assert calls.observe(calls.request(turns=1), used(read=3072)) == "hit"
    assert calls.observe(calls.request(turns=2), used(rest=3300)) == "provider_miss"
    assert calls.observe(calls.request(turns=3), used(rest=3300), after=301.0) == "expired"


def test_exact_matching_reads_are_looked_for_only_at_breakpoints() -> None:
    calls = Calls(OPENAI, GPT_BREAKPOINTS)
    calls.observe(calls.request(turns=1), used(five=3100))
    assert calls.observe(calls.request(turns=2), used(read=3100, five=10)) == "hit"
    # Three turns further none of the breakpoints is where the last call left its longest entry.
    assert calls.observe(calls.request(turns=5), used(read=3090, five=40)) == "hit"


def test_another_model_or_address_has_a_cache_of_its_own() -> None:
    calls = Calls()
    calls.observe(calls.request(), used(hour=3100))
    calls.model = "anthropic/claude-haiku-5-5"
    assert calls.observe(calls.request(), used(hour=3100)) == "first_write"


def test_the_history_is_bounded() -> None:
    calls = Calls()
    calls.history = CacheHistory(clock=calls.clock, max_entries=3, max_lines=4)
    calls.observe(calls.request(), used(hour=3100))
    for number in range(5):
        other = calls.request(size=1600 + number, line=f"o-{number}")
        calls.observe(other, used(hour=3100))
    assert calls.observe(calls.request(), used(hour=3100)) == "first_write"


def test_the_record_of_a_call_names_its_parts() -> None:
    calls = Calls()
    parts = cache_parts(calls.plan(calls.request(turns=1)))
    assert list(parts) == ["conduct", "requirements", "customer", "conversation"]
    assert {len(fingerprint) for fingerprint in parts.values()} == {16}


PRICES = UnitPrices(input=2e-6, output=10e-6, cache_read=0.1e-6, cache_write_5m=2.5e-6, cache_write_1h=4e-6)


def test_a_first_write_saves_less_than_nothing() -> None:
    # 3,000 tokens at 4 instead of 2, and 1,000 at 2.50 instead of 2 dollars per million.
    assert saving(used(hour=3000, five=1000), PRICES) == pytest.approx(-0.0065)


def test_a_read_saves_the_difference_to_the_input_price() -> None:
    # 10,000 tokens at 0.10 instead of 2 dollars per million.
    assert saving(used(read=10_000), PRICES) == pytest.approx(0.019)


def test_without_cache_prices_nothing_is_saved() -> None:
    assert saving(used(read=10_000, five=500), UnitPrices(input=2e-6, output=1e-5)) == 0.0

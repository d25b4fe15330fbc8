"""Money under attack: every cent is in the ledger, an unknown price is no price, an estimate says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Completed, Runtime
from guidance_agent.provider_simulator import ProviderSimulator, Script, SimulatorSettings
from tests.integration.advisor.wiring import AUTHOR, author_fails, author_says, endless, wired_settings
from tests.integration.attacks.evidence import asks, calls_of, shown


async def completed(advisor: AdvisorAgent, customer_id: str) -> Completed:
    async with advisor.consult(asks(customer_id)) as turn:
        event = [event async for event in turn][-1]
    assert isinstance(event, Completed)
    return event


async def test_the_ledger_adds_up_to_what_each_turn_says_it_cost(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    for status in (429, 500, 529):
        author_fails(simulator, wire, kind="status", status=status)
    # One call may meet all three failures.
    settings = wired_settings(simulator, wire, tmp_path, retry={"backoff_factor": 0.0, "max_attempts": 4})
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        turns = await asyncio.gather(*(completed(advisor, f"c-{number}") for number in range(12)))
        calls = await calls_of(runtime, 24)
    assert len(calls) == 24
    assert {call["id"] for call in calls} != set()
    for turn in turns:
        costs = [call["cost_usd"] for call in calls if call["turn_id"] == turn.turn_id]
        assert len(costs) == 2
        assert sum(costs) == pytest.approx(turn.cost_usd)
        assert turn.cost_usd
    assert sum(call["attempts"] for call in calls) == len(simulator.requests) == 24 + 3
    reported = [record.usage for record in simulator.requests if record.usage is not None]
    output = "output_tokens" if wire == "anthropic" else "completion_tokens"
    assert sum(call["output_tokens"] for call in calls) == sum(usage[output] for usage in reported)


async def test_an_unknown_price_is_none_and_never_nought(wire: str, tmp_path: Path) -> None:
    own = SimulatorSettings.instant(seed=1).but(any_model=True)
    async with ProviderSimulator(own) as simulator:
        settings = wired_settings(simulator, wire, tmp_path / "data", model=f"{wire}/model-of-tomorrow")
        async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            turn = await completed(advisor, "c")
            calls = {call["operation"]: call for call in await calls_of(runtime, 2)}
    assert turn.cost_usd is None
    assert turn.usage is not None
    assert turn.usage.output_tokens > 0
    assert (calls["guidance"]["cost_usd"], calls["guidance"]["unit_prices"]) == (None, None)
    assert calls["reasoning"]["cost_usd"] > 0


@pytest.mark.parametrize("end", ["left", "cut"])
async def test_the_usage_of_an_answer_that_did_not_end_is_estimated_from_what_was_sent(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, end: str
) -> None:
    if end == "left":
        endless(simulator, wire)
    else:
        author_fails(simulator, wire, kind="truncate", after_chunks=40, script=Script(chunks=60, interval_ms=1))
    text = ""
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        async for event in turn:
            text += shown([event])
            if end == "left" and len(text) > 1_000:
                break
    (call,) = await calls_of(wired_runtime, 1)
    assert call["usage_estimated"]
    assert call["cost_usd"] > 0
    assert call["output_tokens"] >= len(text) / 4 * 0.9
    if end == "left":
        # Paid for is what was produced until the socket closed, and that is little more than what was shown.
        assert call["output_tokens"] <= len(text) / 4 + 2_000


async def test_a_refused_call_costs_nothing_and_is_in_the_ledger(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_fails(simulator, wire, kind="status", status=401, times=None)
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        async for _ in turn:
            pass
    (call,) = await calls_of(wired_runtime, 1)
    assert (call["outcome"], call["cost_usd"], call["model"]) == ("error:AuthenticationError", None, AUTHOR[wire])


async def test_an_answer_without_a_word_is_paid_for_and_not_judged(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(text=""))
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        events = [event async for event in turn]
    assert shown(events) == ""
    row = await wired_runtime.records.turn(turn.turn_id)
    assert row is not None
    assert row["judgement"] is None
    (call,) = await calls_of(wired_runtime, 1)
    assert call["input_tokens"] + call["cache_write_1h_tokens"] + call["cache_write_5m_tokens"] > 0

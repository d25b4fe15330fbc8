"""Figures tell what is known, and say so when something is not."""

from __future__ import annotations

import pytest

from guidance_agent import Completed
from guidance_agent.advisor.events import TurnTiming
from guidance_agent.cli.figures import Totals, answer_figures, money
from guidance_agent.llm.messages import Usage


def completed(*, cost: float | None, usage: Usage | None, simulated: bool = False) -> Completed:
    return Completed(
        turn_id="turn_1",
        sequence=2,
        text="Yes.",
        finish_reason="stop",
        usage=usage,
        timing=TurnTiming(first_text=0.61, total=2.0),
        cost_usd=cost,
        cache_outcome="first_write",
        simulated=simulated,
    )


USAGE = Usage(input_tokens=100, cache_read_tokens=1_000, cache_write_5m_tokens=200, output_tokens=50)


@pytest.mark.parametrize(
    ("usd", "simulated", "told"),
    [
        (0.01234, False, "$0.0123"),
        (0.0000321, False, "$0.000032"),
        (0.0, False, "$0.0000"),
        (None, False, "no price known"),
        (None, True, "no price known"),
        (0.01234, True, "$0.0123 at list price, not charged"),
    ],
)
def test_money_is_told_as_it_is_known(usd: float | None, simulated: bool, told: str) -> None:
    assert money(usd, simulated=simulated) == told


def test_an_answer_is_told_with_all_its_input() -> None:
    told = answer_figures(completed(cost=0.02, usage=USAGE))
    assert told == "1,300 tokens in (1,000 cached), 50 out · $0.0200 · first text after 0.61 s · cache: first write"


def test_estimated_tokens_are_called_estimated() -> None:
    assert "tokens estimated" in answer_figures(completed(cost=None, usage=Usage(output_tokens=3, estimated=True)))


def test_an_answer_without_usage_tells_no_tokens() -> None:
    assert "tokens" not in answer_figures(completed(cost=None, usage=None))


def test_totals_add_up_and_count_what_has_no_price() -> None:
    totals = Totals().with_answer(completed(cost=0.02, usage=USAGE)).with_answer(completed(cost=None, usage=USAGE))
    assert totals.line() == (
        "2 answers · 2,600 tokens in (2,000 cached), 100 out · $0.0200 (no price known for 1 of them)"
    )


def test_totals_without_any_price_are_not_nothing() -> None:
    assert Totals().with_answer(completed(cost=None, usage=USAGE)).line().endswith("· no price known")

"""What is left of a limit, as arithmetic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.llm.limits_state import COOL_DOWN_SECONDS, NOTHING, Amounts, Bounds, LimitState

BOUNDS = Bounds(per_minute=Amounts(600, 60_000), burst=10)
START = 1_000.0


def take(state: LimitState, amounts: Amounts, now: float, *, bounds: Bounds = BOUNDS, headroom: float = 0.0) -> float:
    return state.reserve(amounts, bounds, now, headroom=headroom).wait


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    state = LimitState()
    waits = [take(state, Amounts(1, 10), START) for _ in range(103)]
    assert waits[:100] == [0.0] * 100
    assert waits[100:] == pytest.approx([0.1, 0.2, 0.3])


def test_the_scarcer_limit_decides() -> None:
    state = LimitState()
    assert take(state, Amounts(1, 10_000), START) == 0
    assert take(state, Amounts(1, 500), START) == pytest.approx(0.5)


def test_a_call_larger_than_a_bucket_waits_for_a_full_one_and_leaves_a_debt() -> None:
    state = LimitState()
    assert take(state, Amounts(1, 25_000), START) == 0
    assert take(state, Amounts(1, 25_000), START) == pytest.approx(25.0)


def test_a_limit_below_one_request_per_burst_still_lets_one_go() -> None:
    state, bounds = LimitState(), Bounds(per_minute=Amounts(2), burst=10)
    assert take(state, Amounts(1), START, bounds=bounds) == 0
    assert take(state, Amounts(1), START, bounds=bounds) == pytest.approx(30)


def test_what_is_not_limited_does_not_wait() -> None:
    state = LimitState()
    assert take(state, Amounts(1, 1e9, 1e9), START, bounds=Bounds()) == 0
    assert state.reserve(Amounts(1, 1e9), Bounds(), START).left == (math.inf, math.inf, math.inf)


def test_headroom_is_left_to_those_who_ask_for_none() -> None:
    state = LimitState()
    waits = [take(state, Amounts(1), START, headroom=0.25) for _ in range(76)]
    assert waits[74] == 0
    assert waits[75] > 0
    assert take(state, Amounts(1), START) == 0


def test_what_was_reserved_refills_whoever_reserved_it() -> None:
    state = LimitState()
    for _ in range(200):
        take(state, Amounts(1), START)
    assert state.wait_for(Amounts(1), BOUNDS, START + 20) == 0


def test_a_clock_that_goes_back_gives_nothing_twice() -> None:
    state = LimitState()
    for _ in range(100):
        take(state, Amounts(1), START)
    assert state.wait_for(Amounts(1), BOUNDS, START - 5) > 0
    assert state.wait_for(Amounts(1), BOUNDS, START) == pytest.approx(0.1)


def refuse(
    state: LimitState, now: float, *, bounds: Bounds = BOUNDS, told: Amounts = NOTHING, reached: Amounts = NOTHING
) -> None:
    state.refuse(bounds, now, retry_after=2.0, told=told, reached=reached)


def test_an_episode_of_refusals_lowers_the_rate_once_and_it_recovers_slowly() -> None:
    state = LimitState()
    for second in range(10):
        refuse(state, START + second)
    assert state.episodes == 1
    assert state.factor_at(START + 14) == pytest.approx(0.8)
    assert state.factor_at(START + COOL_DOWN_SECONDS) == pytest.approx(0.85)
    assert state.factor_at(START + 60) == pytest.approx(1.0)
    refuse(state, START + 16)
    assert state.episodes == 2
    assert state.factor_at(START + 17) == pytest.approx(0.85 * 0.8)


def test_nothing_goes_before_the_provider_wants_it_again() -> None:
    state = LimitState()
    refuse(state, START)
    assert take(state, Amounts(1), START) == pytest.approx(2.0)


def test_a_refusal_that_tells_an_unknown_limit_sets_it_and_lowers_nothing() -> None:
    state = LimitState()
    refuse(state, START, bounds=Bounds(), told=Amounts(300))
    assert state.factor_at(START) == 1.0
    assert state.rates(Bounds(), START).requests == pytest.approx(300, rel=0.03)


def test_a_limit_that_nobody_tells_is_guessed_from_what_was_reached_and_grows_again() -> None:
    state = LimitState()
    refuse(state, START, bounds=Bounds(), reached=Amounts(100, 1_000))
    low = state.rates(Bounds(), START).requests
    assert low == pytest.approx(100 * 0.8, rel=0.03)
    assert state.rates(Bounds(), START + 600).requests > 200


def test_the_lower_of_what_is_set_and_what_is_told_counts() -> None:
    state = LimitState()
    state.tell(Amounts(100, 1_000_000))
    assert state.rates(BOUNDS, START) == (100, 60_000, 0)


def test_others_who_use_the_account_are_noticed_once() -> None:
    state = LimitState()
    reserved = state.reserve(Amounts(1), BOUNDS, START)
    state.correct(reserved.left, Amounts(0, math.inf, math.inf), BOUNDS, due=reserved.due, now=START + 0.05)
    first = state.wait_for(Amounts(1), BOUNDS, START + 0.05)
    assert first > 0
    state.correct(reserved.left, Amounts(0, math.inf, math.inf), BOUNDS, due=reserved.due, now=START + 0.05)
    assert state.wait_for(Amounts(1), BOUNDS, START + 0.05) == pytest.approx(first)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 4_000)), min_size=1, max_size=60),
    st.floats(1, 60),
)
def test_a_server_with_the_same_limits_would_never_refuse(calls: list[tuple[float, int]], burst: float) -> None:
    """A bucket of a minute, filled evenly, sees each call when its reservation is due."""
    state, bounds, now = LimitState(), Bounds(per_minute=Amounts(60, 30_000), burst=burst), START
    due = []
    for pause, tokens in calls:
        now += pause
        due.append((now + take(state, Amounts(1, tokens), now, bounds=bounds), tokens))
    left, at = [60.0, 30_000.0], START
    for moment, tokens in sorted(due):
        passed = moment - at
        left = [min(60.0, left[0] + passed), min(30_000.0, left[1] + passed * 500)]
        at = moment
        assert left[0] >= 1 - 1e-6
        assert left[1] >= min(tokens, 30_000 * burst / 60) - 1e-3
        left = [left[0] - 1, left[1] - tokens]


def test_a_limit_that_the_provider_tells_only_now_corrects_nothing() -> None:
    state = LimitState()
    reserved = state.reserve(Amounts(1, 500), Bounds(per_minute=Amounts(600)), START)
    state.tell(Amounts(600, 10_000))
    state.correct(reserved.left, Amounts(500, 9_500, math.inf), BOUNDS, due=reserved.due, now=START)
    assert state.wait_for(Amounts(1, 500), BOUNDS, START) == 0

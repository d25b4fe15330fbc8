"""When the requests of a batch have their turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.provider_simulator.batches.records import NEVER, WAVES, Batch, wave_of
from guidance_agent.provider_simulator.draws import draw


def batch(duration: float, starts_at: float = 1_000.0) -> Batch:
    return Batch(
        id="b",
        wire="openai",
        workspace="w",
        status="in_progress",
        created_at=0.0,
        expires_at=1e9,
        duration=duration,
        starts_at=starts_at,
    )


@given(count=st.integers(min_value=2, max_value=40), seed=st.integers(min_value=0, max_value=50))
def test_the_order_of_answers_is_never_that_of_the_requests(count: int, seed: int) -> None:
    turns = [(wave_of(seed, f"item-{line}", line), -line) for line in range(1, count + 1)]
    assert sorted(turns) != turns
    assert max(turns)[1] == -1


@given(
    duration=st.floats(min_value=0, max_value=1e6),
    starts_at=st.floats(min_value=1e9, max_value=2e9),
    wave=st.integers(min_value=0, max_value=WAVES - 1),
)
def test_a_wave_is_due_from_its_beginning_on(duration: float, starts_at: float, wave: int) -> None:
    seen = batch(duration, starts_at)
    assert seen.last_wave_before(seen.wave_start(wave)) >= wave
    assert seen.last_wave_before(starts_at - 1) == -1
    assert seen.wave_start(NEVER) == float("inf")


def test_a_wave_is_not_due_before_its_beginning() -> None:
    seen = batch(640.0)
    assert [seen.last_wave_before(1_000.0 + after) for after in (0, 9.9, 10, 10_000)] == [0, 0, 1, WAVES - 1]
    assert batch(0.0).last_wave_before(1_000.0) == WAVES - 1


def test_turns_are_spread_and_follow_from_the_seed() -> None:
    turns = Counter(wave_of(7, f"item-{line}", line) for line in range(2, 6_402))
    assert len(turns) == WAVES
    assert max(turns.values()) < 3 * min(turns.values())
    assert [draw(7, "a"), draw(7, "a")] == [draw(7, "a")] * 2
    assert len({draw(7, "a"), draw(8, "a"), draw(7, "b"), draw(7, "a", "")}) == 4

"""How experience moves the confidence of a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.learning.confidence import (
    HIGHEST,
    LOWEST,
    RETIRED_BELOW,
    FeedbackOutcome,
    first_confidence,
    updated,
)

BOUNDED = st.floats(LOWEST, HIGHEST)


@given(BOUNDED, st.lists(st.sampled_from(["helped", "harmed"]), max_size=200))
def test_confidence_stays_within_its_bounds(confidence: float, outcomes: list[FeedbackOutcome]) -> None:
    for outcome in outcomes:
        confidence = updated(confidence, outcome)
        assert LOWEST <= confidence <= HIGHEST


@given(BOUNDED)
def test_help_never_lowers_and_harm_never_raises(confidence: float) -> None:
    assert updated(confidence, "helped") >= confidence >= updated(confidence, "harmed")


@pytest.mark.parametrize(("start", "reports"), [(0.7, 5), (0.5, 3), (0.95, 6)])
def test_so_many_reports_of_harm_retire_a_rule(start: float, reports: int) -> None:
    confidence, heard = start, 0
    while confidence >= RETIRED_BELOW:
        confidence, heard = updated(confidence, "harmed"), heard + 1
    assert heard == reports


def test_a_rule_begins_with_what_its_steps_said() -> None:
    assert first_confidence(0.9, 0.8) == pytest.approx(0.72)
    assert first_confidence(1.0, 1.0) == HIGHEST
    assert first_confidence(0.0, 1.0) == LOWEST

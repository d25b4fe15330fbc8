"""What becomes of a version of an answer, and which of two is the better."""

from __future__ import annotations

from typing import Any

import pytest

from guidance_agent.advisor.candidates import Candidate, NextStep, better_of, next_step
from guidance_agent.compliance.verdict import CHECKS, CheckResult, Verdict
from guidance_agent.settings import RefinementSettings


def candidate(name: str, *, fails: bool = False, confidence: float = 0.9, unreadable: str | None = None) -> Candidate:
    checks = tuple(
        CheckResult(
            check=check,
            status="fail" if fails and check == "scam" else "pass",
            requirement="R",
            explanation="",
            source="judge",
        )
        for check in CHECKS
    )
    verdict = Verdict(
        checks=checks,
        confidence=confidence,
        reasoning="",
        unreadable=unreadable,
        policy_version="p",
        text_hash=name,
    )
    nothing: Any = None
    return Candidate(nothing, nothing, nothing, name, verdict)


@pytest.mark.parametrize(
    ("verdict", "number", "step"),
    [
        ({}, 0, "deliver"),
        ({"confidence": 0.7}, 0, "deliver"),
        ({"confidence": 0.69}, 0, "strengthen"),
        ({"confidence": 0.69}, 2, "strengthen"),
        ({"fails": True}, 1, "refine"),
        ({"fails": True}, 2, "give_up"),
        ({"fails": True, "confidence": 0.1}, 2, "give_up"),
        ({"unreadable": "garbled"}, 0, "refine"),
        ({"unreadable": "garbled"}, 2, "give_up"),
    ],
)
def test_a_verdict_and_the_rounds_left_decide_what_becomes_of_a_version(
    verdict: dict[str, Any], number: int, step: NextStep
) -> None:
    assert next_step(candidate("a", **verdict), number, RefinementSettings()) == step


def test_no_rounds_and_no_borderline_leave_every_version_as_it_is() -> None:
    settings = RefinementSettings(rounds=0, borderline=0)
    assert next_step(candidate("a", fails=True), 0, settings) == "give_up"
    assert next_step(candidate("a", confidence=0.0), 0, settings) == "deliver"


@pytest.mark.parametrize(
    ("second", "better"),
    [
        ({"confidence": 0.8}, "second"),
        ({"confidence": 0.6}, "first"),
        ({"confidence": 0.5}, "first"),
        ({"confidence": 1.0, "fails": True}, "first"),
        ({"confidence": 1.0, "unreadable": "garbled"}, "first"),
    ],
)
def test_the_better_of_two_has_passed_and_is_the_surer(second: dict[str, Any], better: str) -> None:
    assert better_of(candidate("first", confidence=0.6), candidate("second", **second)).text == better

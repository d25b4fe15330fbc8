"""What a verdict says of a rule: only what it says of the requirement that the rule was made for."""

from __future__ import annotations

from typing import Any

import pytest

from guidance_agent.compliance.verdict import CHECKS, CheckResult, Verdict
from guidance_agent.learning.rule_feedback import outcome_for


def verdict(unreadable: str | None = None, **advice: Any) -> Verdict:
    """A verdict in which all checks passed, but for what is said of the one on advice."""
    results = [
        CheckResult(
            check=name,
            explanation="because",
            **{
                "status": "pass",
                "requirement": "R",
                "source": "judge",
                **(advice if name == "advice_boundary" else {}),
            },
        )
        for name in CHECKS
    ]
    return Verdict(
        checks=tuple(results), confidence=0.9, reasoning="r", policy_version="p", text_hash="h", unreadable=unreadable
    )


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (verdict(), "helped"),
        (verdict(status="fail", requirement="R-ADV-2"), "harmed"),
        (verdict(status="fail", requirement="R-ADV-1"), None),
        (verdict(status="not_applicable", reason="topic_not_present", source="program"), None),
        (verdict(unreadable="It broke off."), None),
    ],
    ids=["passed", "failed", "failed for another requirement", "not applicable", "unreadable"],
)
def test_a_verdict_tells_of_the_requirement_alone(given: Verdict, outcome: str | None) -> None:
    assert outcome_for("R-ADV-2", given) == outcome


def test_a_requirement_of_no_check_is_told_nothing_of() -> None:
    assert outcome_for("R-NONE-1", verdict()) is None

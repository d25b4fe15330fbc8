"""What follows from the results of the checks is computed, and a stored verdict reads back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.compliance.rule_results import CHECK_OF_RULE
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Verdict


def result(check: CheckName, **changes: Any) -> CheckResult:
    made = {"check": check, "status": "pass", "requirement": "R-1", "explanation": "", "source": "judge", **changes}
    return CheckResult.model_validate(made)


def verdict(*more: CheckResult, **changes: Any) -> Verdict:
    made = {
        "checks": (*map(result, CHECKS), *more),
        "confidence": 0.9,
        "reasoning": "",
        "policy_version": "v",
        "text_hash": "h",
        **changes,
    }
    return Verdict.model_validate(made)


def test_every_check_answered_and_none_failed_is_a_pass() -> None:
    assert verdict().passed
    assert not verdict().needs_review


@pytest.mark.parametrize("missing", CHECKS)
def test_a_missing_check_is_no_pass(missing: CheckName) -> None:
    assert not verdict(checks=[result(check) for check in CHECKS if check != missing]).passed


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("source", ["judge", "rules", "program"])
def test_one_failure_is_no_pass_however_sure_the_judge_is(check: CheckName, source: str) -> None:
    failed = verdict(result(check, status="fail", source=source), confidence=1.0)
    assert not failed.passed
    assert [each.check for each in failed.failures] == [check]


def test_an_unreadable_answer_is_no_pass() -> None:
    assert not verdict(unreadable="no JSON").passed


@pytest.mark.parametrize("claimed", [True, False])
def test_what_is_stored_as_computed_is_computed_again(claimed: bool) -> None:
    stored = json.loads(verdict(result("scam", status="fail")).model_dump_json())
    assert (stored["passed"], stored["needs_review"]) == (False, True)
    assert not Verdict.model_validate(stored | {"passed": claimed, "needs_review": not claimed}).passed


def test_nothing_else_may_be_added_to_what_is_stored() -> None:
    with pytest.raises(ValidationError):
        Verdict.model_validate(json.loads(verdict().model_dump_json()) | {"approved": True})


@pytest.mark.parametrize(
    "changes",
    [
        {"quote": "words"},
        {"start": 0, "end": 3},
        {"status": "not_applicable"},
        {"status": "not_applicable", "reason": "no_decision_discussed"},
        {"reason": "no_decision_discussed", "source": "program"},
    ],
)
def test_half_a_result_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        result("scam", **changes)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_lies_between_nought_and_one(confidence: float) -> None:
    with pytest.raises(ValidationError):
        verdict(confidence=confidence)


def test_every_check_of_the_rules_belongs_to_one_of_a_verdict() -> None:
    assert CHECK_OF_RULE.keys() == load_policy().keys()


def test_the_standard_has_one_fingerprint() -> None:
    assert judging_version() == judging_version()
    assert len(judging_version()) == 16

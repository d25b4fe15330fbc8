"""Corrections: reviewed words at the right place, for every check, and nothing that the gate would hold."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.compliance.checks import check_text
from guidance_agent.compliance.corrections import correction_wording, corrections_for
from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.standard_rules import sentence_rules
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Severity, Verdict

LENGTH = 100


def failure(
    check: CheckName, start: int | None = None, end: int | None = None, severity: Severity | None = "high"
) -> CheckResult:
    return CheckResult(
        check=check,
        status="fail",
        severity=severity,
        requirement="R",
        explanation="because",
        quote=None if start is None or end is None else "x" * (end - start),
        start=start,
        end=end,
        source="judge",
    )


def verdict(*failures: CheckResult, **values: Any) -> Verdict:
    failed = {result.check for result in failures}
    passed = [
        CheckResult(check=check, status="pass", requirement="R", explanation="", source="judge")
        for check in CHECKS
        if check not in failed
    ]
    return Verdict(
        checks=(*failures, *passed), confidence=1.0, reasoning="", policy_version="p", text_hash="h", **values
    )


def test_a_verdict_that_passed_corrects_nothing() -> None:
    assert corrections_for(verdict(), length=LENGTH) == ()


@pytest.mark.parametrize("check", CHECKS)
def test_words_that_failed_are_replaced_by_the_reviewed_words_of_the_check(check: CheckName) -> None:
    wording = correction_wording()[check]
    assert corrections_for(verdict(failure(check, 10, 20)), length=LENGTH) == (
        (10, 20, wording.instead, wording.reason),
    )


@pytest.mark.parametrize("check", CHECKS)
def test_without_words_the_whole_text_is_replaced_or_what_was_left_out_is_added(check: CheckName) -> None:
    wording = correction_wording()[check]
    (correction,) = corrections_for(verdict(failure(check)), length=LENGTH)
    if wording.added is None:
        assert correction == (0, LENGTH, wording.whole, wording.reason)
    else:
        assert correction == (LENGTH, LENGTH, wording.added, wording.reason)


def test_of_words_that_overlap_the_graver_check_is_corrected() -> None:
    found = corrections_for(
        verdict(failure("figures", 0, 30, "low"), failure("scam", 20, 50, "critical"), failure("figures", 60, 70)),
        length=LENGTH,
    )
    assert [(item.start, item.end) for item in found] == [(20, 50), (60, 70)]
    assert found[0].replacement == correction_wording()["scam"].instead


def test_what_replaces_the_whole_text_leaves_only_what_is_added_at_its_end() -> None:
    found = corrections_for(
        verdict(failure("figures", 0, 30), failure("advice_boundary"), failure("signposting")), length=LENGTH
    )
    assert [(item.start, item.end) for item in found] == [(0, LENGTH), (LENGTH, LENGTH)]


SPANS = st.tuples(st.sampled_from(CHECKS), st.integers(0, 110), st.integers(1, 30), st.booleans())


@given(st.lists(SPANS, max_size=8))
def test_corrections_never_overlap_and_stay_inside_the_text(spans: list[tuple[CheckName, int, int, bool]]) -> None:
    failures = [
        failure(check, *((start, start + length) if has_words else (None, None)))
        for check, start, length, has_words in spans
    ]
    found = corrections_for(verdict(*failures), length=LENGTH)
    assert all(0 <= item.start <= item.end <= LENGTH for item in found)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert bool(found) == bool(failures)


@pytest.mark.parametrize("check", CHECKS)
def test_the_reviewed_words_pass_the_gate_themselves(check: CheckName) -> None:
    wording = correction_wording()[check]
    for words in filter(None, (wording.instead, wording.whole, wording.added)):
        assert check_text(words, sentence_rules(), load_policy()).decision in ("pass", "undecided"), words

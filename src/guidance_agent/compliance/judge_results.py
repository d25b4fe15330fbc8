"""Joins what the judge, the rules and the program say of each check into the results of a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from guidance_agent.compliance.judge_answer import JudgeAnswer, JudgedCheck
from guidance_agent.compliance.judge_checks import judge_checks, words_of
from guidance_agent.compliance.language import Words
from guidance_agent.compliance.quotes import QuotedText
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, NotApplicableReason

if TYPE_CHECKING:
    from guidance_agent.compliance.rule_results import ExaminedText

__all__ = ["JudgedText", "results_of_nothing"]

_WHY_LEFT_OUT: Mapping[NotApplicableReason, str] = {
    "no_decision_discussed": "The reply discusses no decision about the customer's own pension.",
    "turn_ended_early": "The reply was cut off before its end.",
    "topic_not_present": "Neither the reply nor anything around it touches the subject.",
}


class JudgedText:
    """A reply with what the judge and the rules say of it.

    Args:
        text: The reply.
        answer: What the judge says.
        examined: What the rules say.
        around: What stands around the reply: question, conversation, profile.
        complete: Whether the reply came to its end.
    """

    def __init__(
        self, text: str, answer: JudgeAnswer, examined: ExaminedText, *, around: Sequence[str], complete: bool
    ) -> None:
        self._text = text
        self._answer = answer
        self._examined = examined
        self._around = around
        self._complete = complete
        self._quotes = QuotedText(text)

    def results(self) -> tuple[CheckResult, ...]:
        """Return all results in the order of the checks; a long text takes a while."""
        return tuple(result for check in CHECKS for result in self._of(check))

    def _of(self, check: CheckName) -> Iterator[CheckResult]:
        judged = [each for each in self._answer.checks if each.check == check and each.status != "not_applicable"]
        yield from self._judged(check, judged)
        yield from (breach for breach in self._examined.breaches if breach.check == check)

    @cached_property
    def _words(self) -> Words:
        return words_of(self._text, *self._around)

    def _judged(self, check: CheckName, judged: Sequence[JudgedCheck]) -> Iterator[CheckResult]:
        if not judged:
            yield CheckResult(
                check=check,
                status="fail",
                severity="high",
                requirement=judge_checks()[check].requirement,
                explanation="The judge did not answer this check.",
                source="program",
            )
            return
        reason = self._why_not_applicable(check, judged)
        if reason is not None:
            yield _left_out(check, reason)
            return
        yield from map(self._result, judged)

    def _why_not_applicable(self, check: CheckName, judged: Sequence[JudgedCheck]) -> NotApplicableReason | None:
        if judge_checks()[check].kind == "omission":
            if not self._complete:
                return "turn_ended_early"
            return None if self._examined.discusses_decision else "no_decision_discussed"
        # What was said always counts: an absent subject explains a pass and never excuses a failure.
        passes = all(each.status == "pass" for each in judged)
        return "topic_not_present" if passes and not judge_checks()[check].is_about(self._words) else None

    def _result(self, judged: JudgedCheck) -> CheckResult:
        entry = judge_checks()[judged.check]
        span = self._quotes.find(judged.quote)
        notes = [judged.explanation.strip()]
        if judged.quote.strip() and span is None:
            notes.append("(The judge's quote is not in the text and was dropped.)")
        requirement = judged.requirement if judged.requirement in entry.requirements else entry.requirement
        start, end = span or (None, None)
        return CheckResult(
            check=judged.check,
            status="fail" if judged.status == "fail" else "pass",
            severity=None if judged.severity == "none" else judged.severity,
            requirement=requirement,
            explanation=" ".join(filter(None, notes)),
            quote=None if span is None else self._text[start:end],
            start=start,
            end=end,
            source="judge",
        )


def results_of_nothing(*, complete: bool) -> tuple[CheckResult, ...]:
    """Return the results for a reply of blanks: nothing was said, so nothing was said wrongly."""
    omitted: NotApplicableReason = "no_decision_discussed" if complete else "turn_ended_early"
    return tuple(
        _left_out(name, omitted if check.kind == "omission" else "topic_not_present")
        for name, check in judge_checks().items()
    )


def _left_out(check: CheckName, reason: NotApplicableReason) -> CheckResult:
    return CheckResult(
        check=check,
        status="not_applicable",
        requirement=judge_checks()[check].requirement,
        explanation=_WHY_LEFT_OUT[reason],
        source="program",
        reason=reason,
    )

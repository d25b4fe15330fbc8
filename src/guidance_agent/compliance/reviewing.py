"""Decisions of people on what a judge failed, could not say clearly, or could not judge at all.

A person *approves* a text or *upholds* that it failed. Either makes a verdict of its own that stands instead of the
judge's: with the checks that the judge or the rules failed answered by the person, the others as they were, and the
person's name and reason. The judge's verdict stays on record beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from guidance_agent.advisor.events import Judged, event_to_json
from guidance_agent.compliance.judge_checks import judge_checks
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Verdict
from guidance_agent.core.reviews import Decision, PersonsVerdict, Review, ReviewRecords
from guidance_agent.core.text import is_storable
from guidance_agent.errors import InputError

if TYPE_CHECKING:
    from guidance_agent.core.types import JsonObject

__all__ = ["Decided", "ReviewDesk", "verdict_of_person"]

LONGEST_NAME = 200
LONGEST_REASON = 5_000

_A_PERSON = "a person"
_FOUND = "A person found nothing wrong here."
_UPHELD = "A person found this check failed."


class Decided(NamedTuple):
    """What became of a review: as it stands now, and the verdict that was stored."""

    review: Review
    verdict_id: str
    verdict: Verdict


class ReviewDesk:
    """Where a person decides reviews."""

    def __init__(self, reviews: ReviewRecords) -> None:
        self._reviews = reviews

    async def claim(self, reference: str, *, reviewer: str, take_over: bool = False, release: bool = False) -> Review:
        """Claim a review, or give it back, and return it; `reference` is its id or its turn's.

        Raises:
            UnknownReviewError: when there is none.
            ReviewDecidedError: when it is decided.
            ReviewClaimedError: when somebody else has claimed it, unless it is taken over.
            InputError: when `reviewer` is no name.
        """
        person = _line(reviewer, "reviewer", LONGEST_NAME)
        review = await self._reviews.find(reference)
        change = self._reviews.release if release else self._reviews.claim
        await change(review.id, person, take_over=take_over)
        return await self._reviews.find(review.id)

    async def decide(
        self,
        reference: str,
        decision: Decision,
        *,
        reason: str,
        reviewer: str,
        failed: Sequence[CheckName] = (),
        again: bool = False,
        take_over: bool = False,
    ) -> Decided:
        """Record a person's decision with its time, and have it stand instead of the judge's.

        Args:
            reference: The review's id, or its turn's.
            decision: `approve` when the text was right, `uphold` when it was not.
            reason: Why, in the person's words; kept in the records and told to nobody else.
            reviewer: Who decides.
            failed: Checks that failed in the person's view, besides those that the judge failed; with `uphold`.
            again: Decide a decided review anew.
            take_over: Decide a review that somebody else has claimed.

        Raises:
            UnknownReviewError: when there is none.
            ReviewDecidedError: when it is decided, and `again` was not said.
            ReviewClaimedError: when somebody else has claimed it.
            InputError: when reason or reviewer are empty or too long, or checks are named for an approval.
        """
        person = _line(reviewer, "reviewer", LONGEST_NAME)
        why = _line(reason, "reason", LONGEST_REASON)
        if decision == "approve" and failed:
            raise InputError(f"An approval names no failed checks ({', '.join(failed)}). Uphold, or leave them out.")
        review = await self._reviews.find(reference)
        about = await self._reviews.text_of(review)
        judged = None if about.verdict is None else Verdict.model_validate(about.verdict)
        verdict = await asyncio.to_thread(
            verdict_of_person,
            decision,
            judged,
            text_hash=about.text_hash,
            reason=why,
            reviewer=person,
            failed=failed,
            simulated=review.simulated,
        )
        # Customers' applications get the verdict, and neither the person's name nor what they wrote about it.
        told = verdict.model_copy(update={"reviewer": _A_PERSON, "reasoning": ""})
        verdict_id = await self._reviews.decide(
            review.id,
            PersonsVerdict(
                decision=decision,
                reason=why,
                person=person,
                passed=verdict.passed,
                about=about,
                policy_version=verdict.policy_version,
                verdict=verdict.model_dump(mode="json"),
                told=told.model_dump(mode="json"),
                event=lambda values, verdict_id, sequence: _event(review.turn_id, values, verdict_id, sequence),
            ),
            again=again,
            take_over=take_over,
        )
        return Decided(await self._reviews.find(review.id), verdict_id, verdict)


def verdict_of_person(
    decision: Decision,
    judged: Verdict | None,
    *,
    text_hash: str,
    reason: str,
    reviewer: str,
    failed: Sequence[CheckName] = (),
    simulated: bool = False,
) -> Verdict:
    """Return the verdict that a decision makes of a judge's, or of none.

    An approval answers what failed and what was not answered. What is upheld keeps its failures and gets those that the
    person names; where nobody named any, no check is answered, and that has not passed either.
    """
    before = () if judged is None else judged.checks
    if decision == "approve":
        checks = (*map(_approved, before), *_answered(before))
    else:
        known = {result.check for result in before if result.status == "fail"}
        named = [check for check in dict.fromkeys(failed) if check not in known]
        # What the judge called right, or the program left out, and the person calls wrong, is wrong.
        checks = (*(result for result in before if result.check not in named), *map(_failed, named))
    return Verdict(
        checks=checks,
        confidence=1.0,
        reasoning=reason,
        policy_version=judging_version() if judged is None else judged.policy_version,
        text_hash=text_hash,
        simulated=simulated,
        rules=None if judged is None else judged.rules,
        reviewer=reviewer,
    )


def _approved(result: CheckResult) -> CheckResult:
    if result.status != "fail":
        return result
    change = {"status": "pass", "severity": None, "explanation": _FOUND, "source": "reviewer"}
    return result.model_copy(update=change)


def _answered(before: Sequence[CheckResult]) -> Iterator[CheckResult]:
    answered = {result.check for result in before}
    for check in CHECKS:
        if check not in answered:
            yield CheckResult(
                check=check,
                status="pass",
                requirement=judge_checks()[check].requirement,
                explanation=_FOUND,
                source="reviewer",
            )


def _failed(check: CheckName) -> CheckResult:
    return CheckResult(
        check=check,
        status="fail",
        severity="high",
        requirement=judge_checks()[check].requirement,
        explanation=_UPHELD,
        source="reviewer",
    )


def _event(turn_id: str, values: JsonObject, verdict_id: str, sequence: int) -> JsonObject:
    return event_to_json(Judged(turn_id=turn_id, sequence=sequence, verdict_id=verdict_id, verdict=values))


def _line(text: str, name: str, longest: int) -> str:
    line = text.strip()
    if not line or len(line) > longest or not is_storable(line):
        shown = f"{line[:40]}…" if len(line) > 40 else line
        raise InputError(f"{name}={shown!r} cannot be recorded. Give 1 to {longest:,} characters of plain text.")
    return line

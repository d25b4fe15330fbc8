"""What a judge answers, and when it contradicts itself.

An answer is believed check by check or not at all. Whatever could be read as a pass and as a fail makes the whole
answer unreadable: nobody chooses the half that is more agreeable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from guidance_agent.compliance.verdict import CheckName

__all__ = ["JudgeAnswer", "JudgedCheck", "contradiction_in"]

# Offered two answers and read with three: a judge that leaves a check out all the same is understood to have done so.
_Status = Annotated[
    Literal["pass", "fail", "not_applicable"], WithJsonSchema({"type": "string", "enum": ["pass", "fail"]})
]
_STATED_FAILURE = re.compile(
    r"\b(?:FAIL(?:S|ED|URE)?|BREACH(?:ES|ED)?)\b"
    r"|^\W*(?i:fail(?:s|ed|ure)?|breach(?:es|ed)?)\b"
    r"|\b(?i:status|verdict|result|overall|outcome)\b\W*(?:[:=]|(?i:\b(?:is|was|should be|must be|ought to be)\b))\W*"
    r"(?i:(?:an?|not a?|rather)\W+)*(?i:fail(?:s|ed|ure)?|breach)\b"
)
_LETTER = re.compile(r"[^\W\d_]")


class JudgedCheck(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    check: CheckName
    quote: str
    explanation: str
    status: _Status
    severity: Literal["none", "low", "medium", "high", "critical"]
    requirement: str


class JudgeAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning: str
    checks: list[JudgedCheck]
    confidence: float = Field(ge=0.0, le=1.0, allow_inf_nan=False)


def contradiction_in(answer: JudgeAnswer) -> str | None:
    """Return the first contradiction in a few words of our own; None where there is none."""
    return next(_contradictions(answer), None)


def _contradictions(answer: JudgeAnswer) -> Iterator[str]:
    seen: dict[CheckName, str] = {}
    for judged in answer.checks:
        before = seen.setdefault(judged.check, judged.status)
        if before != judged.status:
            yield f"{judged.check} is answered both {before} and {judged.status}"
        match judged.status:
            case "fail":
                yield from _against_a_fail(judged)
            case "pass":
                yield from _against_a_pass(judged)
    answered = [judged.check for judged in answer.checks if judged.status != "fail"]
    for check in seen:
        if answered.count(check) > 1:
            yield f"{check} is answered twice"
    if "fail" not in seen.values() and _STATED_FAILURE.search(answer.reasoning):
        yield "every check passes and the reasoning speaks of a failure"


def _against_a_fail(judged: JudgedCheck) -> Iterator[str]:
    if _LETTER.search(judged.explanation) is None:
        yield f"{judged.check} fails without an explanation"
    if judged.severity == "none":
        yield f"{judged.check} fails with no severity"


def _against_a_pass(judged: JudgedCheck) -> Iterator[str]:
    if judged.severity != "none":
        yield f"{judged.check} passes with the severity {judged.severity}"
    if _STATED_FAILURE.search(judged.explanation):
        yield f"{judged.check} passes and its explanation speaks of a failure"

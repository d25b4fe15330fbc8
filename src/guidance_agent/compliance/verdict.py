"""The verdict on a text: what every check says, and what follows from all of them together.

A judge is never believed about the whole. It answers check by check; whether the text passed, and whether a person must
look, is computed here from those answers, so that no verdict can contradict itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

__all__ = [
    "CHECKS",
    "CheckName",
    "CheckResult",
    "CheckSource",
    "CheckStatus",
    "NotApplicableReason",
    "RulesRecord",
    "Severity",
    "Verdict",
]

CheckName = Literal[
    "advice_boundary",
    "risk_disclosure",
    "clear_not_misleading",
    "understanding_check",
    "signposting",
    "db_transfer",
    "scam",
    "vulnerability",
    "figures",
]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)

CheckStatus = Literal["pass", "fail", "not_applicable"]
Severity = Literal["low", "medium", "high", "critical"]
CheckSource = Literal["judge", "rules", "program", "reviewer"]
NotApplicableReason = Literal["no_decision_discussed", "turn_ended_early", "topic_not_present"]
"""Why the program, never the judge, leaves a check out."""


class CheckResult(BaseModel):
    """What one check says. `start` and `end` count code points of the judged text and enclose `quote`.

    `requirement` names the rule behind the check, `source` who found it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: CheckName
    status: CheckStatus
    severity: Severity | None = None
    requirement: str
    explanation: str
    quote: str | None = None
    start: int | None = Field(default=None, ge=0)
    end: int | None = Field(default=None, ge=0)
    source: CheckSource
    reason: NotApplicableReason | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len({self.quote is None, self.start is None, self.end is None}) > 1:
            raise ValueError("quote, start and end come together or not at all")
        is_left_out = self.status == "not_applicable"
        if is_left_out != (self.reason is not None) or (is_left_out and self.source != "program"):
            raise ValueError("a check is left out by the program, with its reason, or not at all")
        return self


class RulesRecord(BaseModel):
    """What the rules alone said of the text, so that it can be computed again and compared.

    Attributes:
        day: The day whose figures were right.
        version: Fingerprint of the rules, their policy, the knowledge base and the package.
        result: The whole of `compliance.checks.check_text`, as JSON values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: date
    version: str
    result: dict[str, Any]


class Verdict(BaseModel):
    """A verdict, whole or fallen short of one; its JSON reads back, what is computed is computed again.

    Attributes:
        checks: One result or more for each check; a missing check counts as failed.
        confidence: The judge's confidence in its answers, 0 to 1; 0 for an unreadable answer.
        unreadable: Why no answer of the judge could be read; None when one was.
        judge_model: The model that judged; None where rules alone decided.
        policy_version: Fingerprint of rules, policy and judge prompt.
        simulated: Whether the simulator stood in for the judge.
        rules: What the rules alone said of the text; None where they were not asked.
        reviewer: Who gave the verdict, where it was a person and not the judge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checks: tuple[CheckResult, ...]
    confidence: float = Field(ge=0.0, le=1.0)
    reasoning: str
    unreadable: str | None = None
    judge_model: str | None = None
    policy_version: str
    text_hash: str
    cost_usd: float | None = None
    simulated: bool = False
    rules: RulesRecord | None = None
    reviewer: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_computed(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if name not in cls.model_computed_fields}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether every check was answered and none failed."""
        answered = {result.check for result in self.checks}
        return (
            self.unreadable is None
            and answered.issuperset(CHECKS)
            and all(result.status != "fail" for result in self.checks)
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def needs_review(self) -> bool:
        """Whether a person must look: at what failed, and at what could not be judged."""
        return not self.passed

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The failed checks, in the order in which they were found."""
        return tuple(result for result in self.checks if result.status == "fail")

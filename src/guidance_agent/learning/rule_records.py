"""What the rules base keeps and tells: rules, where they come from, what happened to them, and their releases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from guidance_agent.core.types import JsonObject
from guidance_agent.learning.check_set import CheckReport
from guidance_agent.learning.rule_checks import RuleFinding

__all__ = ["Drafted", "Evidence", "PreparedRule", "Release", "ReleaseResult", "Rule", "RuleEvent", "RuleStatus"]

RuleStatus = Literal["draft", "released", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where a rule comes from: one failure, and the steps that led from it to the rule.

    Attributes:
        steps: What each step answered and which model, as JSON.
    """

    turn_id: str
    consultation_id: str
    verdict_id: str | None
    source: str
    requirement: str
    models: tuple[str, ...] = ()
    steps: tuple[JsonObject, ...] = ()

    def to_json(self) -> JsonObject:
        return {
            "turn_id": self.turn_id,
            "consultation_id": self.consultation_id,
            "verdict_id": self.verdict_id,
            "source": self.source,
            "requirement": self.requirement,
            "models": list(self.models),
            "steps": list(self.steps),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as it stands; `evidence` as `Evidence.to_json`, the failure it was first drawn from first."""

    id: str
    text: str
    confidence: float
    status: RuleStatus
    evidence: tuple[JsonObject, ...]
    created_at: datetime
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEvent:
    """Something that happened to a rule, with how it stood afterwards."""

    number: int
    kind: str
    status: RuleStatus
    confidence: float
    detail: JsonObject
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A version of the rules."""

    version: int
    released_at: datetime
    rule_ids: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRule:
    """A rule that was checked and embedded, ready to be stored in any transaction."""

    text: str
    confidence: float
    evidence: Evidence
    findings: tuple[RuleFinding, ...]
    columns: JsonObject
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """What became of a rule: a `draft`, evidence `merged` into one that says the same, or `refused` for `findings`."""

    outcome: Literal["draft", "merged", "refused"]
    rule_id: str | None = None
    findings: tuple[RuleFinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseResult:
    """Whether there is a new version, and why not.

    Attributes:
        release: The new version; None where none was made.
        reason: Why none was made; empty where one was.
        added, removed: Ids of rules that come and go with it.
        before, after: The answers of the check set with the rules in force, and with the new ones.
        worse: Questions of the check set that speak against it.
    """

    release: Release | None
    reason: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    before: CheckReport | None = None
    after: CheckReport | None = None
    worse: tuple[str, ...] = ()

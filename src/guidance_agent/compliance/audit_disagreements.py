"""Where gate, first verdict and audit do not agree about an answer, check by check, with what each of them found.

They disagree about a check where one of those who have it on their list finds it broken and another does not. The gate
has the checks that can be seen while an answer streams, and speaks here of what it let through: what it withheld nobody
was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from guidance_agent.compliance.audit_figures import GATE_CHECKS, Said, failing, say_of
from guidance_agent.compliance.audit_records import AuditedTurn
from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.rule_results import CHECK_OF_RULE
from guidance_agent.compliance.verdict import CHECKS, CheckName, Verdict

__all__ = ["By", "CheckDisagreement", "Redact", "Statement", "TurnDisagreement", "disagreement_about", "flagged_checks"]

By = Literal["gate", "first verdict", "audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one of the three found broken. `start` and `end` count code points of the delivered text."""

    by: By
    requirement: str
    severity: str | None
    quote: str | None
    start: int | None
    end: int | None
    explanation: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDisagreement:
    """A check about which they do not agree: who found it broken, who did not, and what was found."""

    check: CheckName
    broken: Sequence[By]
    kept: Sequence[By]
    statements: Sequence[Statement]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDisagreement:
    """An answer about which gate, first verdict and audit do not agree.

    Attributes:
        gate: What the gate did about it, action by action; `flagged` alone is about text that was delivered.
        first: What the first verdict said; None where there is none.
        review: How the review stands that the audit asked for; None where it asked for none.
    """

    turn_id: str
    ended_at: datetime
    model: str
    gate: Mapping[str, int]
    first: Said | None
    audit: Said
    unreadable: str | None
    review: str | None
    checks: Sequence[CheckDisagreement]


Redact = Callable[[str, tuple[str, ...]], str]
"""Takes a text and the names of a customer, and returns it as it may leave."""


def flagged_checks(turn: AuditedTurn) -> frozenset[CheckName]:
    """Return the checks by which the gate put delivered text on record."""
    return frozenset(CHECK_OF_RULE[each.check][0] for each in turn.flagged if each.check in CHECK_OF_RULE)


def disagreement_about(turn: AuditedTurn, redact: Redact) -> TurnDisagreement | None:
    """Return how they disagree about an answer; None where they agree."""
    checks = [each for check in CHECKS if (each := _about(turn, check, redact)) is not None]
    if not checks and (turn.first is None or turn.first.passed == turn.audit.passed):
        return None
    why = turn.audit.unreadable
    return TurnDisagreement(
        turn_id=turn.turn_id,
        ended_at=turn.ended_at,
        model=turn.model,
        gate=dict(sorted(turn.gate.items())),
        first=None if turn.first is None else say_of(turn.first),
        audit=say_of(turn.audit),
        unreadable=None if why is None else redact(why, turn.names),
        review=turn.review,
        checks=checks,
    )


def _about(turn: AuditedTurn, check: CheckName, redact: Redact) -> CheckDisagreement | None:
    kept: dict[By, bool] = {}
    if check in GATE_CHECKS:
        kept["gate"] = check not in flagged_checks(turn)
    if (first := _keeps(turn.first, check)) is not None:
        kept["first verdict"] = first
    if (audit := _keeps(turn.audit, check)) is not None:
        kept["audit"] = audit
    if len(set(kept.values())) < 2:
        return None
    return CheckDisagreement(
        check=check,
        broken=[by for by, keeps in kept.items() if not keeps],
        kept=[by for by, keeps in kept.items() if keeps],
        statements=[
            *_of_gate(turn, check, redact),
            *_of_verdict("first verdict", turn.first, check, turn.names, redact),
            *_of_verdict("audit", turn.audit, check, turn.names, redact),
        ],
    )


def _keeps(verdict: Verdict | None, check: CheckName) -> bool | None:
    """Whether a verdict finds a check kept; None where it says nothing of it."""
    if verdict is None:
        return None
    if check in failing(verdict):
        return False
    # What an unreadable answer would have said is unknown; what the rules found beside it is not.
    return True if verdict.unreadable is None else None


def _of_gate(turn: AuditedTurn, check: CheckName, redact: Redact) -> list[Statement]:
    policy = load_policy()
    return [
        Statement(
            by="gate",
            requirement=policy[each.check].requirement,
            severity=CHECK_OF_RULE[each.check][1],
            quote=redact(each.text, turn.names),
            start=each.start,
            end=each.end,
            explanation="Shown, and put on record.",
            source="rules",
        )
        for each in turn.flagged
        if each.check in CHECK_OF_RULE and CHECK_OF_RULE[each.check][0] == check
    ]


def _of_verdict(
    by: By, verdict: Verdict | None, check: CheckName, names: tuple[str, ...], redact: Redact
) -> list[Statement]:
    return [
        Statement(
            by=by,
            requirement=failure.requirement,
            severity=failure.severity,
            quote=None if failure.quote is None else redact(failure.quote, names),
            start=failure.start,
            end=failure.end,
            explanation=redact(failure.explanation, names),
            source=failure.source,
        )
        for failure in (() if verdict is None else verdict.failures)
        if failure.check == check
    ]

"""Counts audited turns as they come, and keeps those about which gate, first verdict and audit disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guidance_agent.compliance.audit_disagreements import (
    Redact,
    TurnDisagreement,
    disagreement_about,
    flagged_checks,
)
from guidance_agent.compliance.audit_figures import (
    GATE_CHECKS,
    SEVERITIES,
    Agreement,
    CheckFigures,
    Figures,
    count_checks,
    failing,
    say_of,
    week_of,
)
from guidance_agent.compliance.audit_records import AuditedTurn
from guidance_agent.compliance.verdict import CHECKS, CheckName

__all__ = ["AuditTally"]


def _groups() -> dict[str, dict[str, Figures]]:
    return {name: {} for name in ("week", "model", "judge", "rules", "policy")}


def _agreements() -> dict[CheckName, Agreement]:
    return {check: Agreement("first verdict", "audit") for check in CHECKS}


@dataclass(slots=True)
class AuditTally:
    """The figures of the turns that were added so far; `redact` is for what is quoted of them."""

    redact: Redact
    total: Figures = field(default_factory=Figures)
    checks: dict[CheckName, CheckFigures] = field(default_factory=lambda: {check: CheckFigures() for check in CHECKS})
    by: dict[str, dict[str, Figures]] = field(default_factory=_groups)
    reviews: Counter[str] = field(default_factory=Counter)
    first_and_audit: Agreement = field(default_factory=lambda: Agreement("first verdict", "audit"))
    gate_and_first: Agreement = field(default_factory=lambda: Agreement("gate", "first verdict"))
    gate_and_audit: Agreement = field(default_factory=lambda: Agreement("gate", "audit"))
    by_check: dict[CheckName, Agreement] = field(default_factory=_agreements)
    disagreements: list[TurnDisagreement] = field(default_factory=list)
    cost_usd: float = 0.0
    unpriced: int = 0

    @property
    def severities(self) -> Mapping[str, int]:
        """How many failed checks were how grave; a check counts once for each answer."""
        return {each: sum(figures.severities[each] for figures in self.checks.values()) for each in SEVERITIES}

    def add_all(self, turns: Sequence[AuditedTurn]) -> None:
        """Add several turns; redaction takes a moment, so call it off the event loop."""
        for turn in turns:
            self.add(turn)

    def add(self, turn: AuditedTurn) -> None:
        """Add a turn."""
        said = say_of(turn.audit)
        self.total.add(said)
        count_checks(self.checks, turn.audit)
        groups = {
            "week": week_of(turn.ended_at),
            "model": turn.model,
            "judge": turn.audit.judge_model or "none",
            "rules": "none" if turn.rules_version is None else str(turn.rules_version),
            "policy": turn.audit.policy_version,
        }
        for name, group in groups.items():
            self.by[name].setdefault(group, Figures()).add(said)
        if turn.audit.cost_usd is not None:
            self.cost_usd += turn.audit.cost_usd
        elif turn.audit.judge_model is not None:
            self.unpriced += 1
        if turn.review is not None:
            self.reviews[turn.review] += 1
        self._compare(turn)
        if (disagreement := disagreement_about(turn, self.redact)) is not None:
            self.disagreements.append(disagreement)

    def _compare(self, turn: AuditedTurn) -> None:
        gate_passes = not flagged_checks(turn)
        first = None if turn.first is None or turn.first.unreadable is not None else failing(turn.first)
        audit = None if turn.audit.unreadable is not None else failing(turn.audit)
        if turn.first is not None:
            self.first_and_audit.add(first=turn.first.passed, second=turn.audit.passed)
        if first is not None:
            self.gate_and_first.add(first=gate_passes, second=not first & GATE_CHECKS)
        if audit is not None:
            self.gate_and_audit.add(first=gate_passes, second=not audit & GATE_CHECKS)
        if first is not None and audit is not None:
            for check, agreement in self.by_check.items():
                agreement.add(first=check not in first, second=check not in audit)

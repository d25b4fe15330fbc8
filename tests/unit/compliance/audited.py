"""Audited turns for tests: what the gate, the first verdict and the audit found, as a test says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from guidance_agent.compliance.audit_records import AuditedTurn, Flagged
from guidance_agent.compliance.audit_subjects import AuditRun
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Severity, Verdict

__all__ = ["BEGAN", "TEXT", "audited", "run", "verdict"]

BEGAN = datetime(2026, 9, 7, 9, tzinfo=UTC)
TEXT = "Winnie, if I were you, I would take the whole pot out now."


def verdict(
    *failed: CheckName,
    severity: Severity = "high",
    unreadable: str | None = None,
    not_applicable: Collection[CheckName] = (),
    judge: str = "anthropic/claude-sonnet-5",
    policy: str = "4c3f9ba7c9eacf42",
    cost_usd: float | None = 0.004,
) -> Verdict:
    """A verdict in which the named checks failed on the first words, and the others passed."""

    def result(check: CheckName) -> CheckResult:
        if check in failed:
            return CheckResult(
                check=check, status="fail", severity=severity, requirement="COBS 9.4.1R", quote=TEXT[:29], start=0,
                end=29, explanation="It tells Winnie what to do.", source="judge",
            )  # fmt: skip
        if check in not_applicable:
            return CheckResult(
                check=check, status="not_applicable", requirement="R", explanation="Not about it.", source="program",
                reason="topic_not_present",
            )  # fmt: skip
        return CheckResult(check=check, status="pass", requirement="R", explanation="Fine.", source="judge")

    checks = tuple(result(check) for check in CHECKS if unreadable is None or check in failed)
    return Verdict(
        checks=checks, confidence=0.9, reasoning="r", unreadable=unreadable, judge_model=judge, policy_version=policy,
        text_hash="h", cost_usd=cost_usd,
    )  # fmt: skip


def audited(
    turn_id: str = "turn_1",
    *,
    first: Verdict | None = None,
    audit: Verdict | None = None,
    flagged: Sequence[str] = (),
    days: float = 0.0,
    model: str = "anthropic/claude-sonnet-5-5",
    rules_version: object = 1,
    review: str | None = None,
    unjudged: bool = False,
) -> AuditedTurn:
    """A turn that everybody passes, with changes."""
    return AuditedTurn(
        turn_id=turn_id,
        ended_at=BEGAN + timedelta(days=days),
        model=model,
        rules_version=rules_version,
        gate={"flagged": len(flagged)} if flagged else {},
        flagged=[Flagged(check, 8, 29, TEXT[8:29]) for check in flagged],
        first=None if unjudged else first or verdict(),
        audit=audit or verdict(),
        review=review,
        names=("Winnie",),
    )


def run(run_id: str = "audit_1", **outcomes: int) -> AuditRun:
    return AuditRun(run_id, "anthropic/claude-sonnet-5", "4c3f9ba7c9eacf42", {"share": 1.0}, False, BEGAN, 0, outcomes)

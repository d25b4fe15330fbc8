"""The words and figures of an audit report that its table and its page share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from guidance_agent.compliance.audit_figures import Agreement
from guidance_agent.compliance.audit_report import AuditReport
from guidance_agent.compliance.verdict import CheckName

__all__ = [
    "BY",
    "CHECK_NAMES",
    "agreement_words",
    "kappa_words",
    "money_words",
    "percent",
    "scope_words",
    "unpriced_words",
]

CHECK_NAMES: Final[Mapping[CheckName, str]] = {
    "advice_boundary": "Advice boundary",
    "risk_disclosure": "Risks disclosed",
    "clear_not_misleading": "Clear, not misleading",
    "understanding_check": "Understanding checked",
    "signposting": "Signposting",
    "db_transfer": "Safeguarded benefits",
    "scam": "Scams",
    "vulnerability": "Vulnerability",
    "figures": "Figures",
}

BY: Final[Mapping[str, str]] = {
    "week": "Week",
    "model": "Model that answered",
    "judge": "Judge",
    "rules": "Released rules in the prompt",
    "policy": "Policy of the judge",
}


def percent(share: float | None) -> str:
    """Return a share as a person reads it; a dash where it is not known."""
    return "–" if share is None else f"{share:.1%}"


def agreement_words(agreement: Agreement) -> str:
    """Return what an agreement says in one sentence."""
    if not agreement.answers:
        return "No answer was judged by both."
    told = (
        f"They agree about {agreement.both_passed + agreement.neither_passed:,} of {agreement.answers:,} answers "
        f"({percent(agreement.observed)}); by chance it would be {percent(agreement.expected)}."
    )
    if agreement.kappa is None:
        return f"{told} Both say one and the same of every answer, so there is no kappa."
    return f"{told} Cohen's kappa is {kappa_words(agreement)}."


def kappa_words(agreement: Agreement) -> str:
    """Return kappa to two places; a dash where there is none."""
    # Without a sign on what rounds to nothing.
    return "–" if agreement.kappa is None else f"{round(agreement.kappa, 2) + 0.0:.2f}"


def money_words(report: AuditReport) -> str:
    """Return what the audits cost."""
    partly = f"; {unpriced}" if (unpriced := unpriced_words(report)) else ""
    mark = " at list price, not charged" if report.simulated else ""
    return f"${report.cost_usd:,.4f}{mark}{partly}"


def unpriced_words(report: AuditReport) -> str:
    """Return how many verdicts the cost leaves out; nothing where it has all."""
    if not report.unpriced:
        return ""
    told = "1 verdict is" if report.unpriced == 1 else f"{report.unpriced:,} verdicts are"
    return f"{told} not in it, because the model has no known price"


def scope_words(report: AuditReport) -> str:
    """Return what the report is about, in one line."""
    run = "the newest audit of each answer" if report.run_id is None else f"run {report.run_id}"
    since = "" if report.since is None else f", from {report.since:%Y-%m-%d %H:%M} UTC"
    until = "" if report.until is None else f", before {report.until:%Y-%m-%d %H:%M} UTC"
    return f"{run}{since}{until}"

"""The report on audits: counted by the program from the verdicts on record, with every disagreement turn by turn.

Quotes and explanations go through redaction unless the report is for a place where personal data may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from guidance_agent.compliance.audit_disagreements import Redact, TurnDisagreement
from guidance_agent.compliance.audit_figures import Agreement, CheckFigures, Figures
from guidance_agent.compliance.audit_records import AuditRecords, Unanswered
from guidance_agent.compliance.audit_subjects import AuditRun
from guidance_agent.compliance.audit_tally import AuditTally
from guidance_agent.compliance.verdict import CheckName

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = ["AuditReport", "audit_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was audited and what came of it.

    Attributes:
        run_id: The run that the report is about; None is the newest audit of each turn.
        since: Only turns that ended then or later, and before `until`.
        redacted: Whether personal data was taken out of what people and models said.
        simulated: Whether answers of a simulator were audited; they are reported where there are no others.
        runs: The runs that are in it, the newest first.
        waiting: Turns of these runs that have no verdict yet.
        severities: How many checks failed how gravely, over all answers.
        by: Figures by `week`, `model`, `judge`, `rules` (the released version in the prompt) and `policy`.
        reviews: How many reviews that audits asked for stand how: `open`, `claimed`, `approve`, `uphold`.
        agreements: First verdict and audit on the whole; gate and each of them on the checks that the gate has.
        by_check_agreement: First verdict and audit on each check.
        unpriced: Verdicts of a model that has no price.
    """

    run_id: str | None
    since: datetime | None
    until: datetime | None
    redacted: bool
    simulated: bool
    runs: Sequence[AuditRun]
    waiting: int
    total: Figures
    checks: Mapping[CheckName, CheckFigures]
    severities: Mapping[str, int]
    by: Mapping[str, Mapping[str, Figures]]
    reviews: Mapping[str, int]
    agreements: Sequence[Agreement]
    by_check_agreement: Mapping[CheckName, Agreement]
    disagreements: Sequence[TurnDisagreement]
    unanswered: Sequence[Unanswered]
    cost_usd: float
    unpriced: int

    @property
    def needs_person(self) -> bool:
        """Whether a person must look: at a review that an audit asked for, or at turns that could not be audited."""
        return bool(self.unanswered) or self.reviews.get("open", 0) + self.reviews.get("claimed", 0) > 0


async def audit_report(
    database: Database,
    clock: Clock,
    *,
    run_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    full: bool = False,
) -> AuditReport:
    """Return the report on a run, or on the newest audit of every turn.

    Args:
        database: The records; open.
        clock: Times of the runs.
        run_id: The run; None is all of them.
        since: Only turns that ended then or later, and before `until`.
        full: Whether personal data stays in; for places that may hold it.

    Raises:
        UnknownAuditError: there is no such run.
        StorageError: when the records cannot be read.
    """
    records = AuditRecords(database, clock)
    scope = await records.scope(run_id=run_id, since=since, until=until)
    redact = _as_it_is if full else await asyncio.to_thread(_redaction)
    tally = AuditTally(redact)
    async for page in records.pages(scope):
        await asyncio.to_thread(tally.add_all, page)
    standing = await records.standing(scope)
    unanswered = [each._replace(error=redact(each.error, ())) for each in standing.unanswered]
    return AuditReport(
        run_id=run_id,
        since=since,
        until=until,
        redacted=not full,
        simulated=scope.simulated,
        runs=standing.runs,
        waiting=standing.waiting,
        total=tally.total,
        checks=tally.checks,
        severities=tally.severities,
        by={name: dict(sorted(groups.items(), key=_in_order)) for name, groups in tally.by.items()},
        reviews=tally.reviews,
        agreements=[tally.first_and_audit, tally.gate_and_first, tally.gate_and_audit],
        by_check_agreement=tally.by_check,
        disagreements=sorted(tally.disagreements, key=lambda each: (each.ended_at, each.turn_id)),
        unanswered=unanswered,
        cost_usd=tally.cost_usd,
        unpriced=tally.unpriced,
    )


def _in_order(group: tuple[str, Figures]) -> tuple[int, str]:
    """Order numbers by their value, before what is no number."""
    name = group[0]
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (10**10, name)


def _as_it_is(text: str, names: tuple[str, ...]) -> str:
    return text


def _redaction() -> Redact:
    from guidance_agent.tracing.redaction import Redactor

    redactor = Redactor()
    return lambda text, names: redactor.safely(partial(redactor.redact, known=names), text)

"""Audits: every delivered answer once more before a judge, in batches, at the batch price.

    turn ── not audited under this policy ──▶ waiting ── in a batch ──▶ passed, failed, unreadable or unanswered

The judge is asked what it is asked while answers are given (`reply.py`), and its answer is read by the same rules. The
verdict is stored for the purpose `audit:<run>` in the transaction that applies the result. It changes nothing that a
customer saw: the live verdict stands. Where that let pass what the audit does not, a person is asked to look, once for
each turn.

The rules are applied before a request leaves, and what they said is kept: little is left to be computed while the
transaction holds the records.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guidance_agent.compliance.audit_subjects import KIND, AuditPlan, AuditRun, AuditSubjects
from guidance_agent.compliance.audit_waiting import (
    WaitingSubject,
    examined_as_json,
    examined_from_json,
    has_failed_live,
    locked_subject,
    subjects_with_texts,
)
from guidance_agent.compliance.judge_answer import JudgeAnswer
from guidance_agent.compliance.reply import Asked, Reply
from guidance_agent.compliance.turn_judge import new_verdict, reply_of
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.batch_claims import BatchClaims
from guidance_agent.core.batch_processing import BatchKind, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.batch_work import WorkStanding
from guidance_agent.core.bulk import update_rows
from guidance_agent.core.delivered_text import delivered_text
from guidance_agent.core.schema import batch_claims
from guidance_agent.core.schema_audit import audit_turns
from guidance_agent.core.verdict_storing import StoringVerdict, store_together
from guidance_agent.core.verdicts import AUDIT

if TYPE_CHECKING:
    from guidance_agent.compliance.rule_results import ExaminedText
    from guidance_agent.compliance.validator import GuidanceValidator
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.core.delivered_text import DeliveredText

__all__ = ["KIND", "MOST_ATTEMPTS", "AuditPlan", "AuditRounds", "AuditRun", "process_audit_results", "validate_batch"]

MOST_ATTEMPTS = 3
"""In how many jobs a turn is sent whose item brought no answer."""

_logger = logging.getLogger("guidance_agent.audit")


class AuditRounds:
    """Audits delivered turns in batches: work in rounds, to be driven by whoever calls `advance` and `resume`.

    Args:
        database: The records; open.
        clock: Times and ids.
        validator: Makes the requests, and says who judges and by which policy.
        plan: What a run audits that a job opens by itself; None is everything.
        simulated: Whether a simulator stands in for the judge, which audits no answer of a model.
    """

    name = KIND

    def __init__(
        self,
        database: Database,
        clock: Clock,
        validator: GuidanceValidator,
        *,
        plan: AuditPlan | None = None,
        simulated: bool = False,
    ) -> None:
        self.subjects = AuditSubjects(database, clock)
        self._database = database
        self._clock = clock
        self._validator = validator
        self._plan = plan or AuditPlan()
        self._simulated = simulated
        self._claims = BatchClaims(database, clock)
        self._kinds = (BatchKind(name=KIND, operation="audit", output=JudgeAnswer, apply=self._apply),)

    @property
    def kinds(self) -> Sequence[BatchKind]:
        """The one kind of its batches."""
        return self._kinds

    async def open_new(self, *, limit: int) -> int:
        """Open a run on delivered turns that no run has under the present policy; returns how many it has."""
        most = limit if self._plan.limit is None else min(limit, self._plan.limit)
        run = await self.open_run(replace(self._plan, limit=most))
        return 0 if run is None else run.turns

    async def open_run(self, plan: AuditPlan) -> AuditRun | None:
        """Open a run by a plan; None where there is nothing to audit."""
        version = await self._version()
        return await self.subjects.open_run(
            plan, model=plan.model or self._validator.model, policy_version=version, simulated_judge=self._simulated
        )

    async def advance(self, batches: BatchProcessor) -> int:
        """Submit the turns that wait and are in no batch; returns how many items that were.

        Raises:
            ConfigurationError: the judge cannot be called as things are set up.
        """
        version = await self._version()
        here = sa.and_(audit_turns.c.state == "waiting", audit_turns.c.policy_version == version)
        ready = sa.select(audit_turns.c.id).where(here).order_by(audit_turns.c.turn_id)
        return await self._claims.submit_ready(batches, KIND, ready, self._requests, model=self._validator.model)

    async def standing(self) -> WorkStanding:
        """Return how turns stand under the present policy, and how many are in a batch by whichever."""
        version = await self._version()
        row = audit_turns.c
        claimed = sa.exists().where(batch_claims.c.kind == KIND, batch_claims.c.subject_id == row.id)
        waiting = sa.select(sa.func.count()).where(row.state == "waiting")
        queries = {
            "to be sent": waiting.where(row.policy_version == version, ~claimed),
            "in a batch": waiting.where(claimed),
        }

        def read(connection: sa.Connection) -> dict[str, int]:
            return {stage: connection.execute(query).scalar_one() for stage, query in queries.items()}

        stages, ended = await self._database.run(read), await self.subjects.outcomes(version)
        unanswered = ended.get("unanswered", 0)
        return WorkStanding(
            waiting={name: count for name, count in stages.items() if count},
            ended=ended,
            needs_person=[_told(unanswered)] if unanswered else [],
        )

    async def _version(self) -> str:
        return await asyncio.to_thread(lambda: self._validator.policy_version)

    async def _requests(self, subject_ids: Sequence[str]) -> Sequence[BatchRequest]:
        """Return the requests of subjects, in the order of their turns; what needs no judge is ended here."""
        made = []
        for first in range(0, len(subject_ids), 100):
            some = list(subject_ids[first : first + 100])
            found = await self._database.run(functools.partial(subjects_with_texts, subject_ids=some))
            made += await self._requests_of(found)
        # The verdicts are applied in this order, and whoever locks several turns locks them in it.
        return [request for _, request in sorted(made, key=lambda pair: pair[0])]

    async def _requests_of(
        self, found: Sequence[tuple[WaitingSubject, DeliveredText | None]]
    ) -> list[tuple[str, BatchRequest]]:
        made, examined, ended = [], [], []
        for subject, shown in found:
            if subject.policy_version != self._validator.policy_version:
                # By another version of the program; what is asked here would be by this one's policy.
                continue
            if shown is None or not shown.text.strip():
                ended.append((subject, shown))
                continue
            reply = reply_of(shown)
            said = await asyncio.to_thread(self._validator.replies.examine, reply)
            examined.append((subject.id, {"examined": examined_as_json(said)}))
            ids = {"turn_id": subject.turn_id, "consultation_id": shown.consultation_id, "run_id": subject.run_id}
            request = await self._validator.batch_request(
                reply, custom_id=subject.id, model=subject.model, metadata=ids
            )
            made.append((subject.turn_id, request))

        def write(connection: sa.Connection) -> None:
            update_rows(connection, audit_turns, examined)
            for subject, shown in ended:
                if locked_subject(connection, subject.id) is None:
                    continue
                if shown is None:
                    self._end(connection, subject, "gone", error="The turn is not in the records any more.")
                else:
                    self._store(connection, subject, self._validator.replies.of_nothing(reply_of(shown)))

        await self._database.transaction(write)
        return made

    def _apply(self, connection: sa.Connection, result: BatchResult) -> None:
        """Carry one result over: a verdict, or that there is none yet."""
        subject = locked_subject(connection, result.custom_id)
        if subject is None:
            return
        shown = delivered_text(connection, subject.turn_id)
        if shown is None:
            self._end(connection, subject, "gone", error="The turn is not in the records any more.")
            return
        if not result.success and result.outcome != "invalid":
            self._no_answer(connection, subject, result)
            return
        replies, reply = self._validator.replies, reply_of(shown)
        examined = self._examined(subject, reply)
        asked = Asked(subject.model, result.cost, result.simulated)
        if isinstance(result.parsed, JudgeAnswer):
            verdict = replies.verdict(reply, examined, result.parsed, asked)
        else:
            why = result.error or f"The answer of {subject.model!r} is none that can be read."
            verdict = replies.unreadable(reply, examined, why=why, asked=asked)
        self._store(connection, subject, verdict)

    def _store(self, connection: sa.Connection, subject: WaitingSubject, verdict: Verdict) -> None:
        # It was asked by the policy of its run, which may be older than the one that is installed by now.
        verdict = verdict.model_copy(update={"policy_version": subject.policy_version})
        new = new_verdict(verdict, turn_id=subject.turn_id, purpose=f"{AUDIT}{subject.run_id}", reviewed=False)
        if not verdict.passed and not has_failed_live(connection, subject.turn_id):
            new = replace(new, review="audit")
        storing = StoringVerdict(new, (), lambda *_: {}, lambda *_: {}, self._clock)
        (verdict_id,) = store_together(connection, [storing])
        outcome = "unreadable" if verdict.unreadable is not None else "passed" if verdict.passed else "failed"
        self._end(connection, subject, outcome, verdict_id=verdict_id, error=verdict.unreadable)

    def _no_answer(self, connection: sa.Connection, subject: WaitingSubject, result: BatchResult) -> None:
        attempts = subject.attempts + 1
        error = result.error or result.outcome
        # Sent again as long as it may help; either way it is free to be claimed by whoever sends it.
        self._claims.let_go(connection, KIND, [subject.id])
        if result.outcome in ("errored_fatal", "canceled") or attempts >= MOST_ATTEMPTS:
            _logger.warning("turn %s could not be audited: %s", subject.turn_id, error)
            self._end(connection, subject, "unanswered", error=f"{result.outcome}: {error}", attempts=attempts)
            return
        change = sa.update(audit_turns).where(audit_turns.c.id == subject.id)
        connection.execute(change.values(attempts=attempts, error=f"{result.outcome}: {error}"))

    def _end(self, connection: sa.Connection, subject: WaitingSubject, outcome: str, **values: Any) -> None:
        # Read again under its lock before: nobody else has ended it.
        ended = {
            "state": "ended",
            "outcome": outcome,
            "attempts": subject.attempts,
            "examined": None,
            "verdict_id": None,
            "error": None,
            "ended_at": self._clock.now(),
        }
        update_rows(connection, audit_turns, [(subject.id, ended | values)])

    def _examined(self, subject: WaitingSubject, reply: Reply) -> ExaminedText:
        """Return what the rules say: what they said when the request was made, where they are still the same."""
        kept = None if subject.examined is None else examined_from_json(subject.examined)
        if kept is not None and kept.record.version == self._validator.replies.rules.version:
            return kept
        return self._validator.replies.examine(reply)


def _told(unanswered: int) -> str:
    turns = "1 turn" if unanswered == 1 else f"{unanswered} turns"
    return (
        f"{turns} could not be audited. `guidance-agent audit report` says why; `guidance-agent audit run --retry` "
        "tries again."
    )


async def validate_batch(
    rounds: AuditRounds, batches: BatchProcessor, plan: AuditPlan | None = None
) -> AuditRun | None:
    """Open a run and send what it asks in batches; None where there is nothing to audit.

    Args:
        rounds: The audits.
        batches: A processor that knows `rounds.kinds`.
        plan: What is audited; None is every delivered turn that no run has.

    Raises:
        ConfigurationError: the judge cannot be called as things are set up.
    """
    run = await rounds.open_run(plan or AuditPlan())
    await rounds.advance(batches)
    return None if run is None else await rounds.subjects.run(run.id)


async def process_audit_results(rounds: AuditRounds, batches: BatchProcessor, run_id: str) -> AuditRun:
    """Take everything as far as it goes now (collect, judge, send again), and return how a run stands.

    Raises:
        UnknownAuditError: there is no such run.
    """
    await rounds.subjects.run(run_id)
    await batches.resume()
    await rounds.advance(batches)
    return await rounds.subjects.run(run_id)

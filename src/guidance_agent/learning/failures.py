"""Failures worth reflecting on: answers that failed and stand failed, each of them once.

A turn is one where its verdict stands failed and a person has upheld it, or had a day to look and did not; where a
consultation has the outcome `failed` without such a turn, its last answer is. A turn about which there is a reflection
that has ended is none any more. Answers that nobody was shown are none: they were stopped in time. What says which
failures are new is what was reflected on, and never the clock.

What a simulator answered teaches nothing about customers, and is left out unless the records hold nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import sqlalchemy as sa

from guidance_agent.compliance.verdict import CheckResult, Verdict
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.delivered_text import delivered_text
from guidance_agent.core.schema import batch_claims, batch_jobs, consultations, reflections, reviews, turns
from guidance_agent.core.verdicts import VerdictRecords
from guidance_agent.tracing.people import people_of

__all__ = ["KIND_PREFIX", "REVIEW_TIME", "Failure", "FailureRecords", "FailureSource", "being_reviewed", "in_batch"]

FailureSource = Literal["verdict", "review", "outcome"]

REVIEW_TIME = timedelta(hours=24)
"""How long a person may look at a failed verdict before it counts as upheld."""

KIND_PREFIX = "reflection."
"""How the names begin of the kinds of batches in which reflections stand; the stage follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that failed, with everything that a reflection on it needs to know.

    Attributes:
        checks: The checks that failed; none where only the consultation's outcome says so.
        reason: What a person wrote about it, a reviewer or whoever recorded the outcome.
        names: The customer and whom their profile tells of, whom nothing that is learned may name; see `people_of`.
    """

    turn_id: str
    consultation_id: str
    verdict_id: str | None
    source: FailureSource
    question: str
    text: str
    checks: tuple[CheckResult, ...] = ()
    reason: str | None = None
    names: tuple[str, ...] = ()
    simulated: bool = False


class FailureRecords:
    """Finds failures in the records. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._verdicts = VerdictRecords(database, clock)

    async def is_all_simulated(self) -> bool:
        """Whether no answer in the records is a real model's."""
        real = sa.select(turns.c.id).where(turns.c.simulated.is_(False)).limit(1)
        return await self._database.run(lambda connection: connection.execute(real).first() is None)

    async def waiting(self, limit: int = 100) -> tuple[Failure, ...]:
        """Return failures that nobody has reflected on to the end, and that stand in no batch, the oldest first."""
        done = sa.exists().where(
            reflections.c.turn_id == turns.c.id, sa.or_(reflections.c.stage == "ended", in_batch())
        )
        return await self._failures_without(done, limit)

    async def unreflected(self, limit: int = 100) -> tuple[Failure, ...]:
        """Return failures on which no reflection has begun, the oldest first."""
        return await self._failures_without(sa.exists().where(reflections.c.turn_id == turns.c.id), limit)

    async def find(self, turn_id: str) -> Failure | None:
        """Return what failed in a turn; None where nothing stands failed, or nothing was delivered, or not yet all."""

        def read(connection: sa.Connection) -> tuple[str | None, str | None, bool] | None:
            row = connection.execute(
                sa.select(turns.c.simulated, consultations.c.outcome, consultations.c.outcome_reason)
                .join(consultations, consultations.c.id == turns.c.consultation_id)
                .where(
                    turns.c.id == turn_id, sa.or_(turns.c.judgement == "failed", consultations.c.outcome == "failed")
                )
            ).first()
            if row is None:
                return None
            upheld = connection.execute(
                sa.select(reviews.c.reason)
                .where(reviews.c.turn_id == turn_id, reviews.c.decision == "uphold")
                .order_by(reviews.c.decided_at.desc())
                .limit(1)
            ).scalar_one_or_none()
            return upheld, row.outcome_reason if row.outcome == "failed" else None, bool(row.simulated)

        told = await self._database.run(read)
        shown = await self._database.run(lambda connection: delivered_text(connection, turn_id))
        if told is None or shown is None or not shown.text.strip():
            return None
        upheld_because, outcome_reason, simulated = told
        stored = await self._verdicts.standing_verdict(turn_id) if shown.judgement == "failed" else None
        source: FailureSource = "outcome" if stored is None else "verdict" if upheld_because is None else "review"
        return Failure(
            turn_id=turn_id,
            consultation_id=shown.consultation_id,
            verdict_id=None if stored is None else stored.id,
            source=source,
            question=shown.question,
            text=shown.text,
            checks=() if stored is None else Verdict.model_validate(stored.verdict).failures,
            reason=upheld_because or outcome_reason,
            names=people_of(shown.customer_id, shown.profile),
            simulated=simulated,
        )

    async def _failures_without(self, done: sa.ColumnElement[bool], limit: int) -> tuple[Failure, ...]:
        simulated_too = await self.is_all_simulated()
        ids = await self._database.run(lambda connection: self._failed_ids(connection, done, limit, simulated_too))
        found = [await self.find(turn_id) for turn_id in ids]
        return tuple(failure for failure in found if failure is not None)

    def _failed_ids(
        self, connection: sa.Connection, done: sa.ColumnElement[bool], limit: int, simulated_too: bool
    ) -> list[str]:
        failed = turns.alias("failed")
        later = turns.alias("later")
        has_failed_turn = sa.exists().where(
            failed.c.consultation_id == turns.c.consultation_id, failed.c.judgement == "failed"
        )
        has_later_turn = sa.exists().where(
            later.c.consultation_id == turns.c.consultation_id,
            later.c.ordinal > turns.c.ordinal,
            later.c.delivered_length > 0,
        )
        last_of_failed = sa.and_(consultations.c.outcome == "failed", ~has_failed_turn, ~has_later_turn)
        query = (
            sa.select(turns.c.id)
            .join(consultations, consultations.c.id == turns.c.consultation_id)
            .where(
                turns.c.delivered_length > 0,
                turns.c.state != "streaming",
                sa.or_(sa.and_(turns.c.judgement == "failed", ~being_reviewed(self._clock)), last_of_failed),
                ~done,
            )
            .order_by(turns.c.ended_at, turns.c.id)
            .limit(limit)
        )
        if not simulated_too:
            query = query.where(turns.c.simulated.is_(False))
        return list(connection.execute(query).scalars())


def being_reviewed(clock: Clock) -> sa.ColumnElement[bool]:
    """The condition of turns that a person is still given time to look at."""
    return sa.exists().where(
        reviews.c.turn_id == turns.c.id,
        reviews.c.status != "decided",
        reviews.c.opened_at > clock.now() - REVIEW_TIME,
    )


def in_batch() -> sa.ColumnElement[bool]:
    """The condition of reflections whose request stands in a job of batches that is not done, or not made yet."""
    claim, job = batch_claims.c, batch_jobs.c
    kind = sa.literal(KIND_PREFIX) + reflections.c.stage
    done = sa.exists().where(job.id == claim.job_key, job.state == "done")
    return sa.exists().where(claim.kind == kind, claim.subject_id == reflections.c.id, ~done)

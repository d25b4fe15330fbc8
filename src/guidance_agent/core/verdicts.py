"""Verdicts on recorded text: what waits for one, and storing one together with everything that follows from it.

A turn that delivered text waits with `judgement = 'pending'`, written in the transaction that recorded its delivery. A
verdict, the events and corrections that tell of it, the review that it asks for, the annotation of the answer's span,
and the new state of the turn are written in one transaction under the verdict's key, so that work that is done twice is
stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.annotations import annotate, of_unjudged, of_verdict
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.delivered_text import DeliveredText, delivered_text
from guidance_agent.core.schema import corrections, reviews, turn_events, turns, verdicts
from guidance_agent.core.types import JsonObject, Judgement, TurnState

__all__ = [
    "CANDIDATE",
    "LIVE",
    "REVIEW",
    "Backlog",
    "NewCorrection",
    "NewVerdict",
    "ReviewCause",
    "Standing",
    "StoredVerdict",
    "UndeliveredCorrection",
    "VerdictRecords",
    "WaitingTurn",
]

ReviewCause = Literal["fail", "unreadable", "unjudged"]

LIVE = "live"
"""The purpose of the verdict on what a customer was shown; a judge's for another changes no turn's state."""

REVIEW = "review"
"""The purpose of a person's verdict, which counts instead of the judge's; a turn's later ones are `review:2` and on."""

CANDIDATE = "candidate:"
"""How the purposes begin of verdicts on texts that were not shown yet; the number of the version follows, from 0."""


class WaitingTurn(NamedTuple):
    """A turn that waits for its verdict: its id, the hash of its delivered text, and when it ended."""

    turn_id: str
    text_hash: str
    ended_at: datetime


class Standing(NamedTuple):
    """How a turn and its judgement stand; `judgement` is None where nothing was delivered, or the turn still runs."""

    state: TurnState
    judgement: Judgement | None


class Backlog(NamedTuple):
    """What has no verdict: turns that wait, since when the oldest does, and turns that a person must look at."""

    pending: int
    oldest: datetime | None
    unjudged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVerdict:
    """A verdict to be stored. `review` is why a person must look at it, `detail` what they should know first.

    `text` is what was judged, where that was not shown: nothing else keeps it then.
    """

    turn_id: str
    text_hash: str
    policy_version: str
    purpose: str = LIVE
    passed: bool
    needs_review: bool
    verdict: JsonObject
    judge_model: str | None
    cost_usd: float | None
    simulated: bool
    review: ReviewCause | None = None
    detail: str = ""
    text: str | None = None


class NewCorrection(NamedTuple):
    """The delivered text from `start` to `end` is to be read as `replacement`."""

    start: int
    end: int
    replacement: str
    reason: str


class StoredVerdict(NamedTuple):
    """A verdict as it is in the records."""

    id: str
    verdict: JsonObject
    created_at: datetime


class UndeliveredCorrection(NamedTuple):
    """A correction that its customer has not received: its id and the event that tells of it."""

    id: str
    payload: JsonObject


class VerdictRecords:
    """Queries on verdicts. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def waiting(self, limit: int, *, without: Collection[str] = ()) -> tuple[WaitingTurn, ...]:
        """Return turns that wait for a verdict, those that ended first first."""
        return await self._with_judgement("pending", limit, without)

    async def unjudged(
        self, limit: int, *, ended_after: datetime, without: Collection[str] = ()
    ) -> Sequence[WaitingTurn]:
        """Return turns that could not be judged, as far as they ended after a time."""
        found = await self._with_judgement("unjudged_needs_review", limit, without)
        return tuple(turn for turn in found if turn.ended_at > ended_after)

    async def _with_judgement(
        self, judgement: Judgement, limit: int, without: Collection[str]
    ) -> tuple[WaitingTurn, ...]:
        # The newest of the unjudged, because the old ones are given up; the oldest of those that wait.
        order = turns.c.ended_at if judgement == "pending" else turns.c.ended_at.desc()
        query = (
            sa.select(turns.c.id, turns.c.text_hash, turns.c.ended_at)
            .where(turns.c.judgement == judgement)
            .order_by(order)
            .limit(limit + len(without))
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return tuple(WaitingTurn(*row) for row in rows if row.id not in without)[:limit]

    async def backlog(self) -> Backlog:
        """Return how much has no verdict."""

        def read(connection: sa.Connection) -> Backlog:
            pending, oldest = connection.execute(
                sa.select(sa.func.count(), sa.func.min(turns.c.ended_at)).where(turns.c.judgement == "pending")
            ).one()
            unjudged = connection.execute(
                sa.select(sa.func.count()).where(turns.c.judgement == "unjudged_needs_review")
            ).scalar_one()
            return Backlog(pending, oldest, unjudged)

        return await self._database.run(read)

    async def standing(self, turn_id: str) -> Standing | None:
        """Return how a turn and its judgement stand; None when there is no such turn."""
        query = sa.select(turns.c.state, turns.c.judgement).where(turns.c.id == turn_id)
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else Standing(*row)

    async def delivered_text(self, turn_id: str) -> DeliveredText | None:
        """Return what a turn that has ended delivered; None when it has not ended, or there is no such turn."""
        return await self._database.run(lambda connection: delivered_text(connection, turn_id))

    async def verdict(self, turn_id: str, *, purpose: str = LIVE) -> StoredVerdict | None:
        """Return the newest verdict on a turn for a purpose, if there is one."""
        query = (
            sa.select(verdicts.c.id, verdicts.c.verdict, verdicts.c.created_at)
            .where(verdicts.c.turn_id == turn_id, verdicts.c.purpose == purpose)
            .order_by(verdicts.c.created_at.desc(), verdicts.c.id.desc())
            .limit(1)
        )
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else StoredVerdict(*row)

    async def standing_verdict(self, turn_id: str) -> StoredVerdict | None:
        """Return the verdict that counts for a turn: the newest of a person, else the judge's on what was delivered."""
        query = (
            sa.select(verdicts.c.id, verdicts.c.verdict, verdicts.c.created_at)
            .where(
                verdicts.c.turn_id == turn_id,
                sa.or_(verdicts.c.purpose.in_((LIVE, REVIEW)), verdicts.c.purpose.like(f"{REVIEW}:%")),
            )
            .order_by(sa.case((verdicts.c.purpose == LIVE, 1), else_=0), verdicts.c.created_at.desc())
            .limit(1)
        )
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else StoredVerdict(*row)

    async def passed_as_candidate(self, turn_id: str, text_hash: str, policy_version: str) -> StoredVerdict | None:
        """Return the verdict by which a text passed before it was shown, if it did, by this policy."""
        query = (
            sa.select(verdicts.c.id, verdicts.c.verdict, verdicts.c.created_at)
            .where(
                verdicts.c.turn_id == turn_id,
                verdicts.c.text_hash == text_hash,
                verdicts.c.policy_version == policy_version,
                verdicts.c.purpose.like(f"{CANDIDATE}%"),
                verdicts.c.passed,
            )
            .limit(1)
        )
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else StoredVerdict(*row)

    async def store_candidate(self, new: NewVerdict) -> str | None:
        """Store the verdict on a text that was not shown, and its review; the turn goes on and hears nothing of it.

        Returns:
            The verdict's id; None when it is stored already, or there is no such turn.
        """
        writing = _Storing(new, (), lambda *_: {}, lambda *_: {}, self._clock)
        return await self._database.transaction(writing.write)

    async def store(
        self,
        new: NewVerdict,
        corrected: Sequence[NewCorrection] = (),
        *,
        judged_payload: Callable[[str, int], JsonObject],
        corrected_payload: Callable[[str, int, NewCorrection], JsonObject],
    ) -> str | None:
        """Store a verdict and what follows from it, in one transaction.

        A verdict for the purpose `live` also ends the turn's wait, is told by a public event after the turn's last one,
        and brings its corrections, each with an event of its own.

        Args:
            judged_payload: Makes the event that tells of the verdict from the verdict's id and the event's number.
            corrected_payload: Makes the event of a correction from the same.

        Returns:
            The verdict's id; None when the turn has this verdict already, or has not ended.
        """
        writing = _Storing(new, tuple(corrected), judged_payload, corrected_payload, self._clock)
        return await self._database.transaction(writing.write)

    async def give_up(self, turn_id: str, *, detail: str) -> bool:
        """Hand a turn that cannot be judged to a person; a later verdict replaces that. False when it does not wait."""
        now, review_id = self._clock.now(), self._clock.new_id("review")

        def write(connection: sa.Connection) -> bool:
            change = sa.update(turns).where(turns.c.id == turn_id, turns.c.judgement == "pending")
            if not connection.execute(change.values(judgement="unjudged_needs_review")).rowcount:
                return False
            _open_review(connection, review_id, turn_id, None, "unjudged", detail, now)
            annotate(connection, self._clock, turn_id, partial(of_unjudged, detail))
            return True

        return await self._database.transaction(write)

    async def undelivered_corrections(self, consultation_id: str, *, before: str) -> tuple[UndeliveredCorrection, ...]:
        """Return the corrections of a consultation that nobody has received, without those of the turn `before`.

        Where a person has found the text right after all, nothing is to be corrected any more.
        """
        query = (
            sa.select(corrections.c.id, turn_events.c.payload)
            .join(turns, turns.c.id == corrections.c.turn_id)
            .join(
                turn_events,
                sa.and_(
                    turn_events.c.turn_id == corrections.c.turn_id, turn_events.c.sequence == corrections.c.sequence
                ),
            )
            .where(
                turns.c.consultation_id == consultation_id,
                turns.c.id != before,
                turns.c.judgement == "failed",
                corrections.c.delivered_at.is_(None),
            )
            .order_by(turns.c.ordinal, corrections.c.sequence)
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return tuple(UndeliveredCorrection(*row) for row in rows)

    async def corrections_delivered(self, ids: Sequence[str]) -> None:
        """Note that corrections were received; the first time counts."""
        await self._note_delivery(corrections.c.id.in_(ids))

    async def correction_delivered(self, turn_id: str, sequence: int) -> None:
        """Note that the correction with this event number was received; the first time counts."""
        await self._note_delivery(sa.and_(corrections.c.turn_id == turn_id, corrections.c.sequence == sequence))

    async def _note_delivery(self, which: sa.ColumnElement[bool]) -> None:
        change = (
            sa.update(corrections)
            .where(which, corrections.c.delivered_at.is_(None))
            .values(delivered_at=self._clock.now())
        )
        await self._database.transaction(lambda connection: connection.execute(change))


@dataclass(frozen=True, slots=True)
class _Storing:
    new: NewVerdict
    corrected: tuple[NewCorrection, ...]
    judged_payload: Callable[[str, int], JsonObject]
    corrected_payload: Callable[[str, int, NewCorrection], JsonObject]
    clock: Clock

    def write(self, connection: sa.Connection) -> str | None:
        new = self.new
        # The row's lock keeps another process that judges the same turn waiting until this verdict is stored.
        turn = connection.execute(
            sa.select(turns.c.consultation_id, turns.c.state, turns.c.judgement)
            .where(turns.c.id == new.turn_id)
            .with_for_update()
        ).first()
        may_run = new.purpose.startswith(CANDIDATE)
        if turn is None or (turn.state == "streaming" and not may_run) or self._is_stored(connection, turn.judgement):
            return None
        verdict_id, now = self.clock.new_id("verdict"), self.clock.now()
        connection.execute(
            sa.insert(verdicts).values(
                id=verdict_id,
                turn_id=new.turn_id,
                consultation_id=turn.consultation_id,
                text_hash=new.text_hash,
                policy_version=new.policy_version,
                purpose=new.purpose,
                passed=new.passed,
                needs_review=new.needs_review,
                verdict=new.verdict,
                judge_model=new.judge_model,
                cost_usd=new.cost_usd,
                simulated=new.simulated,
                created_at=now,
                text=new.text,
            )
        )
        if new.purpose == LIVE:
            self._tell(connection, verdict_id, now)
            said = partial(of_verdict, new.verdict)
            annotate(connection, self.clock, new.turn_id, said, verdict_id=verdict_id)
        if new.review is not None:
            review_id = self.clock.new_id("review")
            _open_review(connection, review_id, new.turn_id, verdict_id, new.review, new.detail, now)
        return verdict_id

    def _is_stored(self, connection: sa.Connection, judgement: str | None) -> bool:
        new = self.new
        if new.purpose == LIVE and judgement not in ("pending", "unjudged_needs_review"):
            return True
        same = sa.select(verdicts.c.id).where(
            verdicts.c.turn_id == new.turn_id,
            verdicts.c.text_hash == new.text_hash,
            verdicts.c.policy_version == new.policy_version,
            verdicts.c.purpose == new.purpose,
        )
        return connection.execute(same).first() is not None

    def _tell(self, connection: sa.Connection, verdict_id: str, now: datetime) -> None:
        turn_id = self.new.turn_id
        newest = sa.select(sa.func.max(turn_events.c.sequence)).where(turn_events.c.turn_id == turn_id)
        sequence = connection.execute(newest).scalar_one() + 1
        payloads = [self.judged_payload(verdict_id, sequence)]
        rows = []
        for correction in self.corrected:
            sequence += 1
            payloads.append(self.corrected_payload(verdict_id, sequence, correction))
            rows.append(
                {
                    "id": self.clock.new_id("correction"),
                    "turn_id": turn_id,
                    "verdict_id": verdict_id,
                    "span_start": correction.start,
                    "span_end": correction.end,
                    "replacement": correction.replacement,
                    "reason": correction.reason,
                    "sequence": sequence,
                    "created_at": now,
                }
            )
        connection.execute(
            sa.insert(turn_events),
            [
                {
                    "turn_id": turn_id,
                    "sequence": payload["sequence"],
                    "type": payload["type"],
                    "text": None,
                    "payload": payload,
                    "created_at": now,
                }
                for payload in payloads
            ],
        )
        if rows:
            connection.execute(sa.insert(corrections), rows)
        judgement: Judgement = "passed" if self.new.passed else "failed"
        connection.execute(
            sa.update(turns).where(turns.c.id == turn_id).values(judgement=judgement, last_sequence=sequence)
        )
        connection.execute(
            sa.update(reviews)
            .where(reviews.c.turn_id == turn_id, reviews.c.cause == "unjudged", reviews.c.status != "decided")
            .values(status="decided", decision="judged", decided_by="judge", decided_at=now)
        )


def _open_review(
    connection: sa.Connection,
    review_id: str,
    turn_id: str,
    verdict_id: str | None,
    cause: ReviewCause,
    detail: str,
    now: datetime,
) -> None:
    same = sa.select(reviews.c.id).where(reviews.c.turn_id == turn_id, reviews.c.cause == cause)
    if connection.execute(same).first() is not None:
        return
    connection.execute(
        sa.insert(reviews).values(
            id=review_id,
            turn_id=turn_id,
            verdict_id=verdict_id,
            cause=cause,
            detail=detail,
            status="open",
            opened_at=now,
        )
    )

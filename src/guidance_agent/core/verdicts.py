"""Verdicts on recorded text: what waits for one, and storing one together with everything that follows from it.

A turn that delivered text waits with `judgement = 'pending'`, written in the transaction that recorded its delivery. A
verdict, the events and corrections that tell of it, the review that it asks for, the annotation of the answer's span,
and the new state of the turn are written in one transaction under the verdict's key, so that work that is done twice is
stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.annotations import annotate, of_unjudged
from guidance_agent.core.bulk import insert_rows
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database, SharedWork
from guidance_agent.core.delivered_text import DeliveredText, delivered_text
from guidance_agent.core.schema import corrections, reviews, turn_events, turns, verdicts
from guidance_agent.core.types import JsonObject, Judgement, TurnState
from guidance_agent.core.verdict_storing import (
    CANDIDATE,
    LIVE,
    NewCorrection,
    NewVerdict,
    ReviewCause,
    StoringVerdict,
    open_review,
    store_together,
)

__all__ = [
    "AUDIT",
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

AUDIT = "audit:"
"""How the purposes begin of verdicts of audits, on what was delivered; the run's id follows."""

REVIEW = "review"
"""The purpose of a person's verdict, which counts instead of the judge's; a turn's later ones are `review:2` and on."""


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
        asked = {"turn": turn_id, "hash": text_hash, "policy": policy_version}
        row = await self._database.run(lambda connection: connection.execute(_passed_as_candidate(), asked).first())
        return None if row is None else StoredVerdict(*row)

    async def store_candidate(self, new: NewVerdict) -> str | None:
        """Store the verdict on a text that was not shown, and its review; the turn goes on and hears nothing of it.

        Returns:
            The verdict's id; None when it is stored already, or there is no such turn.
        """
        storing = StoringVerdict(new, (), lambda *_: {}, lambda *_: {}, self._clock)
        return await self._database.transaction(SharedWork(store_together, storing))

    async def store(
        self,
        new: NewVerdict,
        corrected: Sequence[NewCorrection] = (),
        *,
        judged_payload: Callable[[str, int], JsonObject],
        corrected_payload: Callable[[str, int, NewCorrection], JsonObject],
    ) -> str | None:
        """Store a verdict and what follows from it, in one transaction, which others that wait may share.

        A verdict for the purpose `live` also ends the turn's wait, is told by a public event after the turn's last one,
        and brings its corrections, each with an event of its own.

        Args:
            judged_payload: Makes the event that tells of the verdict from the verdict's id and the event's number.
            corrected_payload: Makes the event of a correction from the same.

        Returns:
            The verdict's id; None when the turn has this verdict already, or has not ended.
        """
        storing = StoringVerdict(new, tuple(corrected), judged_payload, corrected_payload, self._clock)
        return await self._database.transaction(SharedWork(store_together, storing))

    async def give_up(self, turn_id: str, *, detail: str) -> bool:
        """Hand a turn that cannot be judged to a person; a later verdict replaces that. False when it does not wait."""
        now, review_id = self._clock.now(), self._clock.new_id("review")

        def write(connection: sa.Connection) -> bool:
            change = sa.update(turns).where(turns.c.id == turn_id, turns.c.judgement == "pending")
            if not connection.execute(change.values(judgement="unjudged_needs_review")).rowcount:
                return False
            same = sa.select(reviews.c.id).where(reviews.c.turn_id == turn_id, reviews.c.cause == "unjudged")
            if connection.execute(same).first() is None:
                insert_rows(connection, reviews, [open_review(review_id, turn_id, None, "unjudged", detail, now)])
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


@cache
def _passed_as_candidate() -> sa.Select[Any]:
    # Built once: building it costs more than running it.
    return (
        sa.select(verdicts.c.id, verdicts.c.verdict, verdicts.c.created_at)
        .where(
            verdicts.c.turn_id == sa.bindparam("turn"),
            verdicts.c.text_hash == sa.bindparam("hash"),
            verdicts.c.policy_version == sa.bindparam("policy"),
            verdicts.c.purpose.like(f"{CANDIDATE}%"),
            verdicts.c.passed,
        )
        .limit(1)
    )

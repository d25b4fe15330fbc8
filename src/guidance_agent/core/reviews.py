"""The queue of what a person must look at, and what the person decided.

A person may also look at a text that was judged before it would have been shown, and was not: what is decided about it
changes nothing for the turn.

Reviews are opened by whoever stores a verdict (`core.verdicts`): for one that failed, for one that could not be read,
for a turn that could not be judged, and for an audit that does not pass what had passed. A decision, the verdict of the
person, the new state of the turn and the event that tells of it are written in one transaction, under the lock of the
turn that judges take as well.

No decision is lost to a later one: each stores a verdict of its own, `review` the first, `review:2` the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.annotations import annotate, of_decision, of_verdict
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.delivered_text import delivered_text
from guidance_agent.core.schema import reviews, turn_events, turns, verdicts
from guidance_agent.core.types import JsonObject, Judgement
from guidance_agent.core.verdicts import AUDIT, LIVE, REVIEW, ReviewCause
from guidance_agent.errors import ReviewClaimedError, ReviewDecidedError, UnknownReviewError

__all__ = ["Decision", "PersonsVerdict", "Review", "ReviewRecords", "ReviewStatus", "ReviewedText"]

_REVIEW_UNSHOWN = f"{REVIEW}-unshown"
"""The purpose of a person's verdict on a text that nobody was shown."""

ReviewStatus = Literal["open", "claimed", "decided"]
Decision = Literal["approve", "uphold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A review with what a list of them shows.

    Attributes:
        verdict_id: The verdict that asked for it; None for a turn that could not be judged.
        detail: The checks that failed, or why there is no verdict that could be read.
        decision: `approve` or `uphold`; `judged` where the judge could answer after all.
    """

    id: str
    turn_id: str
    consultation_id: str
    verdict_id: str | None
    cause: ReviewCause
    detail: str
    status: ReviewStatus
    opened_at: datetime
    claimed_by: str | None
    claimed_at: datetime | None
    decision: str | None
    reason: str | None
    decided_by: str | None
    decided_at: datetime | None
    question: str
    judgement: Judgement | None
    simulated: bool


class ReviewedText(NamedTuple):
    """What a review is about.

    Attributes:
        text: The text; None where nothing keeps it.
        text_hash: Its SHA-256.
        verdict: What the judge said of it, as JSON; None where it said nothing.
        was_shown: Whether it is what the turn delivered.
    """

    text: str | None
    text_hash: str
    verdict: JsonObject | None
    was_shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonsVerdict:
    """What a person decided, as it is to be stored.

    Attributes:
        verdict: The whole verdict as JSON, with the person and the reason.
        told: The same as customers' applications may have it.
        event: Makes the event that tells of it from `told`, the verdict's id and the event's number.
    """

    decision: Decision
    reason: str
    person: str
    passed: bool
    about: ReviewedText
    policy_version: str
    verdict: JsonObject
    told: JsonObject
    event: Callable[[JsonObject, str, int], JsonObject]


class ReviewRecords:
    """Queries on reviews. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def queue(
        self,
        *,
        statuses: Collection[ReviewStatus] = ("open", "claimed"),
        causes: Collection[ReviewCause] = (),
        person: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[Review]:
        """Return reviews, those that were opened first first.

        Args:
            statuses: Only these; all when empty.
            causes: Only these; all when empty.
            person: Only what this person has claimed or decided.
            since: Only what was opened then or later, and before `until`.
            limit: At most so many.
        """
        query = _REVIEWS.order_by(reviews.c.opened_at, reviews.c.id).limit(limit)
        if statuses:
            query = query.where(reviews.c.status.in_(sorted(statuses)))
        if causes:
            query = query.where(reviews.c.cause.in_(sorted(causes)))
        if person is not None:
            query = query.where(sa.or_(reviews.c.claimed_by == person, reviews.c.decided_by == person))
        if since is not None:
            query = query.where(reviews.c.opened_at >= since)
        if until is not None:
            query = query.where(reviews.c.opened_at < until)
        rows = await self._database.run(lambda connection: connection.execute(query).mappings().all())
        return [Review(**row) for row in rows]

    async def find(self, reference: str) -> Review:
        """Return the review with this id, or the newest one of the turn with this id, undecided ones first.

        Raises:
            UnknownReviewError: when there is none.
        """
        query = (
            _REVIEWS.where(sa.or_(reviews.c.id == reference, reviews.c.turn_id == reference))
            .order_by(sa.case((reviews.c.status == "decided", 1), else_=0), reviews.c.opened_at.desc())
            .limit(1)
        )
        row = await self._database.run(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise UnknownReviewError(
                f"There is no review {reference!r}, and no review of a turn with that id. `guidance-agent review list "
                "--status all` shows which there are."
            )
        return Review(**row)

    async def text_of(self, review: Review) -> ReviewedText:
        """Return what a review is about."""

        def read(connection: sa.Connection) -> ReviewedText:
            which = verdicts.c.id == review.verdict_id
            if review.verdict_id is None:
                which = sa.and_(verdicts.c.turn_id == review.turn_id, verdicts.c.purpose == LIVE)
            newest = sa.select(verdicts).where(which).order_by(verdicts.c.created_at.desc()).limit(1)
            judged = connection.execute(newest).mappings().first()
            if judged is not None and not judged["purpose"].startswith((LIVE, AUDIT)):
                return ReviewedText(judged.get("text"), judged["text_hash"], judged["verdict"], was_shown=False)
            said = None if judged is None else judged["verdict"]
            shown = delivered_text(connection, review.turn_id)
            if shown is None:
                raise UnknownReviewError(f"The turn of review {review.id!r} has not ended. Look at it again later.")
            return ReviewedText(shown.text, shown.text_hash, said, was_shown=True)

        return await self._database.run(read)

    async def claim(self, review_id: str, person: str, *, take_over: bool = False) -> None:
        """Note that a person looks at a review; claiming one's own again changes nothing.

        Raises:
            ReviewDecidedError: when it is decided.
            ReviewClaimedError: when somebody else has claimed it, unless it is taken over.
        """
        now = self._clock.now()

        def write(connection: sa.Connection) -> None:
            review = _locked(connection, review_id)
            _refuse_decided(review)
            _refuse_claimed(review, person, take_over=take_over)
            if review.claimed_by != person:
                change = sa.update(reviews).where(reviews.c.id == review_id)
                connection.execute(change.values(status="claimed", claimed_by=person, claimed_at=now))

        await self._database.transaction(write)

    async def release(self, review_id: str, person: str, *, take_over: bool = False) -> None:
        """Give back a review that was claimed, so that anybody may look at it; raises what `claim` raises."""

        def write(connection: sa.Connection) -> None:
            review = _locked(connection, review_id)
            _refuse_decided(review)
            _refuse_claimed(review, person, take_over=take_over)
            change = sa.update(reviews).where(reviews.c.id == review_id)
            connection.execute(change.values(status="open", claimed_by=None, claimed_at=None))

        await self._database.transaction(write)

    async def decide(self, review_id: str, new: PersonsVerdict, *, again: bool = False, take_over: bool = False) -> str:
        """Store a decision and what follows from it, in one transaction, and return the id of the person's verdict.

        Args:
            again: Whether a decided review may be decided anew.
            take_over: Whether a review that somebody else has claimed may be decided.

        Raises:
            ReviewDecidedError: when it is decided, by a person or because the judge could answer after all.
            ReviewClaimedError: when somebody else has claimed it.
        """
        now, verdict_id = self._clock.now(), self._clock.new_id("verdict")

        def write(connection: sa.Connection) -> None:
            review = _locked(connection, review_id)
            if not again:
                _refuse_decided(review)
                _refuse_claimed(review, new.person, take_over=take_over)
            _store_verdict(connection, review.turn_id, verdict_id, new, now)
            if new.about.was_shown:
                _tell(connection, review.turn_id, verdict_id, new, now)
                for said in (partial(of_verdict, new.verdict), partial(of_decision, new.decision, new.verdict)):
                    annotate(connection, self._clock, review.turn_id, said, verdict_id=verdict_id)
            change = sa.update(reviews).where(reviews.c.id == review_id)
            connection.execute(
                change.values(
                    status="decided",
                    decision=new.decision,
                    reason=new.reason,
                    decided_by=new.person,
                    decided_at=now,
                )
            )

        await self._database.transaction(write)
        return verdict_id


_REVIEWS = sa.select(reviews, turns.c.consultation_id, turns.c.question, turns.c.judgement, turns.c.simulated).join(
    turns, turns.c.id == reviews.c.turn_id
)


def _locked(connection: sa.Connection, review_id: str) -> Review:
    """Return a review as it stands, with the lock of its turn, which judges take before they store a verdict."""
    of_review = sa.select(reviews.c.turn_id).where(reviews.c.id == review_id).scalar_subquery()
    connection.execute(sa.select(turns.c.id).where(turns.c.id == of_review).with_for_update())
    row = connection.execute(_REVIEWS.where(reviews.c.id == review_id)).mappings().first()
    if row is None:
        raise UnknownReviewError(
            f"There is no review {review_id!r}. `guidance-agent review list` shows which there are."
        )
    return Review(**row)


def _refuse_decided(review: Review) -> None:
    if review.status == "decided":
        raise ReviewDecidedError(
            f"Review {review.id!r} was decided ({review.decision}) by {review.decided_by!r} at "
            f"{review.decided_at:%Y-%m-%d %H:%M} UTC. Decide it again with --again if that was wrong."
        )


def _refuse_claimed(review: Review, person: str, *, take_over: bool) -> None:
    if review.claimed_by is not None and review.claimed_by != person and not take_over:
        raise ReviewClaimedError(
            f"Review {review.id!r} is claimed by {review.claimed_by!r} since {review.claimed_at:%Y-%m-%d %H:%M} UTC. "
            "Ask them, or take it over with --take-over."
        )


def _store_verdict(
    connection: sa.Connection, turn_id: str, verdict_id: str, new: PersonsVerdict, now: datetime
) -> None:
    turn = connection.execute(sa.select(turns.c.consultation_id, turns.c.simulated).where(turns.c.id == turn_id)).one()
    purpose = REVIEW if new.about.was_shown else _REVIEW_UNSHOWN
    earlier = connection.execute(
        sa.select(sa.func.count()).where(
            verdicts.c.turn_id == turn_id,
            sa.or_(verdicts.c.purpose == purpose, verdicts.c.purpose.like(f"{purpose}:%")),
        )
    ).scalar_one()
    connection.execute(
        sa.insert(verdicts).values(
            id=verdict_id,
            turn_id=turn_id,
            consultation_id=turn.consultation_id,
            text_hash=new.about.text_hash,
            policy_version=new.policy_version,
            purpose=f"{purpose}:{earlier + 1}" if earlier else purpose,
            passed=new.passed,
            needs_review=False,
            verdict=new.verdict,
            judge_model=None,
            cost_usd=None,
            simulated=turn.simulated,
            created_at=now,
        )
    )


def _tell(connection: sa.Connection, turn_id: str, verdict_id: str, new: PersonsVerdict, now: datetime) -> None:
    """Change the state of the turn, with an event, where the person sees it otherwise than it stands."""
    judgement: Judgement = "passed" if new.passed else "failed"
    turn = connection.execute(
        sa.select(turns.c.judgement, sa.func.max(turn_events.c.sequence).label("last"))
        .join(turn_events, turn_events.c.turn_id == turns.c.id)
        .where(turns.c.id == turn_id)
        .group_by(turns.c.judgement)
    ).one()
    if turn.judgement == judgement:
        return
    payload = new.event(new.told, verdict_id, turn.last + 1)
    connection.execute(
        sa.insert(turn_events).values(
            turn_id=turn_id,
            sequence=payload["sequence"],
            type=payload["type"],
            text=None,
            payload=payload,
            created_at=now,
        )
    )
    connection.execute(
        sa.update(turns).where(turns.c.id == turn_id).values(judgement=judgement, last_sequence=turn.last + 1)
    )

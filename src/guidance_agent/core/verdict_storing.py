"""Verdicts on their way into the records: several in one transaction, each whole or not at all.

The rows of turns are locked first, in one order for all processes, and read again with everything else only then: what
another process stored meanwhile is seen. A turn that has its verdict keeps it.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.annotations import annotate, of_verdict
from guidance_agent.core.bulk import Row, insert_rows, is_one_of, update_rows
from guidance_agent.core.clock import Clock
from guidance_agent.core.schema import corrections, reviews, turn_events, turns, verdicts
from guidance_agent.core.types import JsonObject, Judgement, TurnState

__all__ = [
    "CANDIDATE",
    "LIVE",
    "NewCorrection",
    "NewVerdict",
    "ReviewCause",
    "StoringVerdict",
    "open_review",
    "store_together",
]

ReviewCause = Literal["fail", "unreadable", "unjudged", "audit"]
"""`audit`: an audit does not pass what the live verdict let pass."""

LIVE = "live"
"""The purpose of the verdict on what a customer was shown; a judge's for another changes no turn's state."""

CANDIDATE = "candidate:"
"""How the purposes begin of verdicts on texts that were not shown yet; the number of the version follows, from 0."""


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


@dataclass(slots=True)
class _Standing:
    """How a turn stands: as the records have it, with what this transaction adds. `traced`: its answer has a span."""

    consultation_id: str
    state: TurnState
    judgement: Judgement | None
    traced: bool
    last_sequence: int
    verdicts: set[tuple[str, str, str]] = field(default_factory=set)
    reviews: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoringVerdict:
    """A verdict with what follows from it.

    Attributes:
        judged_payload: Makes the event that tells of the verdict from the verdict's id and the event's number.
        corrected_payload: Makes the event of a correction from the same.
    """

    new: NewVerdict
    corrected: tuple[NewCorrection, ...]
    judged_payload: Callable[[str, int], JsonObject]
    corrected_payload: Callable[[str, int, NewCorrection], JsonObject]
    clock: Clock

    def add_to(self, rows: _Rows, turn: _Standing | None) -> str | None:
        """Add the rows of this verdict; return its id, or None when it is stored already or may not be stored."""
        new = self.new
        if turn is None or (turn.state == "streaming" and not new.purpose.startswith(CANDIDATE)):
            return None
        if new.purpose == LIVE and turn.judgement not in ("pending", "unjudged_needs_review"):
            return None
        key = (new.text_hash, new.policy_version, new.purpose)
        if key in turn.verdicts:
            return None
        turn.verdicts.add(key)
        verdict_id, now = self.clock.new_id("verdict"), self.clock.now()
        rows.inserts[verdicts].append(
            {
                "id": verdict_id,
                "turn_id": new.turn_id,
                "consultation_id": turn.consultation_id,
                "text_hash": new.text_hash,
                "policy_version": new.policy_version,
                "purpose": new.purpose,
                "passed": new.passed,
                "needs_review": new.needs_review,
                "verdict": new.verdict,
                "judge_model": new.judge_model,
                "cost_usd": new.cost_usd,
                "simulated": new.simulated,
                "created_at": now,
                "text": new.text,
            }
        )
        if new.purpose == LIVE:
            self._tell(rows, turn, verdict_id, now)
            if turn.traced:
                rows.annotations.append((self, verdict_id))
        if new.review is not None and new.review not in turn.reviews:
            review_id = self.clock.new_id("review")
            turn.reviews[new.review] = (review_id, "open")
            rows.inserts[reviews].append(open_review(review_id, new.turn_id, verdict_id, new.review, new.detail, now))
        return verdict_id

    def _tell(self, rows: _Rows, turn: _Standing, verdict_id: str, now: datetime) -> None:
        turn_id = self.new.turn_id
        turn.last_sequence += 1
        rows.add_event(turn_id, self.judged_payload(verdict_id, turn.last_sequence), now)
        for correction in self.corrected:
            turn.last_sequence += 1
            rows.add_event(turn_id, self.corrected_payload(verdict_id, turn.last_sequence, correction), now)
            rows.inserts[corrections].append(
                {
                    "id": self.clock.new_id("correction"),
                    "turn_id": turn_id,
                    "verdict_id": verdict_id,
                    "span_start": correction.start,
                    "span_end": correction.end,
                    "replacement": correction.replacement,
                    "reason": correction.reason,
                    "sequence": turn.last_sequence,
                    "created_at": now,
                }
            )
        turn.judgement = "passed" if self.new.passed else "failed"
        rows.turns.append((turn_id, {"judgement": turn.judgement, "last_sequence": turn.last_sequence}))
        review_id, status = turn.reviews.get("unjudged", ("", "decided"))
        if status != "decided":
            done = {"status": "decided", "decision": "judged", "decided_by": "judge", "decided_at": now}
            rows.reviews.append((review_id, done))


class _Rows:
    """What a transaction writes."""

    def __init__(self) -> None:
        self.inserts: defaultdict[sa.Table, list[Row]] = defaultdict(list)
        self.turns: list[tuple[str, Row]] = []
        self.reviews: list[tuple[str, Row]] = []
        self.annotations: list[tuple[StoringVerdict, str]] = []

    def add_event(self, turn_id: str, payload: JsonObject, now: datetime) -> None:
        self.inserts[turn_events].append(
            {
                "turn_id": turn_id,
                "sequence": payload["sequence"],
                "type": payload["type"],
                "text": None,
                "payload": payload,
                "created_at": now,
            }
        )

    def write(self, connection: sa.Connection) -> None:
        for table in (verdicts, turn_events, corrections, reviews):
            insert_rows(connection, table, self.inserts[table])
        update_rows(connection, turns, self.turns)
        update_rows(connection, reviews, self.reviews)
        for storing, verdict_id in self.annotations:
            said = functools.partial(of_verdict, storing.new.verdict)
            annotate(connection, storing.clock, storing.new.turn_id, said, verdict_id=verdict_id)


def store_together(connection: sa.Connection, asked: Sequence[StoringVerdict]) -> list[str | None]:
    """Store verdicts and what follows from them; return the id of each, None for those that were not stored."""
    standing, rows = _standing(connection, {storing.new.turn_id for storing in asked}), _Rows()
    stored = [storing.add_to(rows, standing.get(storing.new.turn_id)) for storing in asked]
    rows.write(connection)
    return stored


def open_review(
    review_id: str, turn_id: str, verdict_id: str | None, cause: ReviewCause, detail: str, now: datetime
) -> Row:
    """Return the row of a review that begins."""
    return {
        "id": review_id,
        "turn_id": turn_id,
        "verdict_id": verdict_id,
        "cause": cause,
        "detail": detail,
        "status": "open",
        "opened_at": now,
    }


def _standing(connection: sa.Connection, turn_ids: set[str]) -> dict[str, _Standing]:
    parameters, statements = {"ids": list(turn_ids)}, _statements(connection.dialect.name)
    locked = {turn_id: rest for turn_id, *rest in connection.execute(statements.lock, parameters)}
    newest = {turn_id: sequence for turn_id, sequence in connection.execute(statements.newest, parameters)}
    found = {
        turn_id: _Standing(consultation_id, state, judgement, span_id is not None, newest.get(turn_id, -1))
        for turn_id, (consultation_id, state, judgement, span_id) in locked.items()
    }
    for turn_id, *key in connection.execute(statements.verdicts, parameters):
        found[turn_id].verdicts.add((key[0], key[1], key[2]))
    for turn_id, cause, review_id, status in connection.execute(statements.reviews, parameters):
        found[turn_id].reviews[cause] = (review_id, status)
    return found


class _Statements(NamedTuple):
    lock: sa.Select[Any]
    newest: sa.Select[Any]
    verdicts: sa.Select[Any]
    reviews: sa.Select[Any]


@functools.cache
def _statements(dialect: str) -> _Statements:
    # Built once: building one costs more than running it.
    return _Statements(
        lock=sa.select(turns.c.id, turns.c.consultation_id, turns.c.state, turns.c.judgement, turns.c.answer_span_id)
        .where(is_one_of(dialect, turns.c.id))
        .order_by(turns.c.id)
        .with_for_update(),
        newest=sa.select(turn_events.c.turn_id, sa.func.max(turn_events.c.sequence))
        .where(is_one_of(dialect, turn_events.c.turn_id))
        .group_by(turn_events.c.turn_id),
        verdicts=sa.select(
            verdicts.c.turn_id, verdicts.c.text_hash, verdicts.c.policy_version, verdicts.c.purpose
        ).where(is_one_of(dialect, verdicts.c.turn_id)),
        reviews=sa.select(reviews.c.turn_id, reviews.c.cause, reviews.c.id, reviews.c.status).where(
            is_one_of(dialect, reviews.c.turn_id)
        ),
    )

"""What a turn delivered, with everything that a judge of it needs to know."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.records import TranscriptEntry
from guidance_agent.core.schema import consultations, turn_events, turns
from guidance_agent.core.types import JsonObject, Judgement, TurnState

__all__ = ["DeliveredText", "delivered_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredText:
    """What a judge needs to know of a turn.

    Attributes:
        text: What was delivered.
        finish_reason: Why the model stopped; None when it did not come to that.
        history: The consultation before this turn, as it was delivered.
        profile: The customer's values when the consultation opened.
        judgement: None for a turn that delivered nothing.
        traceparent: Where the turn's span stands; None where it was not traced.
    """

    turn_id: str
    consultation_id: str
    text: str
    text_hash: str
    question: str
    state: TurnState
    finish_reason: str | None
    started_at: datetime
    ended_at: datetime
    history: tuple[TranscriptEntry, ...]
    customer_id: str
    profile: JsonObject
    judgement: Judgement | None
    traceparent: str | None = None


def delivered_text(connection: sa.Connection, turn_id: str) -> DeliveredText | None:
    """Return what a turn that has ended delivered; None when it has not ended, or there is no such turn."""
    row = connection.execute(_turn(), {"turn": turn_id}).mappings().first()
    if row is None:
        return None
    said = _said(connection, row["consultation_id"], row["ordinal"])
    _, text = said.pop(turn_id, ("", ""))
    history: list[TranscriptEntry] = []
    for question, answer in said.values():
        if answer:
            history += [TranscriptEntry("customer", question), TranscriptEntry("advisor", answer)]
    return DeliveredText(
        turn_id=turn_id,
        consultation_id=row["consultation_id"],
        text=text,
        text_hash=row["text_hash"],
        question=row["question"],
        state=row["state"],
        finish_reason=row["finish_reason"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        history=tuple(history),
        customer_id=row["customer_id"],
        profile=row["profile"],
        judgement=row["judgement"],
        traceparent=row["traceparent"],
    )


def _said(connection: sa.Connection, consultation_id: str, ordinal: int) -> dict[str, tuple[str, str]]:
    """Return question and delivered text by turn, up to and with the one of this ordinal, in their order."""
    rows = connection.execute(_answers(), {"consultation": consultation_id, "ordinal": ordinal})
    pieces: dict[str, tuple[str, int, list[str]]] = {}
    for turn_id, question, length, text in rows:
        pieces.setdefault(turn_id, (question, length, []))[2].append(text)
    return {turn_id: (question, "".join(texts)[:length]) for turn_id, (question, length, texts) in pieces.items()}


# Statements are built once: building one costs more than running it.


@functools.cache
def _turn() -> sa.Select[Any]:
    named = (
        "consultation_id",
        "ordinal",
        "text_hash",
        "question",
        "state",
        "finish_reason",
        "started_at",
        "ended_at",
        "judgement",
        "traceparent",
    )
    return (
        sa.select(*(turns.c[name] for name in named), consultations.c.customer_id, consultations.c.profile)
        .join(consultations, consultations.c.id == turns.c.consultation_id)
        .where(turns.c.id == sa.bindparam("turn"), turns.c.state != "streaming")
    )


@functools.cache
def _answers() -> sa.Select[Any]:
    return (
        sa.select(turns.c.id, turns.c.question, turns.c.delivered_length, turn_events.c.text)
        .join(turn_events, sa.and_(turn_events.c.turn_id == turns.c.id, turn_events.c.type == "text_delta"))
        .where(
            turns.c.consultation_id == sa.bindparam("consultation"),
            turns.c.ordinal <= sa.bindparam("ordinal"),
            turns.c.delivered_length.is_not(None),
        )
        .order_by(turns.c.ordinal, turn_events.c.sequence)
    )

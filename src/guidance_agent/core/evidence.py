"""Everything that the records hold about one turn, read at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from guidance_agent.core.database import Database
from guidance_agent.core.delivered_text import delivered_text
from guidance_agent.core.records import TranscriptEntry
from guidance_agent.core.schema import (
    cases,
    consultations,
    corrections,
    gate_actions,
    memories,
    model_calls,
    reviews,
    span_annotations,
    turn_events,
    turns,
    verdicts,
)
from guidance_agent.core.schema import (
    rules as rules_table,
)
from guidance_agent.core.types import JsonObject

__all__ = ["RecordedTurn", "read_turn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTurn:
    """The rows about a turn, each list in the order in which things happened.

    Attributes:
        history: The consultation before this turn, as it was delivered.
        memories: The customer's memories that the turn was given; those that were erased since are missing.
        annotations: What is said of the answer beside its span, and whether it was delivered; changes with time.
    """

    turn: JsonObject
    consultation: JsonObject
    history: tuple[TranscriptEntry, ...]
    events: Sequence[JsonObject]
    gate_actions: Sequence[JsonObject]
    calls: Sequence[JsonObject]
    verdicts: Sequence[JsonObject]
    corrections: Sequence[JsonObject]
    reviews: Sequence[JsonObject]
    memories: Sequence[JsonObject]
    cases: Sequence[JsonObject]
    rules: Sequence[JsonObject]
    annotations: Sequence[JsonObject]


async def read_turn(database: Database, turn_id: str) -> RecordedTurn | None:
    """Return what the records hold about a turn; None when there is no such turn.

    Raises:
        DatabaseUnavailableError: when the database cannot be used.
    """
    return await database.run(lambda connection: _read(connection, turn_id))


def _read(connection: sa.Connection, turn_id: str) -> RecordedTurn | None:
    def rows(query: sa.Select[tuple[object, ...]]) -> list[JsonObject]:
        return [dict(row) for row in connection.execute(query).mappings()]

    def of_turn(table: sa.Table, *order: str) -> list[JsonObject]:
        return rows(sa.select(table).where(table.c.turn_id == turn_id).order_by(*(table.c[name] for name in order)))

    def named(table: sa.Table, columns: Sequence[str], ids: Sequence[str]) -> list[JsonObject]:
        chosen = [table.c[name] for name in ("id", *columns)]
        return rows(sa.select(*chosen).where(table.c.id.in_(ids)).order_by(table.c.id)) if ids else []

    found = rows(sa.select(turns).where(turns.c.id == turn_id))
    if not found:
        return None
    turn = found[0]
    context = turn["context"]
    delivered = delivered_text(connection, turn_id)
    return RecordedTurn(
        turn=turn,
        consultation=rows(sa.select(consultations).where(consultations.c.id == turn["consultation_id"]))[0],
        history=() if delivered is None else delivered.history,
        events=of_turn(turn_events, "sequence"),
        gate_actions=of_turn(gate_actions, "number"),
        calls=of_turn(model_calls, "started_at", "id"),
        verdicts=of_turn(verdicts, "created_at", "id"),
        corrections=of_turn(corrections, "sequence"),
        reviews=of_turn(reviews, "opened_at", "id"),
        memories=named(memories, ("text", "created_at"), context.get("memories", ())),
        cases=named(cases, ("text", "topic"), context.get("cases", ())),
        rules=named(rules_table, ("text", "confidence", "status"), context.get("rules", ())),
        annotations=of_turn(span_annotations, "name", "identifier"),
    )

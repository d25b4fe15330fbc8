"""What the records hold of the turns of processes that were killed, and what must be true of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.database import Database
from guidance_agent.core.schema import consultations, turn_events, turns
from guidance_agent.core.transcript import text_hash

__all__ = ["RecordedTurn", "contradictions", "recorded_turns", "still_streaming"]

_ROW = ("id", "state", "error", "lease_until", "delivered_length", "text_hash", "judgement", "last_sequence")


@dataclass(slots=True)
class RecordedTurn:
    """A turn's row, the numbers and types of its events, and its text."""

    row: dict[str, Any]
    sequences: list[int] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    text: str = ""

    @property
    def id(self) -> str:
        return str(self.row["id"])


async def recorded_turns(database: Database, name: str) -> dict[str, RecordedTurn]:
    """Return all turns of the customers whose ids begin with `name` and a hyphen, by their ids."""
    row = [turns.c[name] for name in _ROW]
    # One statement, so that a verdict which is stored meanwhile is in the row and among the events, or in neither.
    query = (
        sa.select(*row, turn_events.c.sequence, turn_events.c.type, turn_events.c.text)
        .join(consultations, consultations.c.id == turns.c.consultation_id)
        .outerjoin(turn_events, turn_events.c.turn_id == turns.c.id)
        .where(consultations.c.customer_id.startswith(f"{name}-", autoescape=True))
        .order_by(turn_events.c.turn_id, turn_events.c.sequence)
    )

    def read(connection: sa.Connection) -> dict[str, RecordedTurn]:
        found: dict[str, RecordedTurn] = {}
        texts: dict[str, list[str]] = {}
        for *values, sequence, kind, text in connection.execute(query):
            turn = found.setdefault(values[0], RecordedTurn(dict(zip(_ROW, values, strict=True))))
            if sequence is None:
                continue
            turn.sequences.append(sequence)
            turn.types.append(kind)
            texts.setdefault(turn.id, []).append(text or "")
        for turn_id, pieces in texts.items():
            found[turn_id].text = "".join(pieces)
        return found

    return await database.run(read)


async def still_streaming(database: Database, turn_ids: Sequence[str]) -> set[str]:
    """Return those of the turns that nobody has closed yet."""
    query = sa.select(turns.c.id).where(turns.c.id.in_(turn_ids), turns.c.state == "streaming")
    return set(await database.run(lambda connection: list(connection.execute(query).scalars())))


def contradictions(turn: RecordedTurn | None, shown: str, told_end: str | None) -> list[str]:
    """Return what must not be: the shown text is on record, numbers have no gap, an end agrees with itself.

    Args:
        turn: The recorded turn; None if there is none.
        shown: All text that the customer was shown.
        told_end: The state in which the process said that the turn had ended; None if it did not come to that.
    """
    if turn is None:
        return ["a turn that was shown is not on record"]
    found = []
    if not turn.text.startswith(shown):
        found.append(f"shown text is not a prefix of the journal: {len(shown)} shown, {len(turn.text)} journaled")
    if turn.sequences != list(range(len(turn.sequences))):
        found.append(f"the numbers of the events have gaps: {turn.sequences}")
    if turn.row["state"] != "streaming":
        found += _wrong_end(turn, shown)
    if told_end is not None and turn.row["state"] != told_end:
        found.append(f"told {told_end!r}, recorded {turn.row['state']!r}")
    return [f"turn {turn.id}: {what}" for what in found]


def _wrong_end(turn: RecordedTurn, shown: str) -> list[str]:
    row, delivered = turn.row, turn.row["delivered_length"]
    # What is told after the end: whoever judges adds it.
    ends = [kind for kind in turn.types if kind not in ("judged", "corrected")]
    last = {"completed": "completed", "process_died": "failed"}.get(row["state"])
    wrong = {
        "nothing says how much was delivered": delivered is None,
        "less is recorded as delivered than was shown": delivered is not None and delivered < len(shown),
        "the text's hash is another's": row["text_hash"] != text_hash(turn.text[:delivered]),
        "text that was delivered waits for no judgement": (row["judgement"] is None) == bool(delivered),
        "a turn has more than one verdict": turn.types.count("judged") > 1,
        "the last number is another's": row["last_sequence"] != len(turn.sequences) - 1,
        "the last event is not its end": last is not None and ends[-1:] != [last],
        "a dead process's text is not recorded whole": row["state"] == "process_died" and delivered != len(turn.text),
    }
    return [what for what, is_so in wrong.items() if is_so]

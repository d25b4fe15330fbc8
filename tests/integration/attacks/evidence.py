"""What an attack leaves behind, read from the records, and what must hold there whatever happened."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

from guidance_agent import Completed, CustomerProfile, Event, Runtime, TextDelta, event_from_json
from guidance_agent.core.schema import turns

QUESTION = "Can I take all of my pension?"


def asks(customer_id: str, question: str = QUESTION) -> CustomerProfile:
    return CustomerProfile.parse({"customer_id": customer_id, "presenting_question": question})


def public(events: list[Event]) -> list[Event]:
    return [event for event in events if event.public]


def shown(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def rows(runtime: Runtime, table: sa.Table) -> list[dict[str, Any]]:
    async with runtime.database.read() as connection:
        return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]


async def turn_of(runtime: Runtime, customer_id: str) -> dict[str, Any]:
    """Return the only turn of a customer."""
    query = sa.select(turns).where(
        turns.c.consultation_id.in_(
            sa.text("SELECT id FROM consultations WHERE customer_id = :customer").bindparams(customer=customer_id)
        )
    )
    async with runtime.database.read() as connection:
        return dict((await connection.execute(query)).mappings().one())


async def replayed(runtime: Runtime, turn_id: str) -> list[Event]:
    """Rebuild the public events of a turn from its journal."""
    journal = await runtime.records.events(turn_id)
    text = "".join(record.text or "" for record in journal)
    events = []
    for record in journal:
        values = dict(record.payload)
        if record.type == "text_delta":
            values["text"] = record.text
        if record.type == "completed":
            values["text"] = text
        events.append(event_from_json(values))
    return events


async def check_ended(runtime: Runtime, turn_id: str, delivered: str) -> dict[str, Any]:
    """Assert that an ended turn is recorded without a contradiction and judged on what was delivered."""
    row = await runtime.records.turn(turn_id)
    assert row is not None
    assert row["state"] != "streaming"
    events = await replayed(runtime, turn_id)
    text = shown(events)
    assert text.startswith(delivered)
    assert row["delivered_length"] == len(delivered)
    assert row["text_length"] == len(text)
    assert row["text_hash"] == hashlib.sha256(delivered.encode()).hexdigest()
    assert row["judgement"] == ("pending" if delivered else None)
    assert [event.sequence for event in events] == list(range(len(events)))
    assert row["last_sequence"] == len(events) - 1
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert [delta.start for delta in deltas] == [0, *(delta.end for delta in deltas[:-1])][: len(deltas)]
    assert all(delta.end - delta.start == len(delta.text) for delta in deltas)
    assert (row["state"] == "completed") == isinstance(events[-1], Completed)
    return row

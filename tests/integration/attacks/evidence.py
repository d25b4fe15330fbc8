"""What an attack leaves behind, read from the records, and what must hold there whatever happened."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from guidance_agent import Completed, Corrected, CustomerProfile, Event, Judged, Runtime, TextDelta, event_from_json
from guidance_agent.core.schema import model_calls, turns

T = TypeVar("T")
WITHIN = 10.0
QUESTION = "Can I take all of my pension?"


def asks(customer_id: str, question: str = QUESTION) -> CustomerProfile:
    return CustomerProfile.parse({"customer_id": customer_id, "presenting_question": question})


async def eventually(probe: Callable[[], Awaitable[T]], *, within: float = WITHIN) -> T:
    """Ask again and again until the answer is true, and return it; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not (answer := await probe()):  # noqa: ASYNC110 - what is polled tells nobody that it changed
            await asyncio.sleep(0.005)
    return answer


def public(events: list[Event]) -> list[Event]:
    return [event for event in events if event.public]


def shown(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def rows(runtime: Runtime, table: sa.Table) -> list[dict[str, Any]]:
    return await runtime.database.run(
        lambda connection: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    )


async def turn_of(runtime: Runtime, customer_id: str) -> dict[str, Any]:
    """Return the only turn of a customer."""
    query = sa.select(turns).where(
        turns.c.consultation_id.in_(
            sa.text("SELECT id FROM consultations WHERE customer_id = :customer").bindparams(customer=customer_id)
        )
    )
    return await runtime.database.run(lambda connection: dict(connection.execute(query).mappings().one()))


async def ended_turn_of(runtime: Runtime, customer_id: str) -> dict[str, Any]:
    """Wait for the end of the only turn of a customer, and return it."""

    async def ended() -> dict[str, Any] | None:
        row = await turn_of(runtime, customer_id)
        return row if row["state"] != "streaming" else None

    row = await eventually(ended)
    assert row is not None
    return row


async def calls_of(runtime: Runtime, number: int) -> list[dict[str, Any]]:
    """Wait until so many calls are in the ledger, and return all of it."""

    async def enough() -> list[dict[str, Any]]:
        found = await rows(runtime, model_calls)
        return found if len(found) >= number else []

    return await eventually(enough)


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
    assert (row["judgement"] is not None) == bool(delivered)
    assert [event.sequence for event in events] == list(range(len(events)))
    assert row["last_sequence"] == len(events) - 1
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert [delta.start for delta in deltas] == [0, *(delta.end for delta in deltas[:-1])][: len(deltas)]
    assert all(delta.end - delta.start == len(delta.text) for delta in deltas)
    # A process that judges may have told its verdict since.
    ends = [event for event in events if not isinstance(event, Judged | Corrected)]
    assert len(events) - len(ends) == 0 or row["judgement"] in ("passed", "failed")
    assert (row["state"] == "completed") == isinstance(ends[-1], Completed)
    return row

"""Annotated turns on record, and the delivery of what is said of them to a Phoenix, by a clock that a test moves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.annotation_delivery import AnnotationDelivery
from guidance_agent.core.annotations import AnnotationBacklog, NewAnnotation, annotate
from guidance_agent.core.bulk import insert_rows
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.phoenix_address import PhoenixAddress
from guidance_agent.core.schema import consultations, span_annotations, turns

__all__ = ["NOON", "AnnotationDesk", "said", "span_of"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class MovableClock(SystemClock):
    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def passes(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def span_of(number: int) -> str:
    return f"{number:016x}"


def said(label: str = "passed", explanation: str | None = None, name: str = "compliance") -> NewAnnotation:
    return NewAnnotation(
        name=name,
        annotator_kind="LLM",
        label=label,
        score=1.0 if label == "passed" else 0.0,
        explanation=explanation,
        details={"confidence": 0.9},
    )


class AnnotationDesk:
    """The records with annotated turns in them, and where Phoenix is."""

    def __init__(self, database: Database, address: PhoenixAddress) -> None:
        self.database = database
        self.clock = MovableClock()
        self.address: PhoenixAddress | None = address
        self.backlog = AnnotationBacklog(database, self.clock, keep_trying=timedelta(days=30))
        self.delivery = self.another()

    def another(self, **options: Any) -> AnnotationDelivery:
        """The delivery of a process of its own."""
        return AnnotationDelivery(self.backlog, self.clock, lambda: self.address, lambda: _redact, **options)

    async def turns(self, count: int, *, span_ids: Sequence[str] = ()) -> None:
        consultation = {
            "id": "k",
            "customer_id": "c",
            "advisor_id": "default",
            "opened_at": NOON,
            "profile": {"first_name": "Janet"},
            "transcript_hash": "0" * 64,
            "turn_count": count,
            "outcome": "open",
            "simulated": False,
        }
        rows = [
            {
                "id": f"t{number}",
                "consultation_id": "k",
                "ordinal": number,
                "state": "completed",
                "question": "May I?",
                "model": "m",
                "simulated": False,
                "owner": "test",
                "lease_until": 0.0,
                "started_at": NOON,
                "last_sequence": 0,
                "context": {},
                "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
                "answer_span_id": span_ids[number] if span_ids else span_of(number),
            }
            for number in range(count)
        ]

        def fill(connection: sa.Connection) -> None:
            insert_rows(connection, consultations, [consultation])
            insert_rows(connection, turns, rows)

        await self.database.transaction(fill)

    async def say(self, number: int, new: NewAnnotation) -> None:
        await self.database.transaction(lambda connection: annotate(connection, self.clock, f"t{number}", lambda: new))

    async def annotated(self, count: int) -> None:
        await self.turns(count)

        def say_all(connection: sa.Connection) -> None:
            for number in range(count):
                annotate(connection, self.clock, f"t{number}", said)

        await self.database.transaction(say_all)

    async def rows(self) -> list[dict[str, Any]]:
        query = sa.select(span_annotations).order_by(span_annotations.c.span_id)
        return await self.database.run(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    async def row(self) -> dict[str, Any]:
        (row,) = await self.rows()
        return row


def _redact(key: str, text: str, names: tuple[str, ...]) -> str:
    for name in names:
        text = text.replace(name, "[NAME]")
    return text

"""What is known of customers before their turns: asked for together, answered as if each had been asked alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.bulk import Row, insert_rows
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, SharedWork
from guidance_agent.core.records import KnownCustomer, Records
from guidance_agent.core.schema import consultations, memories, turns

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASKED, OTHER = "a" * 64, "b" * 64


def consultation(name: str, customer: str, **values: Any) -> Row:
    return {
        "id": name,
        "customer_id": customer,
        "advisor_id": "default",
        "opened_at": NOON,
        "profile": {"first_name": customer},
        "transcript_hash": ASKED,
        "turn_count": 2,
        "outcome": "open",
        "simulated": False,
        **values,
    }


def turn(name: str, consultation_id: str, state: str) -> Row:
    return {
        "id": name,
        "consultation_id": consultation_id,
        "ordinal": 1,
        "state": state,
        "question": "May I?",
        "model": "anthropic/claude-sonnet-5-5",
        "simulated": False,
        "owner": "test",
        "lease_until": 0.0,
        "started_at": NOON,
        "last_sequence": 0,
        "context": {},
    }


def memory(name: str, customer: str) -> Row:
    return {
        "id": name,
        "customer_id": customer,
        "consultation_id": "long ago",
        "turn_id": name,
        "kind": "observation",
        "text": "My roof leaks.",
        "created_at": NOON,
        "simulated": False,
    }


CONSULTATIONS = (
    consultation("older", "two"),
    consultation("newer", "two", opened_at=NOON + timedelta(minutes=1)),
    consultation("other", "elsewhere", transcript_hash=OTHER),
    consultation("passed", "closed", outcome="passed"),
    consultation("live", "busy"),
    consultation("ended", "free"),
)
FOUND = {"two": "newer", "elsewhere": None, "closed": None, "busy": None, "free": "ended", "nobody": None, "o'🙂": None}


def fill(connection: sa.Connection) -> None:
    insert_rows(connection, consultations, CONSULTATIONS)
    insert_rows(connection, turns, [turn("t1", "live", "streaming"), turn("t2", "ended", "completed")])
    insert_rows(connection, memories, [memory("m1", "two"), memory("m2", "nobody")])


async def test_customers_that_are_asked_for_together_are_each_answered_as_alone(database: Database) -> None:
    await database.transaction(fill)
    records = Records(database, SystemClock())
    alone = [await records.known_customer(customer, ASKED) for customer in FOUND]
    together = await asyncio.gather(*(records.known_customer(customer, ASKED) for customer in FOUND))
    assert together == alone
    assert {name: _id(known) for name, known in zip(FOUND, together, strict=True)} == FOUND
    assert [name for name, known in zip(FOUND, together, strict=True) if known.has_memories] == ["two", "nobody"]


async def test_the_consultation_that_is_found_is_the_one_on_record(database: Database) -> None:
    await database.transaction(fill)
    records = Records(database, SystemClock())
    found = (await records.known_customer("free", ASKED)).consultation
    assert found is not None
    assert found == await records.consultation("ended")


def _id(known: KnownCustomer) -> str | None:
    return None if known.consultation is None else known.consultation.id


async def test_reads_of_one_kind_that_wait_together_are_asked_once(database: Database) -> None:
    sizes: list[int] = []

    def double(_: sa.Connection, asked: Sequence[int]) -> list[int]:
        sizes.append(len(asked))
        return [2 * number for number in asked]

    answers = await asyncio.gather(*(database.run(SharedWork(double, number)) for number in range(50)))
    assert answers == [2 * number for number in range(50)]
    # The first one finds the thread free and goes at once.
    assert sizes == [1, 49]


async def test_a_read_that_spoils_its_kind_fails_alone(database: Database) -> None:
    def reciprocal(_: sa.Connection, asked: Sequence[int]) -> list[float]:
        return [1 / number for number in asked]

    reads = (database.run(SharedWork(reciprocal, number)) for number in (1, 2, 0, 4))
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, float)] == [1.0, 0.5, 0.25]
    assert isinstance(answers[2], ZeroDivisionError)

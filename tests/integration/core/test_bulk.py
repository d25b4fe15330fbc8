"""Rows that are written together are stored exactly as rows that are written one by one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.core.bulk import Row, insert_rows, update_rows
from guidance_agent.core.database import Database
from guidance_agent.core.schema import consultations, memories, model_calls, turns

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEXTS = (
    "plain",
    "",
    'quote \' " \\ \\u0000 {"a": 1} \t\r\n',
    "養老金 \N{THINKING FACE} e\u0301 \u202b \u2028",
    "NUL \x00, lone \ud800 and \udfff",
    "null",
)
DOCUMENTS: tuple[Any, ...] = (
    {},
    {"b": 1, "a": [1.50, 1e22, -0.0, None, True, "x\x00"], "nested": {"é": "\ud800"}},
    [],
    "a string",
    0,
    {"number": float("inf")},
)
TIMES = (
    NOON,
    NOON + timedelta(microseconds=1),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 7, 1, 9, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    NOON,
)
NUMBERS = (None, 0, 1, -1, 2**40, 2**62)


def calls(prefix: str, documents: Sequence[Any] = DOCUMENTS) -> list[Row]:
    odd = zip(TEXTS, documents, TIMES, NUMBERS, strict=True)
    return [
        {
            "id": f"{prefix}-{number}",
            "operation": text,
            "model": text,
            "requested_model": text,
            "provider": "p",
            "transport": "native",
            "started_at": at,
            "outcome": "completed",
            "attempts": 1,
            "first_token_seconds": None if number % 2 else 0.1 + number,
            "total_seconds": 1 / 3,
            "chunks": number,
            "input_tokens": tokens,
            "usage_estimated": bool(number % 2),
            "unit_prices": document if number % 2 else None,
            "cache_outcome": "unknown",
            "cache_parts": document,
            "simulated": False,
            "request_id": None if number % 3 else text,
            "error": text,
        }
        for number, (text, document, at, tokens) in enumerate(odd)
    ]


async def written(database: Database, table: sa.Table, groups: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    def work(connection: sa.Connection) -> None:
        for rows in groups:
            insert_rows(connection, table, rows)

    await database.transaction(work)
    rows = await database.run(lambda c: c.execute(sa.select(table).order_by(table.c.id)).mappings().all())
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


@pytest.mark.parametrize("documents", [DOCUMENTS, ({"a": "\u00a3"},) * len(DOCUMENTS)], ids=["odd", "plain"])
async def test_rows_written_together_are_as_rows_written_one_by_one(
    database: Database, documents: Sequence[Any]
) -> None:
    apart = [[row] for row in calls("a", documents)]
    rows = await written(database, model_calls, [*apart, calls("b", documents)])
    assert repr(rows[: len(apart)]) == repr(rows[len(apart) :])
    assert [row["input_tokens"] for row in rows[: len(apart)]] == list(NUMBERS)
    assert [row["started_at"] for row in rows[: len(apart)]] == [at.astimezone(UTC) for at in TIMES]
    assert [row["cache_parts"] for row in rows[: len(apart) - 1]] == list(documents[:-1])
    assert rows[4]["error"] == "NUL \ufffd, lone \ufffd and \ufffd"


async def test_columns_that_are_not_named_get_their_defaults(database: Database) -> None:
    rows = await written(database, model_calls, [calls("a")])
    assert all(row["cache_use"] == {} and row["turn_id"] is None for row in rows)


async def test_rows_that_name_different_columns_may_be_written_together(database: Database) -> None:
    mixed = [{**row, "turn_id": "t"} if number % 2 else row for number, row in enumerate(calls("a") + calls("b"))]
    rows = await written(database, model_calls, [mixed])
    assert [row["turn_id"] for row in rows] == [None, "t"] * len(TEXTS)


async def test_vectors_that_are_written_together_are_kept(database: Database) -> None:
    vectors = [number.to_bytes(4, "little") for number in range(6)]
    rows = [
        {
            "id": f"m-{number}",
            "customer_id": "c",
            "consultation_id": "k",
            "turn_id": f"t-{number}",
            "kind": "observation",
            "text": "x",
            "created_at": NOON,
            "simulated": False,
            "embedding": vector,
            "embedding_model": "m",
            "embedding_dimensions": 1,
        }
        for number, vector in enumerate(vectors)
    ]
    assert [row["embedding"] for row in await written(database, memories, [rows])] == vectors


@pytest.mark.parametrize("number", [2, 30])
async def test_values_of_many_rows_are_set_by_id_and_of_no_other(database: Database, number: int) -> None:
    def row(place: int) -> Row:
        values = {"advisor_id": "a", "opened_at": NOON, "profile": {}, "transcript_hash": "0", "turn_count": 0}
        return {"id": f"c-{place:02}", "customer_id": "c", "outcome": "open", "simulated": False, **values}

    await written(database, consultations, [[row(place) for place in range(40)]])
    changes: list[tuple[str, Row]] = [(f"c-{place:02}", {"turn_count": place + 1}) for place in range(number)]
    changes += [
        ("c-38", {"outcome_reason": "\x00", "outcome_at": TIMES[4]}),
        ("c-39", {}),
        ("nobody", {"turn_count": 9}),
    ]
    await database.transaction(lambda connection: update_rows(connection, consultations, changes))
    rows = await written(database, consultations, [])
    assert [row["turn_count"] for row in rows] == [*range(1, number + 1), *[0] * (40 - number)]
    assert rows[38]["outcome_reason"] == "\ufffd"
    assert rows[38]["outcome_at"] == TIMES[4]


async def test_a_row_that_refers_to_nothing_is_refused_with_its_batch(database: Database) -> None:
    def turn(number: int) -> Row:
        return {
            "id": f"t-{number}",
            "consultation_id": "nobody",
            "ordinal": number,
            "state": "streaming",
            "question": "?",
            "model": "m",
            "simulated": False,
            "owner": "me",
            "lease_until": 0.0,
            "started_at": NOON,
            "last_sequence": -1,
            "context": {},
        }

    def work(connection: sa.Connection, size: int) -> None:
        insert_rows(connection, turns, [turn(place) for place in range(size)])

    for size in (1, 20):
        with pytest.raises(sa.exc.IntegrityError):
            await database.submit(functools.partial(work, size=size))
    assert await written(database, turns, []) == []

"""A server that compares vectors finds what the program finds, in the same order and with the same scores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.memory import MemoryStream
from guidance_agent.core.schema import cases, memories, rule_releases, rules
from guidance_agent.retrieval.experience import Experience
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.retrieval.vectors import FloatArray, QueryVector, embedding_columns
from guidance_agent.settings import Settings

pytestmark = pytest.mark.only_on("postgresql")
START = datetime(2026, 11, 1, tzinfo=UTC)
PRECISION = 2e-6
"""Float32 sums of some hundred products differ by so much when they are added in another order."""


class StillClock(SystemClock):
    """A clock that stands, so that two recalls weigh the same ages."""

    def now(self) -> datetime:
        return START + timedelta(days=20)


def random_vectors(count: int, dimensions: int, seed: int) -> FloatArray:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    found: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def strangers(place: int, row: dict[str, Any]) -> dict[str, Any]:
    """Make some rows ones that may not be found: another model, another length, none, or simulated."""
    kinds: dict[int, dict[str, Any]] = {
        1: {"embedding_model": "another"},
        2: embedding_columns(QueryVector("m", random_vectors(1, 7, place)[0])),
        3: embedding_columns(None),
        4: {"simulated": True},
    }
    return row | kinds.get(place % 11, {})


async def add(database: Database, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    await database.transaction(lambda connection: connection.execute(sa.insert(table), rows))


async def fill(database: Database, dimensions: int) -> None:
    vectors = random_vectors(500, dimensions, 1)
    same = vectors[7]

    def vector(place: int) -> dict[str, Any]:
        return embedding_columns(QueryVector("m", same if place % 50 == 7 else vectors[place]))

    def at(place: int) -> datetime:
        return START + timedelta(minutes=place % 90)

    await add(
        database,
        cases,
        [
            strangers(place, {"id": f"c-{place:03}", "turn_id": f"t-{place}", "topic": None, "text": f"case {place}"})
            | {"created_at": at(place), "simulated": False}
            | strangers(place, vector(place))
            for place in range(500)
        ],
    )
    await add(
        database,
        rules,
        [
            {"id": f"r-{place:03}", "text": f"rule {place}", "confidence": 0.2 + place % 8 / 10, "status": "released"}
            | {"evidence": [], "created_at": at(place), "simulated": False}
            | strangers(place, vector(place))
            for place in range(500)
        ],
    )
    older, latest = [f"r-{place:03}" for place in range(500)], [f"r-{place:03}" for place in range(0, 500, 3)]
    release = {"released_at": START, "note": ""}
    await add(
        database,
        rule_releases,
        [{"version": 1, "rule_ids": older, **release}, {"version": 2, "rule_ids": latest, **release}],
    )
    await add(
        database,
        memories,
        [
            {"id": f"m-{place:03}", "customer_id": "ann" if place % 2 else "ben", "consultation_id": f"k-{place % 5}"}
            | {"turn_id": f"t-{place}", "kind": "observation", "text": f"memory {place}", "created_at": at(place)}
            | {"simulated": False, "importance": None if place % 3 else float(1 + place % 10)}
            | strangers(place, vector(place))
            for place in range(500)
        ],
    )


@pytest.fixture(params=[3, 384, 1536])
async def dimensions(request: pytest.FixtureRequest, database: Database) -> int:
    await fill(database, request.param)
    return int(request.param)


def agree(one: Any, other: Any) -> None:
    assert [found.id for found in one] == [found.id for found in other]
    assert one
    for mine, theirs in zip(one, other, strict=True):
        assert mine.text == theirs.text
        assert mine.score == pytest.approx(theirs.score, abs=PRECISION)


@pytest.mark.parametrize("include_simulated", [False, True])
async def test_cases_and_rules(database: Database, dimensions: int, include_simulated: bool) -> None:
    clock = StillClock()
    held = Experience(database, clock, include_simulated=include_simulated)
    asked = Experience(database, clock, include_simulated=include_simulated, held_bytes=0)
    for seed in range(4):
        query = QueryVector("m", random_vectors(1, dimensions, 100 + seed)[0])
        for limit in (1, 2, 40):
            for one, other in zip(
                await held.search(query, cases=limit, rules=limit),
                await asked.search(query, cases=limit, rules=limit),
                strict=True,
            ):
                agree(one, other)


async def test_rows_that_are_equally_good_keep_their_order(database: Database, dimensions: int) -> None:
    query = QueryVector("m", random_vectors(500, dimensions, 1)[7])
    held = await Experience(database, StillClock()).search(query, cases=8, rules=3)
    asked = await Experience(database, StillClock(), held_bytes=0).search(query, cases=8, rules=3)
    assert asked[0][0].score == pytest.approx(1, abs=PRECISION)
    for one, other in zip(held, asked, strict=True):
        agree(one, other)


async def test_what_is_learned_or_withdrawn_is_found_by_the_server_at_once(database: Database) -> None:
    await fill(database, 3)
    asked = Experience(database, StillClock(), held_bytes=0)
    query = QueryVector("m", random_vectors(1, 3, 5)[0])
    row = {"id": "new", "turn_id": "new", "topic": "t", "text": "new", "created_at": START, "simulated": False}
    await asked.search(query, cases=1, rules=1)
    await add(database, cases, [row | embedding_columns(query)])
    assert [case.id for case in (await asked.search(query, cases=1, rules=1))[0]] == ["new"]
    await database.transaction(lambda connection: connection.execute(sa.delete(cases).where(cases.c.id == "new")))
    assert [case.id for case in (await asked.search(query, cases=1, rules=1))[0]] != ["new"]


@pytest.mark.parametrize("include_simulated", [False, True])
async def test_memories(
    database: Database, dimensions: int, include_simulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = MemoryStream(database, StillClock(), HashedEmbedder())

    async def recalled(query: QueryVector, limit: int) -> Any:
        return await stream.recall(
            "ann", query, limit=limit, include_simulated=include_simulated, exclude_consultation="k-3"
        )

    for seed in range(4):
        query = QueryVector("m", random_vectors(1, dimensions, 200 + seed)[0])
        for limit in (1, 4, 60):
            in_server = await recalled(query, limit)
            with monkeypatch.context() as patch:
                patch.setattr(Database, "compares_vectors", False)
                in_program = await recalled(query, limit)
            assert len(in_program) == limit
            agree(in_server, in_program)


async def test_a_question_of_no_known_model_finds_memories_by_date(database: Database) -> None:
    await fill(database, 3)
    stream = MemoryStream(database, StillClock(), HashedEmbedder())
    unknown = QueryVector("of another model", random_vectors(1, 5, 1)[0])
    by_date = await stream.recall("ann", None, limit=5)
    agree(await stream.recall("ann", unknown, limit=5), by_date)


async def test_a_server_without_pgvector_leaves_it_to_the_program(
    database: Database, empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidance_agent.core.migrations.vectors._has_pgvector", lambda _: False)
    clock, query = StillClock(), QueryVector("m", random_vectors(1, 64, 9)[0])
    async with Database(database_url(empty)) as plain:
        assert database.compares_vectors
        assert not plain.compares_vectors
        found = []
        for records in (database, plain):
            await fill(records, 64)
            learned = await Experience(records, clock, held_bytes=0).search(query, cases=9, rules=9)
            found.append((*learned, await MemoryStream(records, clock, HashedEmbedder()).recall("ann", query, limit=9)))
    for one, other in zip(*found, strict=True):
        agree(one, other)

"""Recall once many observations have become a few reflections: reflections first, originals still there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import sqlalchemy as sa
import yaml

from guidance_agent import Settings
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.memory import CANDIDATES, CONSOLIDATED_LESS, Memory, MemoryStream
from guidance_agent.core.schema import memories
from guidance_agent.retrieval.embeddings import HashedEmbedder

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SET = yaml.safe_load(Path(__file__).with_name("data").joinpath("consolidated.yaml").read_text(encoding="utf-8"))
DAYS_BETWEEN = 5


class Noon(SystemClock):
    def now(self) -> datetime:
        return NOW


class Streams(NamedTuple):
    """The same customer as remembered without and with consolidation, and a customer of the test's own."""

    stream: MemoryStream
    database: Database

    async def add(self, *rows: dict[str, Any]) -> None:
        def write(connection: sa.Connection) -> None:
            for row in rows:
                connection.execute(sa.insert(memories).values(**row))

        await self.database.transaction(write)
        await self.stream.embed_pending(limit=1_000)

    def row(self, memory_id: str, text: str, *, customer: str = "ann", days_ago: float = 1, **values: Any) -> Any:
        made = self.stream.observation_row(
            customer_id=customer,
            consultation_id=f"c-{memory_id}",
            turn_id=f"t-{memory_id}",
            text=text,
            simulated=False,
            at=NOW - timedelta(days=days_ago),
        )
        return made | {"id": memory_id, "importance": 5.0} | values


@pytest_asyncio.fixture
async def streams(settings: Settings) -> AsyncIterator[Streams]:
    async with Database(database_url(settings)) as database:
        yield Streams(MemoryStream(database, Noon(), HashedEmbedder()), database)


@pytest_asyncio.fixture
async def customers(streams: Streams) -> Streams:
    """`before` has the observations of the set; `after` has them consolidated."""
    observed, count = SET["observations"], len(SET["observations"])
    named = {each for reflection in SET["reflections"] for each in reflection["evidence"]}
    rows = []
    for customer in ("before", "after"):
        for number, text in enumerate(observed):
            marks = {"consolidated_at": NOW} if customer == "after" and number in named else {}
            age = DAYS_BETWEEN * (count - number)
            name = f"{customer}-{number}"
            rows.append(streams.row(name, text, customer=customer, days_ago=age, importance=4.0 + number % 3, **marks))
    for number, reflection in enumerate(SET["reflections"]):
        evidence = [f"after-{each}" for each in reflection["evidence"]]
        age = DAYS_BETWEEN * (count - max(reflection["evidence"]))
        values = {"evidence": evidence, "kind": "reflection", "turn_id": None, "consultation_id": None}
        row = streams.row(f"r-{number}", reflection["text"], customer="after", days_ago=age, **values)
        rows.append(row | {"importance": float(reflection["importance"])})
    await streams.add(*rows)
    return streams


def told(found: tuple[Memory, ...]) -> set[int]:
    """The observations that are recalled, by themselves or by a reflection that stands for them."""
    return {int(each.rpartition("-")[2]) for memory in found for each in memory.evidence or (memory.id,)}


async def answered(streams: Streams, customer: str) -> tuple[int, float]:
    """How many questions of the set are answered for, and how many observations one recall stands for on average."""
    recalled = [
        (set(each["needs"]), told(await streams.stream.recall(customer, each["ask"]))) for each in SET["questions"]
    ]
    return sum(bool(needs & found) for needs, found in recalled), sum(len(found) for _, found in recalled) / len(
        recalled
    )


async def test_recall_answers_for_more_with_reflections_than_without(customers: Streams) -> None:
    """The figures of `specs/memory-consolidation.md`."""
    assert await answered(customers, "before") == (8, 4.0)
    assert await answered(customers, "after") == (11, 7.5)


async def test_an_original_is_recalled_where_it_fits_best(customers: Streams) -> None:
    found = []
    for detail in SET["details"]:
        recalled = await customers.stream.recall("after", detail["ask"])
        found.append(f"after-{detail['original']}" in {memory.id for memory in recalled})
    assert sum(found) == 3


async def test_a_consolidated_observation_counts_less_by_a_fixed_amount(streams: Streams) -> None:
    await streams.add(
        streams.row("plain", "What is drawdown?"),
        streams.row("stood-for", "What is drawdown?", consolidated_at=NOW),
    )
    first, second = await streams.stream.recall("ann", "What is drawdown?")
    assert (first.id, second.id) == ("plain", "stood-for")
    assert (first.consolidated, second.consolidated) == (False, True)
    assert first.score - second.score == pytest.approx(CONSOLIDATED_LESS)


async def test_the_originals_of_a_reflection_can_be_had_and_only_by_its_customer(streams: Streams) -> None:
    reflection: dict[str, Any] = {"kind": "reflection", "turn_id": None, "consultation_id": None}
    await streams.add(
        streams.row("o-1", "First.", days_ago=3, consolidated_at=NOW),
        streams.row("o-2", "Second.", days_ago=2, consolidated_at=NOW),
        streams.row("o-3", "Somebody else's.", customer="bob"),
        streams.row("r-1", "Said both.", evidence=["o-2", "o-1", "o-3"], **reflection),
    )
    found = await streams.stream.originals("r-1", customer_id="ann")
    assert [(memory.id, memory.text, memory.consolidated) for memory in found] == [
        ("o-1", "First.", True),
        ("o-2", "Second.", True),
    ]
    assert await streams.stream.originals("r-1", customer_id="bob") == ()
    assert await streams.stream.originals("no-such", customer_id="ann") == ()


async def test_a_reflection_of_one_consultation_is_left_out_where_that_is_in_the_prompt(streams: Streams) -> None:
    values: dict[str, Any] = {"kind": "reflection", "turn_id": None, "evidence": ["o-1"]}
    await streams.add(
        streams.row("r-one", "Said it in this one.", consultation_id="now", **values),
        streams.row("r-many", "Said it in several.", **(values | {"consultation_id": None})),
    )
    found = await streams.stream.recall("ann", None, exclude_consultation="now")
    assert [memory.id for memory in found] == ["r-many"]


async def test_reflections_on_what_was_said_long_ago_are_weighed_before_originals_of_yesterday(
    streams: Streams,
) -> None:
    many = [
        streams.row(f"o-{number:03}", f"Remark {number}.", days_ago=1, consolidated_at=NOW)
        for number in range(CANDIDATES)
    ]
    old = streams.row("r-old", "Asked about the roof.", days_ago=300, kind="reflection", turn_id=None, evidence=["x"])
    await streams.add(*many, old)
    assert "r-old" in {memory.id for memory in await streams.stream.recall("ann", "The roof?")}

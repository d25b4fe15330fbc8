"""The memory stream: scored by recency, importance and relevance; each customer's own and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.memory import Memory, MemoryStream
from guidance_agent.core.schema import memories
from guidance_agent.errors import InputError
from guidance_agent.retrieval.embeddings import HashedEmbedder
from guidance_agent.retrieval.vectors import QueryVector

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class FixedClock(SystemClock):
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def stream(database: Database, clock: FixedClock) -> MemoryStream:
    return MemoryStream(database, clock, HashedEmbedder(256))


_turns = iter(range(10_000_000))


async def remember(
    database: Database,
    stream: MemoryStream,
    text: str,
    *,
    customer: str = "ann",
    hours_ago: float = 0,
    importance: float | None = None,
    vector: QueryVector | None = None,
    **values: Any,
) -> str:
    row = stream.observation_row(
        customer_id=customer,
        consultation_id=values.pop("consultation", "con-1"),
        turn_id=f"turn-{next(_turns)}",
        text=text,
        simulated=values.pop("simulated", False),
        at=NOW - timedelta(hours=hours_ago),
        embedding=vector,
    )
    with database.engine.begin() as connection:
        connection.execute(sa.insert(memories).values(**(row | {"importance": importance} | values)))
    return str(row["id"])


def direction(degrees: float, model: str = "offline/hashed-terms-1") -> QueryVector:
    angle = np.radians(degrees)
    return QueryVector(model, np.array([np.cos(angle), np.sin(angle)], dtype=np.float32))


def texts(found: tuple[Memory, ...]) -> list[str]:
    return [memory.text for memory in found]


async def test_a_newer_memory_outranks_an_equal_older_one(database: Database, stream: MemoryStream) -> None:
    for hours in (50, 2, 400):
        await remember(database, stream, f"{hours} h ago", hours_ago=hours, importance=5, vector=direction(0))
    assert texts(await stream.recall("ann", direction(10))) == ["2 h ago", "50 h ago", "400 h ago"]


async def test_memories_of_the_same_moment_come_newest_first(database: Database, stream: MemoryStream) -> None:
    for number in range(5):
        await remember(database, stream, str(number), hours_ago=-number / 36_000_000, vector=direction(0))
    assert texts(await stream.recall("ann", direction(0), limit=5)) == ["4", "3", "2", "1", "0"]


async def test_a_more_important_memory_outranks_an_equal_one(database: Database, stream: MemoryStream) -> None:
    await remember(database, stream, "decisive", importance=9)
    await remember(database, stream, "passing", importance=2)
    assert texts(await stream.recall("ann", None)) == ["decisive", "passing"]


async def test_a_more_relevant_memory_outranks_an_equal_one(database: Database, stream: MemoryStream) -> None:
    await remember(database, stream, "far", vector=direction(80))
    await remember(database, stream, "near", vector=direction(5))
    assert texts(await stream.recall("ann", direction(0))) == ["near", "far"]


async def test_the_score_is_the_sum_of_the_three_components_scaled_to_one(
    database: Database, stream: MemoryStream
) -> None:
    await remember(database, stream, "a", hours_ago=0, importance=1, vector=direction(90))
    await remember(database, stream, "b", hours_ago=100, importance=10, vector=direction(0))
    await remember(database, stream, "c", hours_ago=50, importance=5.5, vector=direction(60))
    scores = {memory.text: memory.score for memory in await stream.recall("ann", direction(0))}
    middle = (0.995**50 - 0.995**100) / (1 - 0.995**100)
    assert scores == pytest.approx({"a": 1.0, "b": 2.0, "c": middle + 0.5 + 0.5}, abs=1e-5)


async def test_a_single_memory_keeps_its_own_values(database: Database, stream: MemoryStream) -> None:
    await remember(database, stream, "alone", hours_ago=10, importance=8, vector=direction(60))
    (memory,) = await stream.recall("ann", direction(0))
    assert memory.score == pytest.approx(0.995**10 + 0.8 + 0.5, abs=1e-5)


async def test_an_unrated_memory_counts_as_neutral(database: Database, stream: MemoryStream) -> None:
    for text, importance in (("low", 4.0), ("unrated", None), ("high", 6.0)):
        await remember(database, stream, text, importance=importance)
    assert texts(await stream.recall("ann", None)) == ["high", "unrated", "low"]


async def test_a_memory_without_a_vector_of_the_questions_model_counts_as_average(
    database: Database, stream: MemoryStream
) -> None:
    await remember(database, stream, "far", vector=direction(80))
    await remember(database, stream, "other model", vector=direction(0, "another"))
    await remember(database, stream, "no vector")
    await remember(database, stream, "near", vector=direction(0))
    found = texts(await stream.recall("ann", direction(0)))
    assert (found[0], found[-1]) == ("near", "far")


async def test_recency_counts_from_the_last_retrieval(
    database: Database, stream: MemoryStream, clock: FixedClock
) -> None:
    old = await remember(database, stream, "old", hours_ago=500)
    await remember(database, stream, "newer", hours_ago=100)
    await stream.touch([old])
    clock.time += timedelta(hours=1)
    assert texts(await stream.recall("ann", None)) == ["old", "newer"]


async def test_a_recall_writes_nothing(database: Database, stream: MemoryStream) -> None:
    await remember(database, stream, "kept as it is")
    await stream.recall("ann", "kept?")
    with database.engine.connect() as connection:
        assert (connection.execute(sa.select(memories.c.last_retrieved_at))).scalar_one() is None


async def test_a_clock_set_back_makes_no_memory_more_than_recent(
    database: Database, stream: MemoryStream, clock: FixedClock
) -> None:
    await remember(database, stream, "future", hours_ago=-1_000, importance=5)
    (memory,) = await stream.recall("ann", None)
    assert memory.score == pytest.approx(1 + 0.5)


async def test_a_question_in_words_is_embedded(database: Database, stream: MemoryStream) -> None:
    for text in ("My husband passed away in May", "I owe money on two credit cards"):
        await remember(database, stream, text)
    assert await stream.embed_pending() == 2
    assert texts(await stream.recall("ann", "What about my debts?", limit=1)) == ["I owe money on two credit cards"]


async def test_simulated_memories_and_the_present_consultation_are_left_out_unless_wanted(
    database: Database, stream: MemoryStream
) -> None:
    await remember(database, stream, "real", consultation="con-1", importance=5)
    await remember(database, stream, "simulated", consultation="con-2", simulated=True, importance=1)
    assert texts(await stream.recall("ann", None)) == ["real"]
    assert texts(await stream.recall("ann", None, include_simulated=True)) == ["real", "simulated"]
    assert await stream.recall("ann", None, exclude_consultation="con-1") == ()


async def test_no_memories_and_no_limit_give_nothing(database: Database, stream: MemoryStream) -> None:
    assert await stream.recall("nobody", "anything") == ()
    await remember(database, stream, "one")
    assert await stream.recall("ann", None, limit=0) == ()


# Names that a careless comparison would take for one another, and any other printable ones.
CUSTOMER = st.one_of(
    st.sampled_from(["ann", "Ann", "ann ", "%", "_", "a%", "ann'--", "ANN"]),
    st.text(min_size=1, max_size=12).filter(str.isprintable),
)


@given(st.lists(CUSTOMER, min_size=1, max_size=12), CUSTOMER, st.booleans())
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_other_customers_memory_is_ever_recalled(
    database: Database, owners: list[str], asking: str, with_query: bool
) -> None:
    stream = MemoryStream(database, SystemClock(), HashedEmbedder(64))
    with database.engine.begin() as connection:
        connection.execute(sa.delete(memories))
    for owner in owners:
        await remember(database, stream, owner, customer=owner, vector=direction(0))
    found = await stream.recall(asking, direction(0) if with_query else None, limit=50, include_simulated=True)
    assert texts(found) == [asking] * owners.count(asking)


async def test_unrated_memories_are_handed_out_until_they_are_rated_or_given_up(
    database: Database, stream: MemoryStream
) -> None:
    first = await remember(database, stream, "first", hours_ago=2)
    second = await remember(database, stream, "second", hours_ago=1)
    await stream.set_importance(first, None)
    assert [(item.id, item.attempts) for item in await stream.unrated(5)] == [(second, 0), (first, 1)]
    await stream.set_importance(second, 7)
    for _ in range(4):
        await stream.set_importance(first, None)
    assert await stream.unrated(5) == ()
    assert {memory.text: memory.importance for memory in await stream.recall("ann", None)} == {
        "first": None,
        "second": 7.0,
    }


@pytest.mark.parametrize("value", [0, 0.9, 10.1, float("nan")])
async def test_a_rating_outside_one_to_ten_is_refused(stream: MemoryStream, value: float) -> None:
    with pytest.raises(InputError, match="from 1 to 10"):
        await stream.set_importance("mem-1", value)


async def test_vectors_of_another_model_are_replaced_in_the_background(
    database: Database, stream: MemoryStream
) -> None:
    await remember(database, stream, "old model", vector=direction(0, "another"))
    await remember(database, stream, "none yet")
    assert {item.text for item in await stream.unembedded()} == {"old model", "none yet"}
    assert await stream.embed_pending(limit=1) == 1
    assert await stream.embed_pending() == 1
    assert await stream.embed_pending() == 0


async def test_a_vector_can_be_set_by_hand(database: Database, stream: MemoryStream) -> None:
    memory_id = await remember(database, stream, "text")
    await stream.set_embedding(memory_id, direction(0))
    assert await stream.unembedded() == ()


async def test_erasing_a_customer_leaves_the_others(database: Database, stream: MemoryStream) -> None:
    for customer in ("ann", "ann", "bob"):
        await remember(database, stream, "something", customer=customer)
    assert await stream.erase_customer("ann") == 2
    assert await stream.recall("ann", None) == ()
    assert len(await stream.recall("bob", None)) == 1


def test_a_new_row_has_every_column_of_the_table(stream: MemoryStream) -> None:
    row = stream.observation_row(customer_id="c", consultation_id="k", turn_id="t", text="x", simulated=True)
    assert set(row) == set(memories.c.keys())
    assert row["created_at"] == NOW

"""Retrieval from the records, and with a provider's embedding model that may fail."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from blockbuster import BlockBuster

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.memory import MemoryStream
from guidance_agent.core.schema import cases, memories, rule_releases, rules
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from guidance_agent.retrieval.embeddings import CachedEmbedder, HashedEmbedder, ProviderEmbedder
from guidance_agent.retrieval.retriever import RetrievalLimits, Retrieved, Retriever
from guidance_agent.retrieval.vectors import QueryVector, embedding_columns

DAY = date(2026, 11, 21)
START = datetime(2026, 11, 1, tzinfo=UTC)
MODEL = "openai/text-embedding-3-small"
QUESTION = "Can I move my NHS pension into a SIPP?"


class MovedClock(SystemClock):
    """A real clock whose monotonic time can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


async def vector_of(text: str) -> QueryVector:
    embedder = HashedEmbedder()
    return QueryVector(embedder.model, (await embedder.embed([text]))[0])


async def add(database: Database, table: sa.Table, **values: Any) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.insert(table).values(**values))


async def add_case(database: Database, name: str, text: str, *, at: int = 0, **values: Any) -> None:
    row: dict[str, Any] = {"id": name, "turn_id": f"turn-{name}", "topic": None, "text": text, "simulated": False}
    row |= {"created_at": START + timedelta(seconds=at), **embedding_columns(await vector_of(text))}
    await add(database, cases, **(row | values))


async def add_rule(database: Database, name: str, text: str, confidence: float, **values: Any) -> None:
    row: dict[str, Any] = {
        "id": name,
        "text": text,
        "confidence": confidence,
        "status": "released",
        "evidence": [],
        "simulated": False,
    }
    row |= {"created_at": START, **embedding_columns(await vector_of(text))}
    await add(database, rules, **(row | values))


async def release(database: Database, version: int, *rule_ids: str) -> None:
    await add(database, rule_releases, version=version, released_at=START, rule_ids=list(rule_ids), note="")


async def ask(retriever: Retriever, question: str = QUESTION, **options: Any) -> Retrieved:
    return await retriever.retrieve(question, customer_id="ann", day=DAY, **options)


async def test_the_most_similar_cases_are_found_within_the_limit(database: Database) -> None:
    for number, text in enumerate(["moving an NHS pension to a SIPP", "an NHS pension", "State Pension deferral"]):
        await add_case(database, str(number), text, topic="db")
    found = (await ask(Retriever(load_knowledge(), database))).cases
    assert [case.text for case in found] == ["moving an NHS pension to a SIPP", "an NHS pension"]
    assert found[0].topic == "db"
    assert found[0].score > found[1].score > 0


async def test_rules_are_ranked_by_similarity_times_confidence(database: Database) -> None:
    await add_rule(database, "sure", "Explain that an NHS pension cannot move", 0.9)
    await add_rule(database, "unsure", "Explain that an NHS pension cannot move", 0.3)
    await release(database, 1, "sure", "unsure")
    found = (await ask(Retriever(load_knowledge(), database))).rules
    assert [rule.id for rule in found] == ["sure", "unsure"]
    assert found[0].score / found[1].score == pytest.approx(3, rel=1e-4)


async def test_only_rules_of_the_latest_release_are_found(database: Database) -> None:
    for name in ("withdrawn", "kept", "draft"):
        await add_rule(database, name, f"NHS pension rule {name}", 0.8)
    await release(database, 1, "withdrawn", "kept")
    await release(database, 2, "kept")
    assert [rule.id for rule in (await ask(Retriever(load_knowledge(), database))).rules] == ["kept"]


async def test_without_a_release_no_rule_is_found(database: Database) -> None:
    await add_rule(database, "draft", "NHS pension rule", 0.8)
    assert (await ask(Retriever(load_knowledge(), database))).rules == ()


async def test_simulated_rows_count_only_where_the_whole_store_is_simulated(database: Database) -> None:
    await add_case(database, "c", "NHS pension to SIPP", simulated=True)
    await add_rule(database, "r", "NHS pension rule", 0.8, simulated=True)
    await release(database, 1, "r")
    real = await ask(Retriever(load_knowledge(), database))
    assert (real.cases, real.rules) == ((), ())
    simulated = await ask(Retriever(load_knowledge(), database, include_simulated=True))
    assert (len(simulated.cases), len(simulated.rules)) == (1, 1)


async def test_rows_of_another_embedding_model_are_not_compared(database: Database) -> None:
    await add_case(database, "c", "NHS pension to SIPP", embedding_model="another")
    await add_case(database, "d", "NHS pension to SIPP", embedding=None)
    assert (await ask(Retriever(load_knowledge(), database))).cases == ()


async def test_what_is_learned_or_withdrawn_later_is_seen_after_the_refresh(
    database: Database, clock: MovedClock
) -> None:
    retriever = Retriever(load_knowledge(), database, clock=clock)
    await add_case(database, "first", "NHS pension to SIPP")
    assert len((await ask(retriever)).cases) == 1
    await add_case(database, "second", "NHS pension into a SIPP", at=1)
    assert len((await ask(retriever)).cases) == 1
    clock.ahead += 10
    assert {case.id for case in (await ask(retriever)).cases} == {"first", "second"}
    with database.engine.begin() as connection:
        connection.execute(sa.delete(cases).where(cases.c.id == "first"))
    clock.ahead += 10
    assert [case.id for case in (await ask(retriever)).cases] == ["second"]
    await add_case(database, "same moment", "NHS pension to a SIPP", at=1)
    clock.ahead += 10
    assert {case.id for case in (await ask(retriever)).cases} == {"second", "same moment"}


async def test_memories_of_this_customer_come_with_the_question(database: Database, clock: MovedClock) -> None:
    embedder = HashedEmbedder()
    stream = MemoryStream(database, clock, embedder)
    for customer, text in (("ann", "I work for the NHS"), ("bob", "I work for the NHS too")):
        row = stream.observation_row(
            customer_id=customer, consultation_id="k", turn_id=f"t-{customer}", text=text, simulated=False
        )
        await add(database, memories, **row)
    retriever = Retriever(load_knowledge(), database, embedder, stream, clock=clock)
    assert [memory.text for memory in (await ask(retriever)).memories] == ["I work for the NHS"]
    assert (await ask(retriever, consultation_id="k")).memories == ()
    assert (await ask(retriever, limits=RetrievalLimits(memories=0))).memories == ()


async def test_the_vector_of_the_question_can_be_stored_with_its_memory(database: Database, clock: MovedClock) -> None:
    stream = MemoryStream(database, clock, HashedEmbedder())
    found = await ask(Retriever(load_knowledge(), database), history_texts=["I have debts."])
    row = stream.observation_row(
        customer_id="ann", consultation_id="k", turn_id="t", text=QUESTION, simulated=False, embedding=found.question
    )
    await add(database, memories, **row)
    assert await stream.unembedded() == ()
    (memory,) = await stream.recall("ann", QUESTION)
    assert memory.score == pytest.approx(1 + 0.5 + 1, abs=1e-3)


async def test_nothing_blocks_the_event_loop(database: Database, clock: MovedClock) -> None:
    await add_case(database, "c", "NHS pension to SIPP")
    stream = MemoryStream(database, clock, HashedEmbedder())
    retriever = Retriever(load_knowledge(), database, HashedEmbedder(), stream, clock=clock)
    detector = BlockBuster()
    detector.activate()
    try:
        assert (await ask(retriever)).cases
    finally:
        detector.deactivate()


def provider_retriever(gateway: ModelGateway, database: Database, clock: MovedClock, **options: Any) -> Retriever:
    # A busy machine must not look like a slow model.
    options.setdefault("embedding_budget", 20.0)
    embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL, 256), database, clock)
    return Retriever(
        load_knowledge(), database, embedder, MemoryStream(database, clock, embedder), clock=clock, **options
    )


async def test_a_providers_model_finds_facts_cases_and_memories(
    gateway: ModelGateway, database: Database, clock: MovedClock
) -> None:
    embedder = ProviderEmbedder(gateway, MODEL, 256)
    vector = QueryVector(MODEL, (await embedder.embed([QUESTION]))[0])
    await add_case(database, "c", QUESTION, **embedding_columns(vector))
    result = await ask(provider_retriever(gateway, database, clock))
    assert result.degraded is None
    assert result.facts[0].fact.id == "DB-05"
    assert [case.score for case in result.cases] == pytest.approx([1], abs=1e-4)
    assert result.question is not None
    assert np.array_equal(result.question.values, vector.values)


async def test_facts_are_embedded_once_however_many_questions_are_asked(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database, clock: MovedClock
) -> None:
    retriever = provider_retriever(gateway, database, clock)
    await retriever.warm()
    warmed = len(simulator.requests)
    for number in range(3):
        await ask(retriever, f"{QUESTION} {number}")
    assert len(simulator.requests) == warmed + 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(kind="status", status=500, times=None), "failed"),
        (Fault(kind="slow_headers", times=None), "within 0.2 s"),
    ],
)
async def test_a_model_that_fails_or_is_slow_leaves_a_turn_with_its_facts(
    gateway: ModelGateway,
    simulator: ProviderSimulator,
    database: Database,
    clock: MovedClock,
    fault: Fault,
    reason: str,
) -> None:
    retriever = provider_retriever(gateway, database, clock, embedding_budget=0.2)
    simulator.faults.add(fault)
    result = await ask(retriever)
    offline = await ask(Retriever(load_knowledge()))
    assert result.facts == offline.facts
    assert result.degraded is not None
    assert reason in result.degraded
    assert MODEL in result.degraded
    assert result.question is None


async def test_a_model_that_failed_is_left_alone_for_a_while_and_then_asked_again(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database, clock: MovedClock
) -> None:
    retriever = provider_retriever(gateway, database, clock)
    simulator.faults.add(Fault(kind="status", status=500))
    assert (await ask(retriever)).degraded
    asked = len(simulator.requests)
    assert "a moment ago" in str((await ask(retriever)).degraded)
    assert len(simulator.requests) == asked
    clock.ahead += 31
    assert (await ask(retriever)).degraded is None


async def test_warming_survives_a_model_that_is_down(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database, clock: MovedClock
) -> None:
    retriever = provider_retriever(gateway, database, clock)
    simulator.faults.add(Fault(kind="status", status=500))
    await retriever.warm()
    assert (await ask(retriever)).degraded is None


async def test_memories_are_recalled_by_date_when_the_model_is_down(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database, clock: MovedClock
) -> None:
    retriever = provider_retriever(gateway, database, clock)
    stream = MemoryStream(database, clock, HashedEmbedder())
    row = stream.observation_row(
        customer_id="ann", consultation_id="k", turn_id="t", text="I am a nurse", simulated=False
    )
    await add(database, memories, **row)
    simulator.faults.add(Fault(kind="status", status=500))
    assert [memory.text for memory in (await ask(retriever)).memories] == ["I am a nurse"]

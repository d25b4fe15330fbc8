"""Embeddings of a provider over real HTTP, and the cache in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from guidance_agent import Runtime, Settings
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import embedding_cache
from guidance_agent.errors import MalformedResponseError, ModelError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from guidance_agent.retrieval.embeddings import CachedEmbedder, ProviderEmbedder, embed, embed_batch

MODEL = "openai/text-embedding-3-small"


def asked(simulator: ProviderSimulator) -> list[list[str]]:
    return [record.body["input"] for record in simulator.requests if record.body]


async def stored(database: Database) -> int:
    with database.engine.connect() as connection:
        return int((connection.execute(sa.select(sa.func.count()).select_from(embedding_cache))).scalar_one())


async def test_texts_are_asked_for_in_batches_and_come_back_in_order(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    texts = [f"text {number}" for number in range(7)]
    vectors = await embed_batch(texts, model=MODEL, dimensions=256, batch_size=3, source=gateway)
    assert [len(batch) for batch in asked(simulator)] == [3, 3, 1]
    assert vectors.shape == (7, 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    assert vectors[5] == pytest.approx(await embed("text 5", model=MODEL, dimensions=256, source=gateway), abs=1e-6)


async def test_blank_texts_are_zero_and_never_sent(gateway: ModelGateway, simulator: ProviderSimulator) -> None:
    vectors = await ProviderEmbedder(gateway, MODEL).embed(["", "pension", " \n"])
    assert asked(simulator) == [["pension"]]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0, 1, 0], abs=1e-5)


async def test_the_length_of_the_vectors_is_learned_from_the_first_answer(gateway: ModelGateway) -> None:
    embedder = ProviderEmbedder(gateway, MODEL)
    assert embedder.dimensions is None
    vectors = await embedder.embed(["pension"])
    assert embedder.dimensions == vectors.shape[1] == 1536


async def test_a_failure_of_the_provider_is_its_typed_error(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    simulator.faults.add(Fault(kind="status", status=500))
    with pytest.raises(ModelError):
        await ProviderEmbedder(gateway, MODEL).embed(["pension"])


@dataclass
class Answer:
    vectors: Sequence[Sequence[float]]


class WrongSource:
    """Answers whatever it is told to."""

    def __init__(self, vectors: Sequence[Sequence[float]]) -> None:
        self.vectors = vectors

    async def embed(
        self, model: str, texts: Sequence[str], *, dimensions: int | None = None, operation: str = "embedding"
    ) -> Answer:
        return Answer(self.vectors)


@pytest.mark.parametrize(
    "vectors",
    [[], [[1.0, 0.0]], [[1.0, 0.0], [1.0]], [[], []], [[0.0, 0.0], [1.0, 0.0]], [[float("nan"), 1.0], [1.0, 0.0]]],
)
async def test_an_answer_that_does_not_fit_the_texts_is_refused(vectors: list[list[float]]) -> None:
    with pytest.raises(MalformedResponseError, match="'m/e'"):
        await ProviderEmbedder(WrongSource(vectors), "m/e").embed(["one", "two"])


async def test_shared_texts_are_embedded_once_for_all_processes(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    texts = [f"fact {number}" for number in range(600)]
    first = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, SystemClock())
    made = await first.embed(texts, shared=True)
    calls = len(asked(simulator))
    second = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, SystemClock())
    assert np.array_equal(await second.embed(texts, shared=True), made)
    assert len(asked(simulator)) == calls
    assert await stored(database) == 600


async def test_a_customers_words_are_cached_in_memory_only(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, SystemClock())
    one = await embedder.embed(["I owe £19,000", "I owe £19,000"])
    assert np.array_equal(await embedder.embed(["I owe £19,000"]), one[:1])
    assert asked(simulator) == [["I owe £19,000"]]
    assert await stored(database) == 0


async def test_only_what_is_missing_is_asked_for(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, SystemClock())
    await embedder.embed(["a", "b"], shared=True)
    await embedder.embed(["b", "c", "a", "c"], shared=True)
    assert asked(simulator) == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("model", "dimensions", "text"),
    [("openai/text-embedding-3-large", 64, "a"), (MODEL, 128, "a"), (MODEL, 64, "b"), (MODEL, 64, "a ")],
)
async def test_everything_that_changes_the_vector_changes_the_key(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database, model: str, dimensions: int, text: str
) -> None:
    await CachedEmbedder(ProviderEmbedder(gateway, MODEL, 64), database, SystemClock()).embed(["a"], shared=True)
    other = CachedEmbedder(ProviderEmbedder(gateway, model, dimensions), database, SystemClock())
    vectors = await other.embed([text], shared=True)
    assert vectors.shape == (1, dimensions)
    assert len(asked(simulator)) == 2


async def test_the_cache_in_memory_is_bounded_and_drops_the_least_used(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, SystemClock(), capacity=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embedder.embed([text])
    assert asked(simulator) == [["a"], ["b"], ["c"], ["b"]]


class MovableClock(SystemClock):
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


async def test_another_place_under_the_same_model_name_is_another_key(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    async def elsewhere() -> str:
        return "openai https://another.example/v1"

    async def here() -> str:
        return await gateway.address(MODEL)

    for origin in (elsewhere, here, here):
        embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, SystemClock(), origin=origin)
        await embedder.embed(["a"], shared=True)
    assert len(asked(simulator)) == 2
    assert await here() == f"openai {simulator.base_url}/v1"


async def test_the_runtime_never_reads_the_vectors_of_another_address(
    simulator: ProviderSimulator, tmp_path: Path
) -> None:
    kept = []
    async with ProviderSimulator(SimulatorSettings.instant()) as another:
        for place in (simulator, simulator, another, another):
            provider = {"base_url": f"{place.base_url}/v1", "api_key": "sk-test-123456"}
            settings = Settings.load(
                data_dir=tmp_path / "data", background=False, embedding_model=MODEL, providers={"openai": provider}
            )
            async with Runtime(settings, environ={}) as runtime:
                await runtime.retriever.warm()
                kept.append(await stored(runtime.database))
        facts = kept[0]
        assert facts > 0
        assert kept == [facts, facts, 2 * facts, 2 * facts]
        for place in (simulator, another):
            assert sum(len(batch) for batch in asked(place)) == facts


async def test_a_stored_vector_is_made_again_when_it_is_too_old(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    clock = MovableClock()
    for age in (0, 29, 2, 29):
        clock.ahead += timedelta(days=age)
        embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL), database, clock, max_age=timedelta(days=30))
        await embedder.embed(["a"], shared=True)
    assert len(asked(simulator)) == 2
    assert await stored(database) == 1


async def test_what_is_stored_is_bounded_by_number_and_age(
    gateway: ModelGateway, simulator: ProviderSimulator, database: Database
) -> None:
    clock = MovableClock()
    embedder = CachedEmbedder(
        ProviderEmbedder(gateway, MODEL, 16), database, clock, stored=3, max_age=timedelta(days=30)
    )
    for text in ("a", "b", "c", "d", "e"):
        await embedder.embed([text], shared=True)
        clock.ahead += timedelta(seconds=1)
    assert await stored(database) == 3
    clock.ahead += timedelta(days=31)
    await embedder.embed(["f"], shared=True)
    assert await stored(database) == 1


async def test_no_texts_ask_nothing(gateway: ModelGateway, simulator: ProviderSimulator, database: Database) -> None:
    embedder = CachedEmbedder(ProviderEmbedder(gateway, MODEL, 64), database, SystemClock())
    assert (await embedder.embed([])).shape == (0, 64)
    assert asked(simulator) == []

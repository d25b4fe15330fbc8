"""What retrieval costs, beside bare numpy or SQLite in the same run: `python benchmarks/retrieval.py [--quick]`.

The floor of a search is the matrix product alone, with vectors that are there already; the floor of a recall is reading
the same rows with the standard library's `sqlite3`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from benchmarks.rows import Row
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.memory import MemoryStream
from guidance_agent.core.schema import memories
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.retrieval import facts, lexical, topics
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.retrieval.retriever import Retriever
from guidance_agent.retrieval.vectors import QueryVector, VectorIndex, embedding_columns
from guidance_agent.settings import Settings

__all__ = ["Row", "print_table", "run"]

QUESTION = (
    "I've got an old policy worth £71,000 that mentions a guaranteed rate. My niece says I should move it to a pension "
    "app, so I can see it on my phone. I'm worried about getting it wrong. What's the difference?"
)
DAY = date(2026, 11, 21)


async def milliseconds(work: Callable[[], Awaitable[object]], times: int) -> float:
    """Return the median time of `work`."""
    taken = []
    gc.collect()
    for _ in range(times):
        began = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken)


def row(name: str, value: float, floor: float | None, target: str = "") -> Row:
    ratio = None if not floor else value / floor
    return Row(name=name, unit="ms", value=value, floor=floor, ratio=ratio, target=target)


async def question_rows(times: int) -> list[Row]:
    """A question against the packaged facts, without and with its two main parts."""
    embedder, retriever = HashedEmbedder(), Retriever(load_knowledge())
    await retriever.warm()
    matrix = embedder.vectors(facts.FactTexts(load_knowledge()).texts)
    query = embedder.vectors([QUESTION])[0]

    async def product() -> object:
        return matrix @ query

    async def embedded() -> object:
        return await embedder.embed([QUESTION])

    async def retrieved() -> object:
        return await retriever.retrieve(QUESTION, customer_id="c", day=DAY, history_texts=[QUESTION, QUESTION])

    floor = await milliseconds(product, times)
    return [
        row("question, offline vector", await milliseconds(embedded, times), None, "≤ 0.3 ms"),
        row("question, everything but the records", await milliseconds(retrieved, times), floor, "≤ 3 ms"),
    ]


async def index_row(times: int) -> Row:
    """Building the index of facts, with nothing remembered from before."""

    async def built() -> object:
        for cached in (lexical.load_lexicon, topics.load_topics, lexical.stem):
            cached.cache_clear()
        retriever = Retriever(load_knowledge())
        await retriever.warm()
        return retriever

    return row("index of facts, cold, in a thread", await milliseconds(built, times), None, "< 30 ms of work")


async def search_row(rows: int, dimensions: int, times: int) -> Row:
    """An exact search over many rows, in a thread where the index is large."""
    matrix = np.random.default_rng(7).normal(size=(rows, dimensions)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    index = VectorIndex("m", dimensions)
    index.append([str(number) for number in range(rows)], matrix)
    query = QueryVector("m", matrix[0])

    async def product() -> object:
        return matrix @ query.values

    async def searched() -> object:
        return await index.find(query, 10)

    floor = await milliseconds(product, times)
    return row(f"exact search, {rows:,} x {dimensions}", await milliseconds(searched, times), floor)


async def recall_row(count: int, times: int) -> Row:
    """Recalling a customer's memories from SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        url = database_url(Settings.load(data_dir=folder))
        async with Database(url) as database:
            embedder = HashedEmbedder()
            stream = MemoryStream(database, SystemClock(), embedder)
            texts = [f"{QUESTION} {number}" for number in range(count)]
            now = datetime.now(UTC)
            rows = [
                stream.observation_row(
                    customer_id="ann",
                    consultation_id="k",
                    turn_id=str(number),
                    text=text,
                    simulated=False,
                    at=now - timedelta(hours=number),
                )
                | embedding_columns(QueryVector(embedder.model, vector))
                for number, (text, vector) in enumerate(zip(texts, embedder.vectors(texts), strict=True))
            ]
            await database.transaction(lambda connection: connection.execute(sa.insert(memories), rows))
            query = QueryVector(embedder.model, embedder.vectors([QUESTION])[0])

            async def recalled() -> object:
                return await stream.recall("ann", query)

            with closing(sqlite3.connect(str(url.database))) as plain:

                async def read() -> object:
                    return plain.execute("SELECT * FROM memories WHERE customer_id = 'ann'").fetchall()

                floor = await milliseconds(read, times)
            return row(f"recall among {count} memories", await milliseconds(recalled, times), floor)


async def measure(*, quick: bool) -> list[Row]:
    times = 50 if quick else 300
    result = await question_rows(times)
    result.append(await index_row(5 if quick else 15))
    result += [await recall_row(20, times), await recall_row(300, times // 5)]
    sizes = [(1_000, 1_024)] if quick else [(1_000, 1_024), (100_000, 384)]
    for rows, dimensions in sizes:
        result.append(await search_row(rows, dimensions, times // 5))
    return result


def run(*, quick: bool = False) -> list[Row]:
    """Measure and return the rows."""
    return asyncio.run(measure(quick=quick))


def print_table(rows: list[Row]) -> None:
    print(f"{'':44}{'value':>10}{'floor':>10}{'ratio':>9}  target")
    for one in rows:
        floor = "" if one["floor"] is None else f"{one['floor']:.3f}"
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.1f} x"
        print(f"{one['name']:44}{one['value']:>7.3f} {one['unit']}{floor:>10}{ratio:>9}  {one['target']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller sizes")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    rows = run(quick=options.quick)
    if options.json:
        print(json.dumps(rows))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()

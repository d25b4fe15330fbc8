"""Where vectors are better compared, in PostgreSQL with pgvector or in the program.

    python -m benchmarks.vectors [--quick]

Memories are read from the records for every question; cases and rules are held in memory once they have been read. The
floor is the way of the program, with the same rows of the same server. Both ways compare exactly.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import numpy as np
import sqlalchemy as sa

from benchmarks.advisor_path import database_urls
from benchmarks.pages import tables
from benchmarks.rows import Row
from guidance_agent.core.bulk import insert_rows
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.memory import MemoryStream
from guidance_agent.core.schema import cases, memories
from guidance_agent.retrieval.experience import Experience
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.retrieval.vectors import FloatArray, QueryVector, embedding_columns
from guidance_agent.settings import Settings

__all__ = ["run"]

MODEL = "benchmark"
CLOCK = SystemClock()


class HoldingDatabase(Database):
    """A database whose vectors are compared in the program, whatever it could do itself."""

    compares_vectors = False


def random_vectors(count: int, dimensions: int) -> FloatArray:
    rows = np.random.default_rng(count).normal(size=(count, dimensions)).astype(np.float32)
    found: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


async def milliseconds(work: Callable[[], Awaitable[object]], times: int) -> float:
    taken = []
    for _ in range(times + 2):
        began = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken[2:])


def compared(name: str, server: float, program: float) -> Row:
    ratio = round(server / program, 2)
    return Row(name=name, unit="ms", value=round(server, 2), floor=round(program, 2), ratio=ratio, target="")


async def recall(server: Database, program: Database, count: int, dimensions: int, times: int) -> Row:
    customer = f"customer-{count}-{dimensions}"
    vectors = random_vectors(count, dimensions)
    rows = [
        {
            "id": f"{customer}-{place}",
            "customer_id": customer,
            "consultation_id": "earlier",
            "turn_id": f"{customer}-{place}",
            "kind": "observation",
            "text": "Can I take all of my pension to mend my roof? " * 3,
            "created_at": CLOCK.now() - timedelta(hours=place),
            "simulated": False,
            **embedding_columns(QueryVector(MODEL, vectors[place])),
        }
        for place in range(count)
    ]
    await server.transaction(lambda connection: connection.execute(sa.insert(memories), rows))
    query = QueryVector(MODEL, random_vectors(1, dimensions)[0])
    streams = [MemoryStream(database, CLOCK, HashedEmbedder()) for database in (server, program)]
    taken = [await milliseconds(functools.partial(stream.recall, customer, query), times) for stream in streams]
    return compared(f"recall among {count} memories × {dimensions:,}", taken[0], taken[1])


def _case_rows(vectors: FloatArray) -> Iterator[list[dict[str, object]]]:
    for start in range(0, len(vectors), 2_000):
        yield [
            {
                "id": f"case-{place}",
                "turn_id": f"turn-{place}",
                "topic": None,
                "text": "A customer of 56 asked whether all of a pension could be taken. " * 3,
                "created_at": CLOCK.now(),
                "simulated": False,
                **embedding_columns(QueryVector(MODEL, vectors[place])),
            }
            for place in range(start, min(start + 2_000, len(vectors)))
        ]


async def search(database: Database, count: int, dimensions: int, times: int) -> list[Row]:
    await database.transaction(lambda connection: connection.execute(sa.delete(cases)))
    for rows in _case_rows(random_vectors(count, dimensions)):
        await database.transaction(functools.partial(insert_rows, table=cases, rows=rows))
    await database.run(lambda connection: connection.exec_driver_sql("VACUUM ANALYZE cases"))
    query = QueryVector(MODEL, random_vectors(1, dimensions)[0])
    ways = [Experience(database, CLOCK, refresh_seconds=1e9, held_bytes=limit) for limit in (0, 10**12)]
    began = time.perf_counter()
    await ways[1].search(query, cases=2, rules=3)
    read = time.perf_counter() - began
    taken = [await milliseconds(functools.partial(way.search, query, cases=2, rules=3), times) for way in ways]
    name = f"{count:,} cases × {dimensions:,}"
    plain = Row(
        name=f"{name}: reading them all once", unit="s", value=round(read, 2), floor=None, ratio=None, target=""
    )
    return [compared(f"search among {name}", taken[0], taken[1]), plain]


async def _measure(url: str, folder: str, *, quick: bool) -> list[Row]:
    address = database_url(Settings.load(data_dir=folder, database_url=url))
    rows: list[Row] = []
    async with Database(address) as server, HoldingDatabase(address) as program:
        if not server.compares_vectors:
            raise RuntimeError("The server has no pgvector: there is nothing to compare.")
        for count, dimensions in itertools.product((10, 50, 300), (384, 1_024, 1_536)):
            rows += [await recall(server, program, count, dimensions, 10 if quick else 50)]
        for count, dimensions in ((100, 384), (1_000, 384), (10_000, 384), (10_000, 1_536), (40_000, 384)):
            rows += await search(server, count, dimensions, 5 if quick else 25)
        if not quick:
            rows += await search(server, 100_000, 384, 10)
    return rows


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    with database_urls(["postgresql"]) as urls, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(str(urls["postgresql"]), folder, quick=quick))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare vectors in the server and in the program.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    print(tables(run(quick=parser.parse_args().quick)))


if __name__ == "__main__":
    main()

"""What the journal costs by itself, on each database, beside the bare driver's commits of one row in the same run.

    python -m benchmarks.journal [--database sqlite|postgresql|both] [--quick]

No model and no caller: turns hand their text to the journal as fast as they can, or 200 of them at a provider's pace.
Both databases are on the disk of the machine and wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.advisor_path import DATABASES, database_urls
from benchmarks.model_door import row
from benchmarks.pages import tables
from benchmarks.rows import Row
from guidance_agent import Settings
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.journal import Journal, JournalWrite
from guidance_agent.core.schema import consultations, turns
from guidance_agent.errors import JournalError

__all__ = ["run"]

LABELS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
TEXT = "a few words of text "
STREAMS, CHUNKS, PAUSE = 200, 50, 0.02


class Turn:
    """A turn that writes pieces of text and notes how long each waited for its commit."""

    def __init__(self, journal: Journal, clock: SystemClock, name: str) -> None:
        self.turn_id = f"turn-{name}"
        self.consultation_id = f"cons-{name}"
        self.waits: list[float] = []
        self._journal = journal
        self._clock = clock
        self._pieces: list[float] = []
        self._taken: list[float] = []
        self._sequence = -1
        self._length = 0
        self._landed = asyncio.Event()

    def write(self) -> None:
        self._pieces.append(time.perf_counter())
        self._landed.clear()
        self._journal.notify(self)

    async def landed(self) -> None:
        while self._pieces or self._taken:
            await self._landed.wait()
            self._landed.clear()

    def take(self) -> JournalWrite:
        write = JournalWrite()
        if self._sequence < 0:
            write.opening += [(consultations, self._consultation()), (turns, self._turn())]
        self._taken, self._pieces = self._pieces, []
        self._sequence += 1
        text = TEXT * len(self._taken)
        write.events.append(self._event(text))
        self._length += len(text)
        return write

    def committed(self) -> None:
        now = time.perf_counter()
        self.waits += [now - begun for begun in self._taken]
        self._taken = []
        self._landed.set()

    def failed(self, error: JournalError) -> None:
        raise error

    def _event(self, text: str) -> dict[str, Any]:
        place = {"turn_id": self.turn_id, "sequence": self._sequence}
        span = {"start": self._length, "end": self._length + len(text)}
        payload = {"type": "text_delta", **place, **span}
        return {**place, "type": "text_delta", "text": text, "payload": payload, "created_at": self._clock.now()}

    def _consultation(self) -> dict[str, Any]:
        return {
            "id": self.consultation_id,
            "customer_id": self.turn_id,
            "advisor_id": "default",
            "opened_at": self._clock.now(),
            "profile": {"first_name": "Janet", "age": 56},
            "transcript_hash": "0" * 64,
            "turn_count": 1,
            "outcome": "open",
            "simulated": True,
        }

    def _turn(self) -> dict[str, Any]:
        return {
            "id": self.turn_id,
            "consultation_id": self.consultation_id,
            "ordinal": 1,
            "state": "streaming",
            "question": "Can I take all of my pension to mend my roof?",
            "model": "benchmark",
            "simulated": True,
            "owner": self._journal.owner,
            "lease_until": self._journal.lease_until(),
            "started_at": self._clock.now(),
            "last_sequence": -1,
            "context": {"facts": ["TX-01"] * 8},
        }


def _one_row_sqlite(folder: Path, times: int) -> float:
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE floor (value TEXT)"):
        connection.execute(statement)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        connection.execute("INSERT INTO floor VALUES (?)", (TEXT,))
        taken.append(time.perf_counter() - began)
    connection.close()
    return statistics.median(taken) * 1e3


def _one_row_postgres(url: str, times: int) -> float:
    taken = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE floor (value TEXT)")
        for _ in range(times):
            began = time.perf_counter()
            connection.execute("INSERT INTO floor VALUES (%s)", (TEXT,))
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


async def _one_commit(journal: Journal, clock: SystemClock, times: int) -> float:
    turn = Turn(journal, clock, "single")
    for _ in range(times):
        turn.write()
        await turn.landed()
    return statistics.median(turn.waits[1:]) * 1e3


async def _burst(journal: Journal, clock: SystemClock, pieces: int) -> tuple[float, int]:
    turn, before = Turn(journal, clock, "burst"), journal.commits
    began = time.process_time()
    for number in range(pieces):
        turn.write()
        if number % 20 == 0:
            await asyncio.sleep(0)
    await turn.landed()
    return (time.process_time() - began) / pieces * 1e6, journal.commits - before


async def _paced(journal: Journal, clock: SystemClock, round_: int) -> tuple[float, float, float, int]:
    """Return seconds beyond the pace, CPU per chunk in µs, the 99th percentile of the waits in ms, and commits."""
    written, before = [Turn(journal, clock, f"{round_}-{number}") for number in range(STREAMS)], journal.commits

    async def stream(turn: Turn) -> None:
        for _ in range(CHUNKS):
            turn.write()
            await asyncio.sleep(PAUSE)
        await turn.landed()

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(stream(turn) for turn in written))
    late, cpu = time.perf_counter() - began - CHUNKS * PAUSE, time.process_time() - cpu
    waits = [wait for turn in written for wait in turn.waits]
    p99 = statistics.quantiles(waits, n=100)[98] * 1e3
    return late, cpu / (STREAMS * CHUNKS) * 1e6, p99, journal.commits - before


def _plain(name: str, unit: str, value: float, target: str = "") -> Row:
    return Row(name=name, unit=unit, value=round(value, 2), floor=None, ratio=None, target=target)


async def _measure(database: str, url: str | None, folder: Path, *, quick: bool) -> list[Row]:
    label, clock = LABELS[database], SystemClock()
    times = 50 if quick else 200
    floor = _one_row_sqlite(folder, times) if url is None else _one_row_postgres(url, times)
    settings = Settings.load(data_dir=folder, database_url=url)
    async with Database(database_url(settings)) as records, Journal(records, clock, owner="benchmark") as journal:
        one = await _one_commit(journal, clock, times)
        cpu, commits = await _burst(journal, clock, 2_000)
        rounds = [await _paced(journal, clock, number) for number in range(1 if quick else 5)]
    late, paced_cpu, p99, paced_commits = (statistics.median(values) for values in zip(*rounds, strict=True))
    return [
        row(f"one piece of text on disk, {label}; floor: one row", "ms", (one, floor), ""),
        _plain(f"burst of 2,000 pieces, CPU each, {label}", "µs", cpu),
        _plain(f"burst of 2,000 pieces, {label}", "commits", commits),
        _plain(f"200 turns × 50 pieces, 20 ms apart, later than the pace, {label}", "s", late),
        _plain(f"200 turns × 50 pieces, CPU each, pacing included, {label}", "µs", paced_cpu),
        _plain(f"200 turns × 50 pieces, wait for the disk p99, {label}", "ms", p99),
        _plain(f"200 turns × 50 pieces, {label}", "commits", paced_commits),
    ]


def run(*, quick: bool = False, databases: Sequence[str] = DATABASES) -> list[Row]:
    """Measure everything and return the figures."""
    rows: list[Row] = []
    with database_urls(databases) as urls, tempfile.TemporaryDirectory() as folder:
        for database, url in urls.items():
            rows += asyncio.run(_measure(database, url, Path(folder), quick=quick))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the journal.")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    print(tables(run(quick=options.quick, databases=DATABASES if options.database == "both" else (options.database,))))


if __name__ == "__main__":
    main()

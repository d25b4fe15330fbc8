"""What the whole advisor path costs, journal included, beside raw aiohttp in the same run.

    python -m benchmarks.advisor_path [--database sqlite|postgresql|both] [--wire anthropic|openai] [--gate on|off]
        [--quick]

The provider is the simulator in a process of its own. The records are on SQLite (WAL, `synchronous=FULL`) and on a
PostgreSQL server of the benchmark's own whose commits wait for the disk, both on the disk of the machine; beside them
stands the floor that reads the same answers with aiohttp. The three take turns in every round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import aiohttp
import psutil

from benchmarks.model_door import KEY, WIRES, Bench, drain, row
from benchmarks.pages import tables
from benchmarks.rows import Row
from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from tests.postgres_server import PostgresServer

__all__ = ["AUTHORS", "DATABASES", "FAST", "PathBench", "database_urls", "run"]

DATABASES = ("sqlite", "postgresql")
LABELS = {"sqlite": "", "postgresql": ", PostgreSQL"}
FLOOR = "floor"

AUTHORS = {"anthropic": "anthropic/claude-sonnet-5-5", "openai": "openai/gpt-6-sol"}
FAST = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}


@contextlib.contextmanager
def database_urls(names: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """Have an empty database of each kind while the block runs; None is a file in the data folder."""
    with contextlib.ExitStack() as stack:
        urls: dict[str, str | None] = dict.fromkeys(names)
        if "postgresql" in names:
            server = stack.enter_context(PostgresServer(durable=True))
            urls["postgresql"] = stack.enter_context(server.database())
        yield urls


class PathBench:
    """Runtimes on each database, beside the raw session."""

    def __init__(
        self, base_url: str, folder: Path, raw: Bench, urls: dict[str, str | None] | None = None, *, gate: str = "on"
    ) -> None:
        self.gate = gate
        self.base_url = base_url
        self.folder = folder
        self.raw = raw
        self.urls = urls or {"sqlite": None}
        self.asked = 0

    def customer(self) -> CustomerProfile:
        self.asked += 1
        return CustomerProfile(
            customer_id=f"customer-{self.asked}",
            first_name="Janet",
            age=56,
            presenting_question="Can I take all of my pension to mend my roof?",
        )

    def runtime(self, wire: str, model: str | None = None, *, database: str = "sqlite") -> Runtime:
        settings = Settings.load(
            data_dir=self.folder,
            database_url=self.urls[database],
            background=False,
            model=model or AUTHORS[wire],
            reasoning_model=FAST[wire],
            providers={wire: {"base_url": self.base_url, "api_key": KEY}},
            gate={"mode": self.gate, "ask": False},
        )
        return Runtime(settings, environ={})

    @contextlib.asynccontextmanager
    async def advisors(self, wire: str, model: str) -> AsyncIterator[dict[str, tuple[Runtime, AdvisorAgent]]]:
        """Open an advisor on each database, and have each answer once."""
        async with contextlib.AsyncExitStack() as stack:
            opened = {}
            for database in self.urls:
                runtime = await stack.enter_async_context(self.runtime(wire, f"{wire}/{model}", database=database))
                advisor = await stack.enter_async_context(AdvisorAgent(runtime=runtime))
                await drain(self.texts(advisor))
                opened[database] = (runtime, advisor)
            yield opened

    async def texts(self, advisor: AdvisorAgent, *, reasoning: bool = False) -> AsyncIterator[str]:
        async for text in advisor.provide_guidance_stream(self.customer(), use_reasoning=reasoning):
            yield text


Samples = dict[str, list[float]]


def _rows(name: str, unit: str, samples: Samples, target: str) -> list[Row]:
    floor = statistics.median(samples[FLOOR])
    return [
        row(f"{name}{LABELS[database]}", unit, (statistics.median(values), floor), target)
        for database, values in samples.items()
        if database != FLOOR
    ]


async def _cpu_per_chunk(bench: PathBench, wire: str, rounds: int) -> list[Row]:
    chunks, model = 2_000, "script-2000x0"
    samples: Samples = defaultdict(list)
    async with bench.advisors(wire, model) as advisors:
        for _ in range(rounds):
            streams = {FLOOR: bench.raw.raw(wire, model)}
            streams |= {database: bench.texts(advisor) for database, (_, advisor) in advisors.items()}
            for name, pieces in streams.items():
                gc.collect()
                began = time.process_time()
                await drain(pieces)
                samples[name].append((time.process_time() - began) / chunks * 1e6)
    return _rows(f"whole path, CPU per chunk, burst, {wire}", "µs", samples, "≤ 4 × floor")


async def _first_text_added(bench: PathBench, wire: str, rounds: int) -> list[Row]:
    model = "script-5x0"
    samples: Samples = defaultdict(list)
    async with bench.advisors(wire, model) as advisors:
        for warm in range(rounds + 5):
            streams = {FLOOR: bench.raw.raw(wire, model)}
            streams |= {database: bench.texts(advisor) for database, (_, advisor) in advisors.items()}
            for name, pieces in streams.items():
                began = time.perf_counter()
                await anext(pieces)
                taken = (time.perf_counter() - began) * 1e3
                await drain(pieces)
                if warm >= 5:
                    samples[name].append(taken)
    return _rows(f"whole path, first text, {wire}", "ms", samples, "≤ floor + 12")


async def _many_streams(bench: PathBench, wire: str, rounds: int) -> list[Row]:
    model = "script-50x20"
    walls: Samples = defaultdict(list)
    lags: Samples = defaultdict(list)
    commits: Samples = defaultdict(list)
    async with bench.advisors(wire, model) as advisors:
        for _ in range(rounds):
            began = time.perf_counter()
            await asyncio.gather(*(drain(bench.raw.raw(wire, model)) for _ in range(200)))
            walls[FLOOR].append(time.perf_counter() - began)
            for database, (runtime, advisor) in advisors.items():
                before = runtime.journal.commits
                watch = asyncio.create_task(_loop_lag())
                began = time.perf_counter()
                await asyncio.gather(*(drain(bench.texts(advisor)) for _ in range(200)))
                walls[database].append(time.perf_counter() - began)
                commits[database].append(runtime.journal.commits - before)
                watch.cancel()
                lags[database].append(statistics.quantiles(await _result(watch), n=100)[98])
    rows = _rows(f"whole path, 200 streams × 50 chunks, {wire}", "s", walls, "≤ 1.4")
    for database, label in LABELS.items():
        if database in lags:
            lag, count = statistics.median(lags[database]), statistics.median(commits[database])
            rows.append(_plain(f"whole path, 200 streams, event-loop lag p99, {wire}{label}", "ms", lag, "≤ 100"))
            rows.append(_plain(f"whole path, 200 streams, commits, {wire}{label}", "", count, ""))
    return rows


def _plain(name: str, unit: str, value: float, target: str) -> Row:
    return Row(name=name, unit=unit, value=round(value, 1), floor=None, ratio=None, target=target)


_lag_samples: list[float] = []


async def _loop_lag() -> None:
    _lag_samples.clear()
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        _lag_samples.append((time.perf_counter() - began - 0.005) * 1e3)


async def _result(watch: asyncio.Task[None]) -> list[float]:
    await asyncio.wait({watch})
    return list(_lag_samples)


async def _growth(bench: PathBench, wire: str, database: str) -> Row:
    """Growth of the process while 10 MB pass through, beyond the text that is kept for the last event."""
    process = psutil.Process()
    size = 10_485_760
    async with (
        bench.runtime(wire, f"{wire}/script-500x0", database=database) as runtime,
        AdvisorAgent(runtime=runtime) as ordinary,
        AdvisorAgent(runtime=runtime, model=f"{wire}/script-bytes-{size}") as advisor,
    ):
        for _ in range(20):
            await drain(bench.texts(ordinary))
        before = peak = process.memory_info().rss
        seen = 0
        async for text in bench.texts(advisor):
            seen += len(text)
            peak = max(peak, process.memory_info().rss)
    if seen != size:
        raise RuntimeError(f"{seen} of {size} characters arrived")
    name = f"whole path, growth over a 10 MB answer beyond its text, {wire}{LABELS[database]}"
    return _plain(name, "MB", (peak - before - size) / 1e6, "< 5")


async def _measure(
    base_url: str, wires: Sequence[str], urls: dict[str, str | None], *, gate: str, quick: bool
) -> list[Row]:
    rounds = 3 if quick else 11
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            ModelGateway(Settings(), environ={}) as unused,
        ):
            bench = PathBench(base_url, Path(folder), Bench(base_url, session, unused), urls, gate=gate)
            for wire in wires:
                rows += await _cpu_per_chunk(bench, wire, rounds)
                rows += await _first_text_added(bench, wire, rounds * 4)
                rows += await _many_streams(bench, wire, 1 if quick else 3)
                rows += [await _growth(bench, wire, database) for database in urls]
    return rows


def run(
    *, quick: bool = False, wires: Sequence[str] = WIRES, databases: Sequence[str] = DATABASES, gate: str = "on"
) -> list[Row]:
    """Measure everything and return the figures."""
    with (
        ProviderSimulatorProcess(["--any-model", "--no-bodies", "--instant"]) as simulator,
        database_urls(databases) as urls,
    ):
        return asyncio.run(_measure(simulator.base_url, wires, urls, gate=gate, quick=quick))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the whole advisor path.")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--wire", choices=(*WIRES, "both"), default="both")
    parser.add_argument("--gate", choices=("on", "off"), default="on", help="whether answers pass the gate")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    wires = WIRES if options.wire == "both" else (options.wire,)
    databases = DATABASES if options.database == "both" else (options.database,)
    print(tables(run(quick=options.quick, wires=wires, databases=databases, gate=options.gate)))


if __name__ == "__main__":
    main()

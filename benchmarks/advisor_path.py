"""What the whole advisor path costs, journal included, beside raw aiohttp in the same run.

The provider is the simulator in a process of its own. The advisor runs with its default SQLite journal (WAL,
`synchronous=FULL`) on the disk of the machine; beside it stands the floor that reads the same answers with aiohttp.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil

from benchmarks.model_door import KEY, WIRES, Bench, drain, row
from benchmarks.rows import Row
from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import ProviderSimulatorProcess

__all__ = ["run"]

AUTHORS = {"anthropic": "anthropic/claude-sonnet-5-5", "openai": "openai/gpt-6-sol"}
FAST = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}


class PathBench:
    """One runtime per script, all on one data folder, beside the raw session."""

    def __init__(self, base_url: str, folder: Path, raw: Bench) -> None:
        self.base_url = base_url
        self.folder = folder
        self.raw = raw
        self.asked = 0

    def customer(self) -> CustomerProfile:
        self.asked += 1
        return CustomerProfile(
            customer_id=f"customer-{self.asked}",
            first_name="Janet",
            age=56,
            presenting_question="Can I take all of my pension to mend my roof?",
        )

    def runtime(self, wire: str, model: str | None = None, reasoning: str | None = None) -> Runtime:
        provider = {"base_url": self.base_url, "api_key": KEY}
        settings = Settings.load(
            data_dir=self.folder,
            background=False,
            model=model or AUTHORS[wire],
            reasoning_model=reasoning or FAST[wire],
            providers={wire: provider},
        )
        return Runtime(settings, environ={})

    async def texts(self, advisor: AdvisorAgent, *, reasoning: bool = False) -> AsyncIterator[str]:
        async for text in advisor.provide_guidance_stream(self.customer(), use_reasoning=reasoning):
            yield text


async def _cpu_per_chunk(bench: PathBench, wire: str, rounds: int) -> tuple[float, float]:
    chunks, model = 2_000, "script-2000x0"
    path: list[float] = []
    floor: list[float] = []
    async with bench.runtime(wire, f"{wire}/{model}") as runtime, AdvisorAgent(runtime=runtime) as advisor:
        await drain(bench.texts(advisor))
        for _ in range(rounds):
            for results, pieces in ((floor, bench.raw.raw(wire, model)), (path, bench.texts(advisor))):
                gc.collect()
                began = time.process_time()
                await drain(pieces)
                results.append((time.process_time() - began) / chunks * 1e6)
    return statistics.median(path), statistics.median(floor)


async def _first_text_added(bench: PathBench, wire: str, rounds: int) -> tuple[float, float]:
    model = "script-5x0"
    path: list[float] = []
    floor: list[float] = []
    async with bench.runtime(wire, f"{wire}/{model}") as runtime, AdvisorAgent(runtime=runtime) as advisor:
        for warm in range(rounds + 5):
            for results, pieces in ((floor, bench.raw.raw(wire, model)), (path, bench.texts(advisor))):
                began = time.perf_counter()
                await anext(pieces)
                taken = (time.perf_counter() - began) * 1e3
                await drain(pieces)
                if warm >= 5:
                    results.append(taken)
    return statistics.median(path), statistics.median(floor)


async def _many_streams(bench: PathBench, wire: str, rounds: int) -> list[Row]:
    model = "script-50x20"
    walls: list[float] = []
    floors: list[float] = []
    lags: list[float] = []
    async with bench.runtime(wire, f"{wire}/{model}") as runtime, AdvisorAgent(runtime=runtime) as advisor:
        await drain(bench.texts(advisor))
        for _ in range(rounds):
            began = time.perf_counter()
            await asyncio.gather(*(drain(bench.raw.raw(wire, model)) for _ in range(200)))
            floors.append(time.perf_counter() - began)
            watch = asyncio.create_task(_loop_lag())
            began = time.perf_counter()
            await asyncio.gather(*(drain(bench.texts(advisor)) for _ in range(200)))
            walls.append(time.perf_counter() - began)
            watch.cancel()
            lags.append(statistics.quantiles(await _result(watch), n=100)[98])
    figures = (statistics.median(walls), statistics.median(floors))
    return [
        row(f"whole path, 200 streams × 50 chunks, {wire}", "s", figures, "≤ 1.4"),
        Row(
            name=f"whole path, 200 streams, event-loop lag p99, {wire}",
            unit="ms",
            value=round(statistics.median(lags), 1),
            floor=None,
            ratio=None,
            target="≤ 100",
        ),
    ]


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


async def _growth(bench: PathBench, wire: str) -> Row:
    """Growth of the process while 10 MB pass through, beyond the text that is kept for the last event."""
    process = psutil.Process()
    size = 10_485_760
    async with (
        bench.runtime(wire, f"{wire}/script-500x0") as runtime,
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
    return Row(
        name=f"whole path, growth over a 10 MB answer beyond its text, {wire}",
        unit="MB",
        value=round((peak - before - size) / 1e6, 1),
        floor=None,
        ratio=None,
        target="< 5",
    )


async def _measure(base_url: str, *, quick: bool) -> list[Row]:
    rounds = 3 if quick else 11
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            ModelGateway(Settings(), environ={}) as unused,
        ):
            bench = PathBench(base_url, Path(folder), Bench(base_url, session, unused))
            for wire in WIRES:
                cpu = await _cpu_per_chunk(bench, wire, rounds)
                rows.append(row(f"whole path, CPU per chunk, burst, {wire}", "µs", cpu, "≤ 4 × floor"))
                first = await _first_text_added(bench, wire, rounds * 4)
                rows.append(row(f"whole path, first text, {wire}", "ms", first, "≤ floor + 12"))
                rows.extend(await _many_streams(bench, wire, 1 if quick else 3))
                rows.append(await _growth(bench, wire))
    return rows


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    with ProviderSimulatorProcess(["--any-model", "--no-bodies", "--instant"]) as simulator:
        return asyncio.run(_measure(simulator.base_url, quick=quick))

"""What the stream tools and the response cache cost: `python -m benchmarks.stream_tools [--quick]`.

The floor of a tool is the same stream read with `async for` alone; that of a kept answer is the provider's own, from a
simulator that answers at once in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import psutil

from benchmarks.rows import Row
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.response_cache import ResponseCacheTable
from guidance_agent.llm import (
    Message,
    ModelGateway,
    ModelRequest,
    Progress,
    collect,
    iterate_sync,
    rechunk,
    to_file,
    with_callbacks,
)
from guidance_agent.llm.response_cache import ResponseCache
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.settings import Settings

__all__ = ["run"]

CHUNKS = 20_000
PIECE = " eleven chars"
TEN_MEGABYTES = 10_485_760


async def chunks(count: int = CHUNKS, piece: str = PIECE) -> AsyncIterator[str]:
    """A stream without a provider: what it costs beyond this is the tool's."""
    for _ in range(count):
        yield piece


async def read(stream: AsyncIterator[str]) -> None:
    async for _ in stream:
        pass


def ignore(_: Progress) -> None:
    """Stand for a progress bar."""


def tools(folder: Path) -> Mapping[str, Callable[[AsyncIterator[str]], Awaitable[object]]]:
    return {
        "collect": collect,
        "with_callbacks, progress at each chunk": lambda stream: read(
            with_callbacks(stream, on_progress=ignore, interval=0)
        ),
        "rechunk by 3 words": lambda stream: read(rechunk(stream, words=3, max_delay=None)),
        "rechunk by 3 words, max_delay 0.5 s": lambda stream: read(rechunk(stream, words=3)),
        "to_file": lambda stream: to_file(stream, folder / "answer.txt"),
    }


async def cpu_per_chunk(work: Callable[[AsyncIterator[str]], Awaitable[object]], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        await work(chunks())
        taken.append((time.process_time() - began) / CHUNKS * 1e6)
    return statistics.median(taken)


def sync_per_chunk(rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in iterate_sync(chunks(CHUNKS // 10)):
            pass
        taken.append((time.process_time() - began) / (CHUNKS // 10) * 1e6)
    return statistics.median(taken)


async def growth(work: Callable[[AsyncIterator[str]], Awaitable[object]]) -> float:
    """Megabytes that this process grows while 10 MB pass through in chunks of 1 kB."""
    process = psutil.Process()
    peak = before = process.memory_info().rss

    async def watched() -> AsyncIterator[str]:
        nonlocal peak
        for number in range(TEN_MEGABYTES // 1_024):
            if number % 256 == 0:
                peak = max(peak, process.memory_info().rss)
            yield f"{number:>1023} "

    await work(watched())
    return (max(peak, process.memory_info().rss) - before) / 1e6


async def first_text(gateway: ModelGateway, request: ModelRequest) -> float:
    began = time.perf_counter()
    async with gateway.stream(request) as stream:
        async for delta in stream:
            if delta.text:
                break
        taken = time.perf_counter() - began
        async for _ in stream:
            pass
    return taken * 1e3


async def kept_answer(base_url: str, folder: Path, rounds: int) -> Mapping[str, float]:
    """Milliseconds to the first text: asked of the provider without a cache, missed in the cache, found in it."""
    environ = {"ANTHROPIC_API_KEY": "sk-benchmark-123456", "ANTHROPIC_BASE_URL": base_url}
    settings = Settings.load(data_dir=folder)
    prompt = Message("system", "You explain pensions. " * 1_000, "conduct")
    taken: dict[str, list[float]] = {"off": [], "missed": [], "found": []}
    async with Database(database_url(settings)) as database:
        store = ResponseCacheTable(database, SystemClock(), ttl=3_600.0, max_entries=10_000)
        cache = ResponseCache(store, operations=("completion",), release="benchmark", simulated=True)
        async with (
            ModelGateway(settings, environ=environ) as without,
            ModelGateway(settings, environ=environ, responses=cache) as with_cache,
        ):
            for number in range(rounds + 1):
                request = ModelRequest(
                    model="anthropic/script-5x0", messages=(prompt, Message("user", f"Question {number}"))
                )
                for name, gateway in (("off", without), ("missed", with_cache), ("found", with_cache)):
                    taken[name].append(await first_text(gateway, request))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def row(name: str, unit: str, value: float, floor: float | None = None, target: str = "") -> Row:
    ratio = round(value / floor, 2) if floor else None
    rounded = None if floor is None else round(floor, 2)
    return Row(name=name, unit=unit, value=round(value, 2), floor=rounded, ratio=ratio, target=target)


async def _measure(folder: Path, *, quick: bool) -> list[Row]:
    rounds = 3 if quick else 9
    floor = await cpu_per_chunk(read, rounds)
    rows = [
        row(f"CPU per chunk, {name}", "µs", await cpu_per_chunk(work, rounds), floor)
        for name, work in tools(folder).items()
    ]
    for name, work in tools(folder).items():
        grown = await growth(work)
        kept = TEN_MEGABYTES / 1e6 if name == "collect" else 0.0
        rows.append(row(f"growth over 10 MB beyond what is kept, {name}", "MB", grown - kept, target="< 5"))
    with ProviderSimulatorProcess(["--any-model", "--instant", "--no-bodies"]) as simulator:
        found = await kept_answer(simulator.base_url, folder, 20 * rounds)
    rows.append(row("first text, missed in the response cache", "ms", found["missed"], found["off"]))
    rows.append(row("first text, found in the response cache", "ms", found["found"], found["off"]))
    return rows


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_measure(Path(folder), quick=quick))
    return [*rows, row("CPU per item, iterate_sync", "µs", sync_per_chunk(3 if quick else 9))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the stream tools and the response cache cost.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    for item in run(quick=parser.parse_args().quick):
        floor = "" if item["floor"] is None else f"  floor {item['floor']:g}"
        print(f"{item['name']:64} {item['value']:>9g} {item['unit']}{floor}")


if __name__ == "__main__":
    main()

"""What the model door costs, beside raw aiohttp in the same run: `python benchmarks/model_door.py [--quick]`.

The provider is the simulator in a process of its own. The floor of every figure reads the same answers with
`async for line in response.content` and `json.loads`, without understanding or checking anything.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import aiohttp
import psutil

from benchmarks.rows import Row
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.settings import Settings

__all__ = ["KEY", "WIRES", "Bench", "drain", "print_table", "row", "run"]

WIRES = ("anthropic", "openai")
KEY = "sk-benchmark-123456"
HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "authorization": f"Bearer {KEY}"}
PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


class Bench:
    """One simulator, one raw session and one gateway, all warm."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession, gateway: ModelGateway) -> None:
        self.base_url = base_url
        self.session = session
        self.gateway = gateway

    async def raw(self, wire: str, model: str) -> AsyncIterator[str]:
        """Yield the text pieces of an answer with nothing but aiohttp and json."""
        body = {
            "model": model,
            "max_tokens": 128_000,
            "stream": True,
            "messages": [{"role": "user", "content": "What is drawdown?"}],
        }
        async with self.session.post(self.base_url + PATHS[wire], json=body, headers=HEADERS) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if wire == "anthropic":
                    if event["type"] == "content_block_delta":
                        yield event["delta"]["text"]
                elif event["choices"] and event["choices"][0]["delta"].get("content"):
                    yield event["choices"][0]["delta"]["content"]

    async def door(self, wire: str, model: str) -> AsyncIterator[str]:
        """Yield the text of the same answer through the gateway, in the batches in which it arrives."""
        request = ModelRequest(
            model=f"{wire}/{model}", messages=(Message("user", "What is drawdown?"),), max_tokens=128_000
        )
        async with self.gateway.stream(request) as stream:
            while (deltas := await stream.read()) is not None:
                for delta in deltas:
                    if delta.text:
                        yield delta.text


Reader = Callable[[str, str], AsyncIterator[str]]


async def drain(pieces: AsyncIterator[str]) -> int:
    length = 0
    async for piece in pieces:
        length += len(piece)
    return length


async def measured(sample: Callable[[Reader], Awaitable[float]], bench: Bench, rounds: int) -> tuple[float, float]:
    """Return the medians of door and floor, taken in turns so that both meet the same noise."""
    door: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        for reader, results in ((bench.raw, floor), (bench.door, door)):
            gc.collect()
            results.append(await sample(reader))
    return statistics.median(door), statistics.median(floor)


async def cpu_per_chunk(bench: Bench, wire: str, model: str, chunks: int, rounds: int) -> tuple[float, float]:
    """CPU microseconds of this process per streamed chunk."""

    async def sample(reader: Reader) -> float:
        began = time.process_time()
        length = await drain(reader(wire, model))
        used = time.process_time() - began
        if not length:
            raise RuntimeError(f"the simulator streamed no text for model {model!r}")
        return used / chunks * 1e6

    return await measured(sample, bench, rounds)


async def first_text(bench: Bench, wire: str, rounds: int) -> tuple[float, float]:
    """Milliseconds from the call to its first text, of a provider that answers at once."""

    async def sample(reader: Reader) -> float:
        began = time.perf_counter()
        pieces = reader(wire, "script-5x0")
        await anext(pieces)
        taken = time.perf_counter() - began
        await drain(pieces)
        return taken * 1e3

    return await measured(sample, bench, rounds)


async def many_streams(bench: Bench, wire: str, rounds: int) -> tuple[float, float]:
    """Seconds for 200 streams at a time of 50 chunks 20 ms apart; ideal is 1.00."""

    async def sample(reader: Reader) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(drain(reader(wire, "script-50x20")) for _ in range(200)))
        return time.perf_counter() - began

    return await measured(sample, bench, rounds)


async def growth(bench: Bench, wire: str) -> tuple[float, float]:
    """Megabytes that this process grows while an answer of 10 MB passes through."""
    process = psutil.Process()

    async def sample(reader: Reader) -> float:
        before = peak = process.memory_info().rss
        seen = 0
        async for piece in reader(wire, "script-bytes-10485760"):
            seen += len(piece)
            if seen > 262_144:
                seen = 0
                peak = max(peak, process.memory_info().rss)
        return (peak - before) / 1e6

    return await measured(sample, bench, 1)


def row(name: str, unit: str, figures: tuple[float, float], target: str) -> Row:
    value, floor = figures
    ratio = round(value / floor, 2) if floor > 0 else None
    return Row(name=name, unit=unit, value=round(value, 2), floor=round(floor, 2), ratio=ratio, target=target)


async def _measure(base_url: str, *, quick: bool) -> list[Row]:
    environ = {
        "ANTHROPIC_API_KEY": KEY,
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": base_url,
        "OPENAI_BASE_URL": f"{base_url}/v1",
    }
    rounds = 3 if quick else 15
    rows: list[Row] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        ModelGateway(Settings(), environ=environ) as gateway,
    ):
        bench = Bench(base_url, session, gateway)
        for wire in WIRES:
            for reader in (bench.raw, bench.door):
                await drain(reader(wire, "script-500x0"))
        for wire in WIRES:
            burst = await cpu_per_chunk(bench, wire, "script-2000x0", 2_000, rounds)
            rows.append(row(f"CPU per chunk, burst, {wire}", "µs", burst, "≤ 1.6 × floor"))
            paced = await cpu_per_chunk(bench, wire, "script-300x2", 300, max(2, rounds // 3))
            rows.append(row(f"CPU per chunk, 2 ms apart, {wire}", "µs", paced, ""))
            first = await first_text(bench, wire, rounds * 10)
            rows.append(row(f"first text, {wire}", "ms", first, "≤ floor + 1.5"))
            many = await many_streams(bench, wire, 1 if quick else 3)
            rows.append(row(f"200 streams × 50 chunks, {wire}", "s", many, "≤ 1.15"))
            rows.append(row(f"growth over a 10 MB answer, {wire}", "MB", await growth(bench, wire), "< 5"))
    return rows


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    with ProviderSimulatorProcess(["--any-model", "--no-bodies"]) as simulator:
        return asyncio.run(_measure(simulator.base_url, quick=quick))


def print_table(rows: Sequence[Row]) -> None:
    print(f"{'what':44} {'door':>9} {'aiohttp':>9} {'ratio':>6}  {'unit':4} target")
    for item in rows:
        floor = "" if item["floor"] is None else f"{item['floor']:.2f}"
        ratio = "" if item["ratio"] is None else f"{item['ratio']:.2f}"
        print(f"{item['name']:44} {item['value']:9.2f} {floor:>9} {ratio:>6}  {item['unit']:4} {item['target']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the model door costs beside raw aiohttp.")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    print_table(run(quick=parser.parse_args().quick))

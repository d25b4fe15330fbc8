"""How late a follower is: the same event of a live turn as its caller gets it, and as `advisor.events` yields it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp

from benchmarks.advisor_path import PathBench
from benchmarks.model_door import WIRES, Bench, drain
from benchmarks.rows import Row
from guidance_agent import AdvisorAgent
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.settings import Settings

__all__ = ["run"]

TURNS = 200


def _row(name: str, unit: str, value: float, floor: float | None = None, target: str = "") -> Row:
    ratio = round(value / floor, 2) if floor else None
    shown = None if floor is None else round(floor, 2)
    return Row(name=name, unit=unit, value=round(value, 2), floor=shown, ratio=ratio, target=target)


async def _lateness(bench: PathBench, wire: str, *, same_process: bool) -> list[float]:
    """Milliseconds from the moment at which the caller has an event to that at which a follower has it."""
    async with (
        bench.runtime(wire, f"{wire}/script-50x20") as runtime,
        bench.runtime(wire) as other,
        AdvisorAgent(runtime=runtime) as advisor,
        AdvisorAgent(runtime=runtime if same_process else other) as reader,
    ):
        seen: dict[int, float] = {}
        followed: dict[int, float] = {}

        async def follow(turn_id: str) -> None:
            async for event in reader.events(turn_id):
                followed[event.sequence] = time.perf_counter()

        async with asyncio.TaskGroup() as group, advisor.consult(bench.customer(), use_reasoning=False) as turn:
            async for event in turn:
                if event.public:
                    seen[event.sequence] = time.perf_counter()
                if len(seen) == 1 and event.public:
                    group.create_task(follow(event.turn_id))
    return [(followed[number] - seen[number]) * 1e3 for number in sorted(seen)[2:-1]]


async def _many(bench: PathBench, wire: str) -> tuple[float, float]:
    """Seconds for 200 turns at a time, each followed from the journal, and for 200 that are consumed directly."""
    async with bench.runtime(wire, f"{wire}/script-50x20") as runtime, AdvisorAgent(runtime=runtime) as advisor:

        async def followed() -> None:
            turn_id = await advisor.start_turn(bench.customer(), use_reasoning=False)
            async for _ in advisor.events(turn_id):
                pass

        await followed()
        began = time.perf_counter()
        await asyncio.gather(*(drain(bench.texts(advisor)) for _ in range(TURNS)))
        direct = time.perf_counter() - began
        began = time.perf_counter()
        await asyncio.gather(*(followed() for _ in range(TURNS)))
        return time.perf_counter() - began, direct


async def _measure(base_url: str, folder: Path, *, quick: bool) -> list[Row]:
    rows: list[Row] = []
    async with ModelGateway(Settings()) as gateway, aiohttp.ClientSession() as session:
        bench = PathBench(base_url, folder, Bench(base_url, session, gateway))
        for wire in WIRES[:1] if quick else WIRES:
            own = await _lateness(bench, wire, same_process=True)
            others = await _lateness(bench, wire, same_process=False)
            wall, direct = await _many(bench, wire)
            rows += [
                _row(f"a follower's event after the caller's, same process, p50, {wire}", "ms", _p(own, 50)),
                _row(f"… p99, {wire}", "ms", _p(own, 99)),
                _row(f"… other runtime that polls, p50, {wire}", "ms", _p(others, 50), target="≤ 100"),
                _row(f"… p99, {wire}", "ms", _p(others, 99)),
                _row(f"{TURNS} turns followed from the journal, beside consumed, {wire}", "s", wall, direct),
            ]
    return rows


def _p(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    with ProviderSimulatorProcess(["--any-model", "--no-bodies"]) as simulator, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(simulator.base_url, Path(folder), quick=quick))

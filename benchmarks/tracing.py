"""What tracing costs a turn, and what arrives of it.

    python -m benchmarks.tracing [--quick]

Turns run on SQLite before the simulator in a process of its own; collectors are processes of their own too. Turns with
tracing and without take turns, so that what the machine does otherwise meets both. Redaction is on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from benchmarks.advisor_path import FAST
from benchmarks.model_door import KEY
from benchmarks.pages import tables
from benchmarks.rows import Row
from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.advisor import planning
from guidance_agent.advisor.turn_trace import GateTrace, TurnTrace
from guidance_agent.llm.call_trace import CallTrace
from guidance_agent.phoenix.environment import Environment
from guidance_agent.phoenix.launch import PhoenixServer
from guidance_agent.phoenix.ports import choose_ports
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.retrieval import retriever
from guidance_agent.tracing import Span, Tracing
from guidance_agent.tracing.export import Exported, ExportThread
from guidance_agent.tracing.tracer import Current
from tests.collector import Collector, black_hole, free_port
from tests.phoenix_server import CACHE

__all__ = ["run"]

WIRE = "anthropic"
MODEL = f"{WIRE}/script-40x0"
SPANS_OF_A_TURN = 4
"""The turn, its search, its notes and its answer."""

AT_ONCE = 32
KINDS = ("up", "down", "refusing", "black-holed", "slow")


def _serve(pipe: Connection, delay: float, status: int) -> None:
    with Collector(keeps=False) as collector:
        collector.delay, collector.status = delay, status
        pipe.send(collector.url)
        while pipe.recv() == "count":
            pipe.send(collector.count)


@contextlib.contextmanager
def _collector(delay: float = 0.0, status: int = 200) -> Iterator[tuple[str, Connection]]:
    """A collector in a process of its own; the pipe tells how many spans it has counted."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, delay, status), daemon=True)
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send("end")
        process.join(5)


def _counted(pipe: Connection) -> int:
    pipe.send("count")
    return int(pipe.recv())


@contextlib.contextmanager
def _address(kind: str) -> Iterator[str]:
    match kind:
        case "up":
            with _collector() as (url, _):
                yield url
        case "slow":
            with _collector(delay=1.5) as (url, _):
                yield url
        case "refusing":
            with _collector(status=401) as (url, _):
                yield url
        case "black-holed":
            with black_hole() as url:
                yield url
        case _:
            yield f"http://127.0.0.1:{free_port()}"


class Turns:
    """Turns of an advisor, one customer each."""

    def __init__(self, advisor: AdvisorAgent, tracing: Tracing) -> None:
        self.advisor = advisor
        self.tracing = tracing
        self._numbers = itertools.count()

    async def one(self) -> float:
        """Have a turn, and return how long it took, in seconds."""
        customer = CustomerProfile(
            customer_id=f"customer-{next(self._numbers)}",
            first_name="Janet",
            age=56,
            presenting_question="Can I take all of my pension to mend my roof? My wife Susan is not so sure.",
        )
        began = time.perf_counter()
        async for _ in self.advisor.provide_guidance_stream(customer):
            pass
        return time.perf_counter() - began

    @property
    def counts(self) -> Exported:
        outlet = self.tracing.outlet
        assert isinstance(outlet, ExportThread)
        return outlet.counts


@contextlib.asynccontextmanager
async def _turns(base_url: str, folder: Path, endpoint: str | None) -> AsyncIterator[Turns]:
    settings = Settings.load(
        data_dir=folder,
        background=False,
        model=MODEL,
        reasoning_model=FAST[WIRE],
        providers={WIRE: {"base_url": base_url, "api_key": KEY}},
        gate={"ask": False, "closing": False},
        tracing="off" if endpoint is None else "on",
        trace={"endpoint": endpoint},
    )
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        turns = Turns(advisor, runtime.tracing)
        for _ in range(5):
            await turns.one()
        yield turns


class Clocked:
    """While it is entered, the time spent in tracing on the event loop adds up in `seconds`.

    Only the outermost call counts. What the clock itself takes counts as tracing's.
    """

    _PARTS: Sequence[tuple[object, Sequence[str]]] = (
        (Tracing, ("span", "continued")),
        (Current, ("__enter__", "__exit__")),
        (Span, ("set", "share", "event", "fail", "end")),
        (CallTrace, ("__init__", "attempt", "attempt_failed", "released", "called_tools", "texts", "finish")),
        (TurnTrace, ("__init__", "planned", "caller_left", "ended")),
        (GateTrace, ("acted",)),
        (planning, ("share_turn",)),
        (retriever, ("attributes_of",)),
    )

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Clocked:
        for owner, methods in self._PARTS:
            for name in methods:
                self._stack.enter_context(mock.patch.object(owner, name, self._clocked(getattr(owner, name))))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _clocked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any, **options: Any) -> Any:
            if self._depth:
                return function(*args, **options)
            self._depth += 1
            began = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.perf_counter() - began
                self._depth -= 1

        return clocked


async def _callers_cost(base_url: str, folder: Path, turns: int) -> list[Row]:
    with _address("up") as endpoint:
        async with _turns(base_url, folder, endpoint) as traced:
            costs: list[float] = []
            with Clocked() as clock:
                for _ in range(turns):
                    clock.seconds = 0.0
                    await traced.one()
                    costs.append(clock.seconds * 1e3)
    return [
        _row("caller's cost of all spans of a turn, median", "ms", statistics.median(costs), "≤ 1"),
        _row("caller's cost of all spans of a turn, p95", "ms", statistics.quantiles(costs, n=20)[18]),
    ]


async def _pairs(base_url: str, folder: Path, kind: str, pairs: int) -> list[Row]:
    """Turns with tracing and without, one after the other, in both orders."""
    on: list[float] = []
    off: list[float] = []
    with _address(kind) as endpoint:
        async with _turns(base_url, folder / "off", None) as plain, _turns(base_url, folder / "on", endpoint) as traced:
            gc.collect()
            for number in range(pairs):
                for turns, taken in ((plain, off), (traced, on))[:: 1 if number % 2 else -1]:
                    taken.append(await turns.one() * 1e3)
    low, high = _throughput_interval(on, off)
    return [
        _row(
            f"collector {kind}: median turn with tracing minus without, {pairs} pairs",
            "ms",
            statistics.median(with_ - without for with_, without in zip(on, off, strict=True)),
            "≤ 1",
        ),
        _row(f"collector {kind}: throughput with tracing, 95 % interval from", "of without", low),
        _row(f"collector {kind}: … to", "of without", high, "≥ 0.97"),
    ]


def _throughput_interval(on: Sequence[float], off: Sequence[float]) -> tuple[float, float]:
    """Return the bounds of the ratio of throughputs, by drawing pairs again and again."""
    draw = random.Random(7)
    pairs = list(zip(on, off, strict=True))
    ratios = []
    for _ in range(2_000):
        drawn = draw.choices(pairs, k=len(pairs))
        ratios.append(sum(without for _, without in drawn) / sum(with_ for with_, _ in drawn))
    ratios.sort()
    return ratios[50], ratios[-51]


async def _full_speed(base_url: str, folder: Path, turns: int) -> list[Row]:
    """Many turns at once, as fast as they go; what the collector counted against what ended."""
    with _collector() as (endpoint, pipe):
        async with _turns(base_url, folder, endpoint) as traced:
            await asyncio.to_thread(traced.tracing.flush, 60.0)
            before = traced.counts
            began = time.perf_counter()
            left = iter(range(turns))

            async def work() -> None:
                for _ in left:
                    await traced.one()

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            took = time.perf_counter() - began
            await asyncio.to_thread(traced.tracing.flush, 120.0)
            after = traced.counts
        counted = _counted(pipe)
    expected = turns * SPANS_OF_A_TURN
    delivered, dropped = after.delivered - before.delivered, after.dropped - before.dropped
    unaccounted = expected - delivered - dropped - after.refused - after.lost
    told = _row(f"{turns:,} turns, {AT_ONCE} at once: spans that nobody accounts for", "spans", unaccounted, "0")
    told["broken"] = unaccounted != 0 or counted != after.delivered
    return [
        _row(f"{turns:,} turns, {AT_ONCE} at once", "turns/s", turns / took),
        _row(f"{turns:,} turns, {AT_ONCE} at once: spans that arrived", "spans", delivered, f"{expected:,}"),
        _row(f"{turns:,} turns, {AT_ONCE} at once: spans dropped and counted", "spans", dropped, "0"),
        told,
    ]


def _phoenix(base_url: str, folder: Path, turns: int) -> list[Row]:
    """Many turns at once before a real Phoenix, on the same machine; nothing where the tests have not installed it."""
    environment = Environment.of(CACHE)
    if not environment.state().ready:
        return []
    with PhoenixServer(folder / "server", choose_ports(0, 0), environment=environment) as server:

        async def work() -> tuple[Exported, float]:
            async with _turns(base_url, folder / "data", server.local.endpoint) as traced:
                began = time.perf_counter()
                left = iter(range(turns))

                async def some() -> None:
                    for _ in left:
                        await traced.one()

                await asyncio.gather(*(some() for _ in range(AT_ONCE)))
                took = time.perf_counter() - began
                await asyncio.to_thread(traced.tracing.flush, 300.0)
                return traced.counts, took

        counts, took = asyncio.run(work())
        stored = _stored(folder / "server", counts.delivered)
    told = _row(
        f"a real Phoenix: spans of {turns:,} turns that it has stored", "spans", stored, f"{counts.delivered:,}"
    )
    told["broken"] = stored != counts.delivered
    return [
        _row(f"a real Phoenix: {turns:,} turns, {AT_ONCE} at once", "turns/s", turns / took),
        told,
        _row("a real Phoenix: spans dropped and counted", "spans", counts.dropped),
    ]


def _stored(folder: Path, expected: int) -> int:
    """Return how many spans the server has stored, when it is done with what it took."""
    (path,) = folder.rglob("phoenix.db")
    until = time.monotonic() + 120.0
    while True:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            stored = int(database.execute("SELECT count(*) FROM spans").fetchone()[0])
        if stored >= expected or time.monotonic() > until:
            return stored
        time.sleep(0.5)


async def _full_queue(base_url: str, folder: Path, turns: int) -> list[Row]:
    with _address("black-holed") as endpoint:
        async with _turns(base_url, folder, endpoint) as traced:
            gc.collect()
            before = psutil.Process().memory_info().rss
            for _ in range(turns):
                await traced.one()
            gc.collect()
            grown = (psutil.Process().memory_info().rss - before) / 1e6
            waiting = traced.counts.waiting
    return [
        _row(f"collector black-holed: spans that wait after {turns:,} turns", "spans", waiting, "≤ 8,448"),
        _row(f"collector black-holed: memory grown by {turns:,} turns", "MB", grown),
    ]


def _exit_seconds(kind: str | None, rounds: int) -> float:
    """Return how long a process takes to end after its answer."""
    child = Path(__file__).parents[1] / "tests" / "integration" / "tracing" / "exit_child.py"
    taken = []
    with contextlib.ExitStack() as stack:
        environ = dict(os.environ)
        if kind is not None:
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(_address(kind))
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, str(child), folder, "closes"]
                out = subprocess.run(command, capture_output=True, text=True, env=environ, check=True).stdout
                taken.append(time.time() - float(out.split()[-1]))
    return statistics.median(taken)


def _row(name: str, unit: str, value: float, target: str = "") -> Row:
    return Row(name=name, unit=unit, value=round(value, 3), floor=None, ratio=None, target=target)


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, ProviderSimulatorProcess() as simulator:
        folder, url = Path(name), simulator.base_url
        rows += asyncio.run(_callers_cost(url, folder / "cost", 50 if quick else 300))
        for kind in KINDS:
            rows += asyncio.run(_pairs(url, folder / kind, kind, 40 if quick else 200))
        rows += asyncio.run(_full_speed(url, folder / "speed", 500 if quick else 10_000))
        rows += _phoenix(url, folder / "phoenix", 200 if quick else 1_000)
        rows += asyncio.run(_full_queue(url, folder / "queue", 100 if quick else 2_500))
    off = _exit_seconds(None, 1 if quick else 5)
    for kind in KINDS:
        taken = _exit_seconds(kind, 1 if quick else 5)
        exit_row = Row(
            name=f"collector {kind}: exit of a process after its answer, 300 spans more; floor: without tracing",
            unit="s",
            value=round(taken, 2),
            floor=round(off, 2),
            ratio=round(taken / off, 2),
            target="≤ 3",
        )
        rows.append(exit_row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what tracing costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    print(tables(run(quick=parser.parse_args().quick)))


if __name__ == "__main__":
    main()

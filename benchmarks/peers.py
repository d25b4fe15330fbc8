"""What streaming through other clients costs and where they fail, beside our own door and raw aiohttp in one run.

Every client runs in a process of its own (`benchmarks/peer_worker.py`) against one simulator. They are measured in
turns, one at a time, so that all meet the same noise, and after the same number of warm-ups. Run it with
`python -m benchmarks.run --only peers`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from benchmarks.peer_clients import CLIENTS, FLOOR, clients_of
from benchmarks.peer_worker import LONG_ANSWER, LONG_MODEL
from benchmarks.rows import Place, Row
from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess, Script

__all__ = ["run", "versions"]

WIRES = {"anthropic": "Anthropic wire", "openai": "OpenAI wire"}
ANSWERS_WITHIN = 120.0
CLOSED_WITHIN = 3.0
WARM_UPS = 3
_ENDED_WITHIN = 5.0
# A client that takes longer than this for all streams at once is asked only once: noise would not tell it from others.
_LONG_ROUND = 5.0
# In pieces of 8 kB: LiteLLM copies all text so far for every chunk, and would take a minute for pieces of 1 kB.
_LONG_ANSWER = Fault(
    kind="script",
    times=None,
    model=LONG_MODEL,
    script=Script(bytes=LONG_ANSWER, chunk_bytes=8_192, first_ms=0, interval_ms=0),
)
_LEFT_MODEL = "script-501x20"
_CUT_MODEL = "script-6x0"
_CUTS = {"in the middle": 3, "after the last text": 99}


class _Rounds(NamedTuple):
    burst: int
    paced: int
    first_text: int
    many: int
    start: int


class _Figure(NamedTuple):
    column: str
    unit: str
    digits: int
    beside_floor: Literal["ratio", "added", "alone"]


_FIGURES = {
    "burst": _Figure("CPU per chunk, burst of 2,000, µs", "µs", 1, "ratio"),
    "paced": _Figure("CPU per chunk, 2 ms apart, µs", "µs", 0, "ratio"),
    "first text": _Figure("first text added, ms", "ms", 1, "added"),
    "many": _Figure("200 streams × 50 chunks, 20 ms apart, s", "s", 2, "ratio"),
    "lag": _Figure("loop lag meanwhile, p99, ms", "ms", 0, "alone"),
    "growth": _Figure("growth over a 10 MB answer, MB", "MB", 0, "alone"),
    "start": _Figure("process start to first text, s", "s", 2, "ratio"),
    "memory": _Figure("memory by then, MB", "MB", 0, "alone"),
}
_UNFINISHED = "a body that ends without its finish event"
_LEFT = "provider's socket closed after `break` and close, s"


class _Process:
    """A measuring process; a context manager that ends it."""

    def __init__(self, client: str, wire: str, base_url: str) -> None:
        self._name = f"{client} on {wire}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer_worker", client, wire, base_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(),
        )

    def tell(self, name: str, *arguments: object) -> dict[str, Any]:
        """Have something measured, and wait for it."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise RuntimeError(f"{self._name} has no pipes")
        pipe_in.write(json.dumps([name, *arguments]) + "\n")
        pipe_in.flush()
        ready, _, _ = select.select([pipe_out], [], [], ANSWERS_WITHIN)
        line = pipe_out.readline() if ready else ""
        if not line:
            raise RuntimeError(
                f"{self._name} did not answer {name!r} within {ANSWERS_WITHIN:g} s (exit {self._process.poll()}). Run "
                "`python -m benchmarks.peer_worker` with the same arguments to see why."
            )
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise RuntimeError(f"{self._name} failed at {name!r}:\n{told['error']}")
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_ENDED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class _Measured:
    """The samples of one wire, by figure and client."""

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.endings: dict[str, dict[str, str]] = defaultdict(dict)

    def add(self, figure: str, client: str, values: list[float]) -> None:
        self.samples[figure][client].extend(values)

    def median(self, figure: str, client: str) -> float:
        return statistics.median(self.samples[figure][client])

    def rows(self) -> Iterator[Row]:
        for name, client in clients_of(self.wire).items():
            for figure, how in _FIGURES.items():
                yield self._row(name, client.label, how, self.median(figure, name), self.median(figure, FLOOR))
            yield self._unfinished(name, client.label)
            yield self._left(name, client.label)

    def _row(self, client: str, label: str, figure: _Figure, value: float, floor: float) -> Row:
        place = Place(table=WIRES[self.wire], line=label, column=figure.column)
        if figure.beside_floor == "added":
            place["words"] = f"{floor:.1f} in all" if client == FLOOR else f"{value - floor:+.1f}"
        return Row(
            name=f"{figure.column.rpartition(', ')[0].removesuffix(' added')}, {label}, {self.wire}",
            unit=figure.unit,
            value=round(value, figure.digits),
            floor=round(floor, figure.digits),
            ratio=_rounded(value / floor) if figure.beside_floor == "ratio" and client != FLOOR else None,
            target="",
            place=place,
        )

    def _unfinished(self, client: str, label: str) -> Row:
        endings = self.endings[client]
        complete = [where for where, ending in endings.items() if ending == "complete"]
        errors = sorted({ending for ending in endings.values() if ending != "complete"})
        words = " and ".join([*(f"`{error}`" for error in errors), *(["**success**"] if complete else [])])
        if complete and errors:
            words += f" ({', '.join(complete)})"
        return Row(
            name=f"{_UNFINISHED}, reported as complete, {label}, {self.wire}",
            unit=f"of {len(endings)}",
            value=len(complete),
            floor=None,
            ratio=None,
            target="0" if client in ("native", "by-litellm") else "",
            place=Place(table=WIRES[self.wire], line=label, column=_UNFINISHED, words=words),
            broken=client in ("native", "by-litellm") and bool(complete),
        )

    def _left(self, client: str, label: str) -> Row:
        seconds = self.median("left", client)
        closed = seconds < CLOSED_WITHIN
        words = f"{seconds:.3f}" if closed else f"**not within {CLOSED_WITHIN:g}**"
        return Row(
            name=f"{_LEFT.removesuffix(', s')}, {label}, {self.wire}",
            unit="s",
            value=round(seconds, 3),
            floor=None,
            ratio=None,
            target="≤ 0.5" if client in ("native", "by-litellm") else "",
            place=Place(table=WIRES[self.wire], line=label, column=_LEFT, words=words),
        )

    def against_litellm(self) -> Row:
        own, other = self.median("burst", "native"), self.median("burst", "litellm")
        return Row(
            name=f"CPU per chunk, burst, native door beside litellm, {self.wire}",
            unit="µs",
            value=round(own, 1),
            floor=round(other, 1),
            ratio=round(own / other, 4),
            target="≤ 1/15 = 0.0667 of litellm",
        )


def _rounded(ratio: float) -> float:
    return round(ratio, 2 if ratio < 10 else 0)


def _environment() -> dict[str, str]:
    """The environment without keys, addresses and settings of the user's."""
    unwanted = ("_API_KEY", "_BASE_URL", "_API_BASE")
    return {k: v for k, v in os.environ.items() if not k.endswith(unwanted) and not k.startswith("GUIDANCE_")}


def _start(measured: _Measured, base_url: str) -> None:
    """Time from the start of a process to its first text, and the memory that it has by then."""
    for client in clients_of(measured.wire):
        command = [sys.executable, "-m", "benchmarks.peer_worker", "--first", client, measured.wire, base_url]
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
        ) as process:
            if process.stdout is None or process.stdout.read(1) != ".":
                raise RuntimeError(f"{client} on {measured.wire} showed no text: {process.communicate()[1]}")
            measured.add("start", client, [time.perf_counter() - began])
            measured.add("memory", client, [int(process.stdout.readline()) / 1e6])
            process.communicate()


def _in_turns(measured: _Measured, processes: Mapping[str, _Process], rounds: _Rounds) -> None:
    for client, process in processes.items():
        process.tell("warm", WARM_UPS)
        measured.add("growth", client, process.tell("growth")["values"])
    for number, (figure, *told) in (
        (rounds.burst, ("burst", "cpu", "script-2000x0", 2_000)),
        (rounds.paced, ("paced", "cpu", "script-300x2", 300)),
        (rounds.first_text, ("first text", "first_text")),
    ):
        for _ in range(number):
            for client, process in processes.items():
                measured.add(figure, client, process.tell(*told)["values"])
    for _ in range(rounds.many):
        for client, process in processes.items():
            if max(measured.samples["many"][client], default=0.0) > _LONG_ROUND:
                continue
            taken, lag = process.tell("many", "script-50x20")["values"]
            measured.add("many", client, [taken])
            measured.add("lag", client, [lag])


def _faults(measured: _Measured, processes: Mapping[str, _Process], simulator: ProviderSimulatorProcess) -> None:
    for client, process in processes.items():
        for where, chunks in _CUTS.items():
            simulator.add_faults(Fault(kind="truncate", model=_CUT_MODEL, after_chunks=chunks))
            measured.endings[client][where] = process.tell("ending", _CUT_MODEL)["words"]
        for _ in range(2):
            (moment,) = process.tell("leave", _LEFT_MODEL)["values"]
            measured.add("left", client, [_closed_after(simulator, moment)])
            process.tell("forget")


def _closed_after(simulator: ProviderSimulatorProcess, moment: float) -> float:
    """Wait until the simulator has seen the close of the latest answer that was left; return the seconds it took."""
    while True:
        record = next(entry for entry in reversed(simulator.requests()) if entry["model"] == _LEFT_MODEL)
        if record["client_closed_at"] is not None:
            return max(0.0, float(record["client_closed_at"]) - moment)
        if time.time() - moment > CLOSED_WITHIN:
            return CLOSED_WITHIN
        time.sleep(0.02)


def _measure(wire: str, simulator: ProviderSimulatorProcess, rounds: _Rounds) -> _Measured:
    measured = _Measured(wire)
    for _ in range(rounds.start):
        _start(measured, simulator.base_url)
    with contextlib.ExitStack() as stack:
        processes = {
            client: stack.enter_context(_Process(client, wire, simulator.base_url)) for client in clients_of(wire)
        }
        _in_turns(measured, processes, rounds)
        _faults(measured, processes, simulator)
    return measured


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    rounds = _Rounds(2, 1, 2, 1, 1) if quick else _Rounds(5, 3, 6, 3, 2)
    with ProviderSimulatorProcess(["--any-model", "--no-bodies"]) as simulator:
        simulator.add_faults(_LONG_ANSWER)
        wires = [_measure(wire, simulator, rounds) for wire in WIRES]
    return [row for measured in wires for row in (*measured.rows(), measured.against_litellm())]


def versions() -> str:
    """Return the versions of everything that was measured."""
    names = ("aiohttp", "anthropic", "openai", "litellm", "httpx")
    listed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"{listed}. Each of the {len(CLIENTS)} clients in a process of its own with its default settings, "
        f"{WARM_UPS} warm-ups of 500 chunks, medians; × is the ratio to the floor. Where 200 streams took "
        f"more than {_LONG_ROUND:g} s they were measured once."
    )

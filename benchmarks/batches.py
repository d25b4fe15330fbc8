"""How fast and how small batches are: `python -m benchmarks.batches [--items 100000] [--wire openai]`.

The steps of one job on SQLite, each timed alone, with the simulator as a process of its own that says the same to every
request. Beside the wall clock stands this process's own processor time, which a busy machine changes less. Memory is
the highest resident size of this process, over what it was before the first request. `make bench ARGS="--only batches"`
measures in a process of its own, where nothing else has been in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from benchmarks.rows import Place, Row
from guidance_agent.core.batch_processing import BatchKind, BatchOptions, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.database import Database, database_url
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message
from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess, Script
from guidance_agent.settings import Settings

__all__ = ["main", "run"]

MODELS = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}
PREPARE, SEND, WAIT, COLLECT, APPLY = "prepare", "write and send", "wait for the simulator", "collect", "apply"
STEP_OF = {
    "preparing": PREPARE,
    "prepared": PREPARE,
    "intent_recorded": SEND,
    "uploaded": SEND,
    "upload_recorded": SEND,
    "accepted": SEND,
    "submitted": SEND,
    "ended": WAIT,
    "collecting": COLLECT,
    "collected": COLLECT,
    "applying": APPLY,
    "applied_some": APPLY,
    "applied": APPLY,
}
"""Which step the way to a crash point belongs to."""

TARGETS = {PREPARE: 2_000, COLLECT: 2_000, APPLY: 2_000}
MOST_MB = 300
PREFIX = "Say in a few words what went wrong, and what would have helped the customer. " * 20


def _requests(count: int) -> Iterator[BatchRequest]:
    for number in range(count):
        yield BatchRequest(
            custom_id=f"item-{number}",
            messages=[Message("system", PREFIX, part="conduct"), Message("user", f"Consultation {number} failed.")],
            max_tokens=60,
            metadata={"consultation_id": f"c-{number}"},
        )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Took(NamedTuple):
    """Seconds."""

    wall: float
    processor: float


class _Steps:
    """Adds up what lies between one crash point and the next: batches of a job take turns."""

    def __init__(self) -> None:
        self.took = dict.fromkeys((PREPARE, SEND, WAIT, COLLECT, APPLY), _Took(0.0, 0.0))
        self.begin()

    def begin(self) -> None:
        self._last = _Took(time.perf_counter(), time.process_time())

    def __call__(self, point: str) -> None:
        before = self._last
        self.begin()
        wall, processor = self.took[STEP_OF[point]]
        self.took[STEP_OF[point]] = _Took(
            wall + self._last.wall - before.wall, processor + self._last.processor - before.processor
        )


async def _measure(items: int, wire: str, folder: Path, base_url: str) -> dict[str, _Took]:
    applied = sa.Table("applied_in_benchmark", sa.MetaData(), sa.Column("custom_id", sa.Text, primary_key=True))

    leave = sa.insert(applied)

    def apply(connection: sa.Connection, result: BatchResult) -> None:
        connection.execute(leave, {"custom_id": result.custom_id})

    environ = {
        "ANTHROPIC_API_KEY": "sk-ant-benchmark",
        "OPENAI_API_KEY": "sk-benchmark",
        "ANTHROPIC_BASE_URL": base_url,
        "OPENAI_BASE_URL": f"{base_url}/v1",
    }
    settings, steps = Settings.load(data_dir=folder), _Steps()
    async with (
        Database(database_url(settings)) as database,
        ModelGateway(settings, environ=environ) as gateway,
        BatchProcessor(
            database,
            gateway,
            kinds=[BatchKind(name="bench", apply=apply)],
            options=BatchOptions(poll=2.0, prime_wait=0.0),
            crash=steps,
        ) as processor,
    ):
        await database.transaction(lambda connection: applied.create(connection))
        steps.begin()
        handle = await processor.submit(_requests(items), kind="bench", model=MODELS[wire])
        status = await processor.wait(handle.job_key)
    if status.outcomes != {"succeeded": items} or status.applied != items:
        raise RuntimeError(f"The job did not end well: {status}. Look for faults before figures.")
    return steps.took


def _measured(items: int, wire: str) -> tuple[dict[str, _Took], float, float]:
    """Do one job; return what its steps took, the peak of memory, and how much of that was there before it."""
    before = _peak_mb()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProviderSimulatorProcess(
            ["--instant", "--no-bodies", "--state", f"{folder}/simulator.json", "--batch-window", "86400"]
        ) as simulator,
    ):
        said = Fault(kind="script", operation="batches.item", times=None, script=Script(text="It named no risk."))
        simulator.add_faults(said)
        took = asyncio.run(_measure(items, wire, Path(folder) / "data", simulator.base_url))
    return took, _peak_mb(), before


def _rows(items: int, wire: str, took: dict[str, _Took], peak: float, before: float) -> list[Row]:
    table = f"{items:,} items, {wire}"

    def row(line: str, column: str, value: float, unit: str, target: str = "", *, broken: bool = False) -> Row:
        return Row(
            name=f"{line}, {column}, {table}",
            unit=unit,
            value=value,
            floor=None,
            ratio=None,
            target=target,
            place=Place(table=table, line=line, column=column),
            broken=broken,
        )

    rows = []
    for step, (wall, processor) in took.items():
        if step == WAIT:
            continue
        target = TARGETS.get(step)
        line = step if target is None else f"{step} (target ≥ {target:,})"
        rows += [
            row(line, "items in a second", round(items / wall), "items/s", "" if target is None else f"≥ {target:,}"),
            row(line, "items in a second of its own processor time", round(items / processor), "items/s"),
        ]
    line = f"peak memory, MB (target < {MOST_MB})"
    rows.append(row(line, "items in a second", round(peak), "MB", f"< {MOST_MB}", broken=peak >= MOST_MB))
    rows.append(row("of it before the first request, MB", "items in a second", round(before), "MB"))
    return rows


def run(*, quick: bool = False) -> list[Row]:
    """Measure a job on each wire, in a process of its own, and return the figures."""
    rows: list[Row] = []
    for wire in ("openai",) if quick else sorted(MODELS):
        command = [sys.executable, "-m", "benchmarks.batches", "--items", "5000" if quick else "100000"]
        command += ["--wire", wire, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
        rows += json.loads(done.stdout)
    return rows


def main() -> int:
    """Measure one job and print its steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--wire", choices=sorted(MODELS), default="openai")
    parser.add_argument("--json", action="store_true", help="print the rows for a table")
    arguments = parser.parse_args()
    took, peak, before = _measured(arguments.items, arguments.wire)
    if arguments.json:
        json.dump(_rows(arguments.items, arguments.wire, took, peak, before), sys.stdout)
        return 0
    sys.stdout.write(f"{arguments.items} items, {arguments.wire}\n")
    for name, (wall, processor) in took.items():
        sys.stdout.write(
            f"{name:24} {wall:8.2f} s {arguments.items / wall:8.0f} items/s, "
            f"{arguments.items / processor:8.0f} items in a second of processor time\n"
        )
    sys.stdout.write(f"peak memory {peak:.0f} MB, {before:.0f} MB of it before the first request\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast and how small batches are: `python -m benchmarks.batches [--items 20000] [--wire openai]`.

The steps of one job on SQLite, each timed alone, with the simulator as a process of its own that says the same to every
request. Beside the wall clock stands this process's own processor time, which a busy machine changes less. Memory is
the highest resident size of this process, over what it was before the first request.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from guidance_agent.core.batch_processing import BatchKind, BatchOptions, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.database import Database, database_url
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message
from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess, Script
from guidance_agent.settings import Settings

__all__ = ["main"]

MODELS = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}
STEPS = ("prepare", "write and send", "wait for the simulator", "collect", "apply")
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


class _Moment(NamedTuple):
    wall: float
    processor: float


def _now() -> _Moment:
    return _Moment(time.perf_counter(), time.process_time())


class _Steps:
    """When each crash point was passed last; what lies between two of them is a step."""

    def __init__(self) -> None:
        self.at: dict[str, _Moment] = {"began": _now()}

    def __call__(self, point: str) -> None:
        self.at[point] = _now()


async def _measure(items: int, wire: str, folder: Path, base_url: str) -> list[tuple[str, _Moment]]:
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
            options=BatchOptions(poll=0.2, prime_wait=0.0),
            crash=steps,
        ) as processor,
    ):
        await database.transaction(lambda connection: applied.create(connection))
        steps("began")
        handle = await processor.submit(_requests(items), kind="bench", model=MODELS[wire])
        await processor.wait(handle.job_key)
        at = steps.at
    ends = ("began", "prepared", "submitted", "ended", "collected", "applied")
    return [
        (name, _Moment(*(b - a for a, b in zip(at[first], at[last], strict=True))))
        for name, (first, last) in zip(STEPS, pairwise(ends), strict=True)
    ]


def main() -> int:
    """Measure one job and print its steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--wire", choices=sorted(MODELS), default="openai")
    arguments = parser.parse_args()
    before = _peak_mb()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProviderSimulatorProcess(
            ["--instant", "--no-bodies", "--state", f"{folder}/simulator.json", "--batch-window", "86400"]
        ) as simulator,
    ):
        said = Fault(kind="script", operation="batches.item", times=None, script=Script(text="It named no risk."))
        simulator.add_faults(said)
        took = asyncio.run(_measure(arguments.items, arguments.wire, Path(folder) / "data", simulator.base_url))
    sys.stdout.write(f"{arguments.items} items, {arguments.wire}\n")
    for name, (wall, processor) in took:
        sys.stdout.write(
            f"{name:24} {wall:8.2f} s {arguments.items / wall:8.0f} items/s, "
            f"{arguments.items / processor:8.0f} items in a second of processor time\n"
        )
    sys.stdout.write(f"peak memory {_peak_mb():.0f} MB, {before:.0f} MB of it before the first request\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

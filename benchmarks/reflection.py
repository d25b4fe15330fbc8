"""What a whole run of reflection costs through batches: `python -m benchmarks.reflection [--failures 500]`.

Failed answers are reflected on in the four rounds, on both wire formats, against the simulator in a process of its own.
Tokens and dollars are the simulator's accounting of what it was sent, and not our own. Before each round its cache is
emptied, because half a day lies between two rounds and a prefix lives for an hour. The same failures are then reflected
on one after the other at the interactive price, with a cache that stays warm throughout: what batches have to beat.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.failed_answers import add_failures, said
from benchmarks.pages import tables
from benchmarks.rows import Place, Row
from guidance_agent import Runtime, Settings
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.learning.reflection import STEPS
from guidance_agent.llm.messages import Usage
from guidance_agent.provider_simulator import ProviderSimulatorProcess

__all__ = ["LEAST_READ", "LEAST_SAVED", "OPTIONS", "Control", "Round", "Run", "reflect_in_batches", "run"]

LEAST_SAVED = 0.49
"""Share that the batch price alone saves."""
LEAST_READ = 0.90
"""Share of the static prefix's tokens that primed batches of Anthropic's read from the cache."""

WIRES = ("anthropic", "openai")
MODELS = {"anthropic": "anthropic/claude-sonnet-5-5", "openai": "openai/gpt-6-sol"}
OPTIONS = BatchOptions(poll=0.05, prime_wait=600.0, retry_after=0.05)

Control = Callable[[str, str], Any]
"""Asks the simulator's control plane; method and path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What the simulator counted in one round of batches: tokens, dollars, and dollars at the interactive price."""

    requests: int
    uncached: int
    read: int
    written: int
    output: int
    usd: float
    interactive_usd: float

    def __add__(self, other: Round) -> Round:
        return Round(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    @property
    def prefix(self) -> int:
        return self.read + self.written

    @property
    def saved(self) -> float:
        return 1 - self.usd / self.interactive_usd

    @property
    def read_share(self) -> float:
        return self.read / self.prefix if self.prefix else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole run.

    Attributes:
        rounds: One for each step.
        rules: Drafts that it led to.
        uncached_usd: What the same tokens cost at the interactive price without a cache.
        one_by_one_usd: What the same failures cost one after the other; None where that was not measured.
        seconds: How long the program took for all four rounds.
    """

    rounds: tuple[Round, ...]
    rules: int
    uncached_usd: float
    one_by_one_usd: float | None
    seconds: float

    @property
    def total(self) -> Round:
        total, *others = self.rounds
        for each in others:
            total = total + each
        return total


async def reflect_in_batches(
    runtime: Runtime, control: Control, failures: int, *, one_by_one: Runtime | None = None
) -> Run:
    """Reflect on failures in the four rounds, and return what that cost.

    Args:
        runtime: Its models are the simulator's; its records are empty.
        control: Of that simulator, which nobody else uses.
        failures: How many.
        one_by_one: With other empty records, for the same at the interactive price.
    """
    await add_failures(runtime.database, runtime.knowledge, failures)
    work = runtime.reflection_rounds()
    rounds: list[Round] = []
    began = time.perf_counter()
    async with BatchProcessor(runtime.database, runtime.gateway, kinds=work.kinds, options=OPTIONS) as batches:
        if (new := await work.open_new(limit=failures)) != failures:
            raise RuntimeError(f"{new} failures were found of {failures}. Look at the records before the figures.")
        for _ in STEPS:
            await asyncio.to_thread(control, "DELETE", "cache")
            before = await _costs(control)
            await work.advance(batches)
            for status in await batches.list():
                if not status.done:
                    await batches.wait(status.job_key, timeout=600)
            rounds.append(_between(before, await _costs(control)))
        await work.advance(batches)
        standing = await work.standing()
    seconds = time.perf_counter() - began
    if sum(standing.ended.values()) != failures or standing.ended.get("draft", 0) < 1:
        raise RuntimeError(f"The run did not end well: {standing}. Look for faults before figures.")
    total = Run(rounds=tuple(rounds), rules=0, uncached_usd=0, one_by_one_usd=None, seconds=seconds).total
    # Asked for a few tokens, because a request as long as all of them together has another price.
    price = runtime.gateway.cost(work.model, Usage(input_tokens=1_000, output_tokens=100))
    if price is None:
        raise RuntimeError(f"{work.model!r} has no price. Choose a model that has one.")
    return Run(
        rounds=tuple(rounds),
        rules=standing.ended["draft"],
        uncached_usd=price.prices.input * (total.uncached + total.prefix) + price.prices.output * total.output,
        one_by_one_usd=None if one_by_one is None else await _one_by_one(one_by_one, control, failures),
        seconds=seconds,
    )


async def _one_by_one(runtime: Runtime, control: Control, failures: int) -> float:
    await add_failures(runtime.database, runtime.knowledge, failures)
    await asyncio.to_thread(control, "DELETE", "cache")
    before = (await asyncio.to_thread(control, "GET", "costs"))["interactive_usd"]
    learned = await runtime.learner().learn(limit=failures)
    if len(learned) != failures or any(each.outcome == "waiting" for each in learned):
        raise RuntimeError("Not every failure was reflected on. Look for faults before figures.")
    return float((await asyncio.to_thread(control, "GET", "costs"))["interactive_usd"] - before)


async def _costs(control: Control) -> dict[str, Any]:
    batch: dict[str, Any] = (await asyncio.to_thread(control, "GET", "costs"))["batch"]
    return batch


def _between(before: dict[str, Any], after: dict[str, Any]) -> Round:
    new = {name: after[name] - before[name] for name in after}
    return Round(
        requests=new["answered"],
        uncached=new["uncached"],
        read=new["read"],
        written=new["written_5m"] + new["written_1h"],
        output=new["output"],
        usd=new["usd"],
        interactive_usd=new["interactive_usd"],
    )


def settings_for(wire: str, base_url: str, folder: Path) -> Settings:
    """Return settings whose only provider is a simulator."""
    return Settings.load(
        data_dir=folder,
        database_url=None,
        background=False,
        model=MODELS[wire],
        providers={wire: {"base_url": base_url, "api_key": "key-of-the-benchmark"}},
    )


async def _measure(wire: str, failures: int, folder: Path, simulator: ProviderSimulatorProcess) -> Run:
    await asyncio.to_thread(simulator.control, "DELETE", "faults")
    await asyncio.to_thread(simulator.add_faults, *said(2 * failures))
    async with (
        Runtime(settings_for(wire, simulator.base_url, folder / f"{wire}-batches"), environ={}) as runtime,
        Runtime(settings_for(wire, simulator.base_url, folder / f"{wire}-now"), environ={}) as beside,
    ):
        return await reflect_in_batches(runtime, simulator.control, failures, one_by_one=beside)


def _rows(wire: str, failures: int, found: Run, promised: bool) -> list[Row]:
    title, total = f"A run of {failures} failures, by the simulator's accounting", found.total

    def row(line: str, value: float, words: str, *, target: str = "", reached: bool = True) -> Row:
        return Row(
            name=f"{line}, {wire}",
            unit="",
            value=value,
            floor=None,
            ratio=None,
            target=target,
            place=Place(table=title, line=f"{line} ({target})" if target else line, column=wire, words=words),
            broken=promised and not reached,
        )

    def share(line: str, value: float, *, target: str = "", least: float = -9.0) -> Row:
        return row(line, round(value, 4), f"{100 * value:.1f} %", target=target, reached=value >= least)

    def each(count: int, requests: int) -> str:
        return f"{count / requests:,.0f}"

    rows = [
        row("requests", total.requests, f"{total.requests:,}"),
        row("drafts", found.rules, f"{found.rules}"),
        *(
            row(
                f"tokens of a request, {step}: cacheable + other, and of its answer",
                one.prefix / one.requests,
                f"{each(one.prefix, one.requests)} + {each(one.uncached, one.requests)}, "
                f"{each(one.output, one.requests)}",
            )
            for step, one in zip(STEPS, found.rounds, strict=True)
        ),
        row("cost", round(total.usd, 4), f"${total.usd:.2f}"),
        row("the same tokens at the interactive price", total.interactive_usd, f"${total.interactive_usd:.2f}"),
        share("saved by the batch price alone", total.saved, target="≥ 49 %", least=LEAST_SAVED),
    ]
    least = LEAST_READ if wire == "anthropic" else 0.0
    rows.append(share("static prefix read from the cache", total.read_share, target="≥ 90 % on Anthropic", least=least))
    rows += [
        row("at the interactive price without a cache", found.uncached_usd, f"${found.uncached_usd:.2f}"),
        share("saved against that", 1 - total.usd / found.uncached_usd),
    ]
    if found.one_by_one_usd is not None:
        rows += [
            row("one after the other now, with a warm cache", found.one_by_one_usd, f"${found.one_by_one_usd:.2f}"),
            share("saved against that warm cache", 1 - total.usd / found.one_by_one_usd),
        ]
    rows.append(row("seconds of the program for the four rounds", round(found.seconds, 1), f"{found.seconds:.0f}"))
    return rows


def run(*, quick: bool = False, failures: int | None = None) -> Sequence[Row]:
    """Measure a run on each wire, and return the figures; promises are about five hundred failures."""
    count = failures or (60 if quick else 500)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        command = ["--instant", "--no-bodies", "--state", f"{folder}/simulator.json", "--batch-window", "86400"]
        with ProviderSimulatorProcess(command) as simulator:
            for wire in WIRES:
                rows += _rows(wire, count, asyncio.run(_measure(wire, count, Path(folder), simulator)), count >= 60)
    return rows


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", type=int, default=500)
    rows = run(failures=parser.parse_args().failures)
    sys.stdout.write(f"{tables(rows)}\n")
    return 1 if any(row.get("broken") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Time to first text when the provider takes its usual time, beside the time to the last token of the same turns.

The simulator runs as a process of its own with its default latency table (`provider_simulator/settings.py`): the author
model needs 600 ms to its first token plus 0.15 ms per uncached and 0.02 ms per cached input token and then writes 80
tokens/s, the fast model 250 ms and 150 tokens/s. Each turn is the first of a new customer, so that the cache holds
Parts 1 and 2 and nothing else, as in a service that runs. Other customers have asked before: where prompts are routed
by a cache key, every key that the customers are spread over has been used.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.advisor_path import AUTHORS, FAST
from benchmarks.model_door import KEY, WIRES
from benchmarks.rows import Row
from guidance_agent import AdvisorAgent, Runtime, Settings
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.testing import load_persona, personas

__all__ = ["run"]

EARLIER_CUSTOMERS = 60


async def _turn(advisor: AdvisorAgent, name: str, *, reasoning: bool) -> tuple[float, float]:
    profile = load_persona(name).profile
    began = time.perf_counter()
    first = 0.0
    async for _ in advisor.provide_guidance_stream(profile, use_reasoning=reasoning):
        first = first or time.perf_counter() - began
    return first, time.perf_counter() - began


async def _warm(advisor: AdvisorAgent) -> None:
    """Have other customers ask, and leave at the first text."""

    async def ask(number: int) -> None:
        customer = {"customer_id": f"earlier-{number}", "age": 50 + number % 30, "notes": f"customer {number}"}
        stream = advisor.provide_guidance_stream({**customer, "presenting_question": "What is drawdown?"})
        async with contextlib.aclosing(stream):
            await anext(stream)

    await ask(0)
    await asyncio.gather(*(ask(number) for number in range(1, EARLIER_CUSTOMERS)))


async def _measure(base_url: str, *, quick: bool) -> list[Row]:
    names = personas()[: 4 if quick else 12]
    rows: list[Row] = []
    for wire in WIRES:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings.load(
                data_dir=Path(folder),
                background=False,
                model=AUTHORS[wire],
                reasoning_model=FAST[wire],
                providers={wire: {"base_url": base_url, "api_key": KEY}},
            )
            async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
                await _warm(advisor)
                for reasoning, target in ((False, "≤ 1.0"), (True, "≤ 1.5")):
                    turns = [await _turn(advisor, name, reasoning=reasoning) for name in names]
                    first = statistics.median(turn[0] for turn in turns)
                    saved = statistics.median(1 - turn[0] / turn[1] for turn in turns) * 100
                    label = "with reasoning" if reasoning else "without reasoning"
                    rows.append(_row(f"first text, usual latency, {label}, {wire}", "s", first, target))
                    rows.append(_row(f"first text before last token, {label}, {wire}", "%", saved, "≥ 75"))
    return rows


def _row(name: str, unit: str, value: float, target: str) -> Row:
    return Row(name=name, unit=unit, value=round(value, 2), floor=None, ratio=None, target=target)


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures; most of the time it waits."""
    with ProviderSimulatorProcess(["--seed", "7"]) as simulator:
        return asyncio.run(_measure(simulator.base_url, quick=quick))

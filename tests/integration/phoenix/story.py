"""A consultation of three turns, answered by the simulator, judged, and traced to a Phoenix server.

The first answer has a breach in its middle, which the gate withholds; the second is whole; the third is left early.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, Runtime, Settings, TextDelta
from guidance_agent.core.schema import turns
from guidance_agent.provider_simulator import Fault, Script

__all__ = ["CONSULTATION", "CUSTOMER", "PLANTED", "PROJECT", "QUESTIONS", "Story", "Told", "tell", "traced_settings"]

PROJECT = "round-trip"
CONSULTATION = "chat-of-three-turns"
PLANTED = ("Morwenna", "Trelawney", "AB123456C", "AB 12 34 56 C", "m.trelawney@example.org", "customer-4711-mt")
QUESTIONS = (
    "I am Morwenna Trelawney, National Insurance number AB 12 34 56 C, AB123456C without spaces, and my e-mail is "
    "m.trelawney@example.org. Can I take all of my pension to mend my roof?",
    "And how is that taxed?",
    "What is drawdown?",
)
CUSTOMER = CustomerProfile.parse(
    {
        "customer_id": "customer-4711-mt",
        "first_name": "Morwenna",
        "age": 56,
        "financial_literacy": "low",
        "pensions": [{"kind": "dc", "value_gbp": 38_000}],
    }
)
WITHIN = 120.0


class Told(NamedTuple):
    """A turn as the package itself has it."""

    turn_id: str
    text: str
    state: str
    completed: Completed | None
    trace_id: str
    root_id: str
    answer_span_id: str
    passed: bool | None


class Story(NamedTuple):
    """The turns, in their order."""

    breach: Told
    second: Told
    left: Told


def traced_settings(folder: Path, **more: Any) -> Settings:
    """Return settings of an advisor that traces, with an embedded simulator that answers at once."""
    values: dict[str, Any] = {"data_dir": folder, "simulator": "instant", "tracing": "on", "background": True}
    return Settings.load(**values | more)


def tell(endpoint: str, folder: Path) -> Story:
    """Have the consultation, and return once all of it is judged."""
    with pytest.MonkeyPatch.context() as patch:
        # The fixture that does this for every test comes after the fixtures of a module.
        for name in [name for name in os.environ if name.startswith(("GUIDANCE_", "OTEL_", "PHOENIX_"))]:
            patch.delenv(name)
        patch.setenv("GUIDANCE_TRACING", "on")
        return asyncio.run(_tell(endpoint, folder))


async def _tell(endpoint: str, folder: Path) -> Story:
    environ = {"PHOENIX_COLLECTOR_ENDPOINT": endpoint, "PHOENIX_PROJECT_NAME": PROJECT}
    async with (
        Runtime(Settings.load(data_dir=folder, simulator="instant"), environ=environ) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
    ):
        breach = resources.files("guidance_agent.cli") / "demonstrations" / "breach.txt"
        _next_answer(runtime, Script(text=breach.read_text(encoding="utf-8").strip()))
        first = await _turn(runtime, advisor, QUESTIONS[0])
        second = await _turn(runtime, advisor, QUESTIONS[1])
        _next_answer(runtime, Script(chunks=3_000, first_ms=0, interval_ms=10))
        left = await _turn(runtime, advisor, QUESTIONS[2], leave_after=40)
        return Story(first, second, left)


def _next_answer(runtime: Runtime, script: Script) -> None:
    assert runtime.simulator is not None
    model = runtime.model.partition("/")[2]
    runtime.simulator.faults.add(Fault(kind="script", times=1, model=model, script=script))


async def _turn(runtime: Runtime, advisor: AdvisorAgent, question: str, *, leave_after: int | None = None) -> Told:
    pieces: list[str] = []
    completed = None
    customer = CUSTOMER.model_copy(update={"presenting_question": question})
    async with asyncio.timeout(WITHIN), advisor.consult(customer, consultation_id=CONSULTATION) as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            completed = event if isinstance(event, Completed) else completed
            if leave_after is not None and len("".join(pieces)) > leave_after:
                break
    async with asyncio.timeout(WITHIN):
        async for _ in advisor.events(turn.turn_id, until_judged=True, customer_id=customer.customer_id):
            pass
    verdict = await runtime.verdicts.verdict(turn.turn_id)
    assert turn.state is not None
    return Told(
        turn_id=turn.turn_id,
        text="".join(pieces),
        state=turn.state,
        completed=completed,
        **await _ids(runtime, turn.turn_id),
        passed=None if verdict is None else verdict.passed,
    )


async def _ids(runtime: Runtime, turn_id: str) -> dict[str, str]:
    query = sa.select(turns.c.traceparent, turns.c.answer_span_id).where(turns.c.id == turn_id)
    found: Sequence[str] = await runtime.database.run(lambda connection: tuple(connection.execute(query).one()))
    _, trace_id, root_id, _ = found[0].split("-")
    return {"trace_id": trace_id, "root_id": root_id, "answer_span_id": found[1]}

"""A consultation of three turns, answered by the simulator, judged, and traced to a Phoenix server.

The first answer has a breach in its middle, which the gate withholds; the second is whole; the third is left early.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, Runtime, Settings, TextDelta
from guidance_agent.core.schema import turns
from guidance_agent.provider_simulator import Fault, Script

__all__ = [
    "BREACH",
    "NAME",
    "PLANTED",
    "PROJECT",
    "QUESTIONS",
    "Story",
    "Told",
    "delivered",
    "tell",
]

PROJECT = "round-trip"
NAME = "Morwenna"
PLANTED = (NAME, "Trelawney", "AB123456C", "AB 12 34 56 C", "m.trelawney@example.org", "customer-4711-mt")
QUESTIONS = (
    "I am Morwenna Trelawney, National Insurance number AB 12 34 56 C, AB123456C without spaces, and my e-mail is "
    "m.trelawney@example.org. Can I take all of my pension to mend my roof?",
    "And how is that taxed?",
    "What is drawdown?",
)
CUSTOMER = CustomerProfile.parse(
    {
        "customer_id": "customer-4711-mt",
        "first_name": NAME,
        "age": 56,
        "financial_literacy": "low",
        "pensions": [{"kind": "dc", "value_gbp": 38_000}],
    }
)
BREACH = (
    "There are several ways to use a pension pot, and they can be mixed. If I were you, I would take the whole pot out "
    "now. What is taken beyond the tax-free part counts as income of that tax year."
)
"""With a steer in its middle."""

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
    """The turns, in their order, and the consultation that they belong to."""

    breach: Told
    second: Told
    left: Told
    consultation_id: str

    @property
    def turns(self) -> tuple[Told, Told, Told]:
        return self.breach, self.second, self.left


def tell(endpoint: str, folder: Path) -> Story:
    """Have the consultation, and return once all of it is judged and Phoenix has the verdicts."""
    with pytest.MonkeyPatch.context() as patch:
        # The fixture that does this for every test comes after the fixtures of a module.
        for name in [name for name in os.environ if name.startswith(("GUIDANCE_", "OTEL_", "PHOENIX_"))]:
            patch.delenv(name)
        patch.setenv("GUIDANCE_TRACING", "on")
        # On a thread of its own, because a test that wants the story may have a loop on this one.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _tell(endpoint, folder)).result()


async def _tell(endpoint: str, folder: Path) -> Story:
    environ = {"PHOENIX_COLLECTOR_ENDPOINT": endpoint, "PHOENIX_PROJECT_NAME": PROJECT}
    async with (
        Runtime(Settings.load(data_dir=folder, simulator="instant"), environ=environ) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
    ):
        consultation = f"chat-{secrets.token_hex(4)}"
        next_answer(runtime, Script(text=BREACH))
        first = await tell_turn(runtime, advisor, consultation, QUESTIONS[0])
        second = await tell_turn(runtime, advisor, consultation, QUESTIONS[1])
        next_answer(runtime, Script(chunks=3_000, first_ms=0, interval_ms=10))
        left = await tell_turn(runtime, advisor, consultation, QUESTIONS[2], leave_after=40)
        await delivered(runtime)
        return Story(first, second, left, consultation)


async def delivered(runtime: Runtime) -> None:
    """Return once everything that is to be said of answers has arrived."""
    assert runtime.annotations is not None
    async with asyncio.timeout(WITHIN):
        while (await runtime.annotations.drain()).waiting:  # noqa: ASYNC110 - Phoenix tells nobody what it has stored
            await asyncio.sleep(0.2)


def next_answer(runtime: Runtime, script: Script) -> None:
    """Dictate the simulator's next answer."""
    assert runtime.simulator is not None
    model = runtime.model.partition("/")[2]
    runtime.simulator.faults.add(Fault(kind="script", times=1, model=model, script=script))


async def tell_turn(
    runtime: Runtime,
    advisor: AdvisorAgent,
    consultation_id: str,
    question: str,
    *,
    leave_after: int | None = None,
) -> Told:
    """Have a turn, left after so many characters, and return once it is judged."""
    pieces: list[str] = []
    completed = None
    customer = CUSTOMER.model_copy(update={"presenting_question": question})
    async with asyncio.timeout(WITHIN), advisor.consult(customer, consultation_id=consultation_id) as turn:
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
        passed=None if verdict is None else verdict.verdict["passed"],
    )


async def _ids(runtime: Runtime, turn_id: str) -> dict[str, str]:
    query = sa.select(turns.c.traceparent, turns.c.answer_span_id).where(turns.c.id == turn_id)
    found: Sequence[str] = await runtime.database.run(lambda connection: tuple(connection.execute(query).one()))
    _, trace_id, root_id, _ = found[0].split("-")
    return {"trace_id": trace_id, "root_id": root_id, "answer_span_id": found[1]}

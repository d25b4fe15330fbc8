"""What the tests of consolidation share: observations in the records, and answers about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.core.batch_work import BatchWork
from guidance_agent.core.memory_windows import MemoryWindows
from guidance_agent.core.schema import memories, memory_windows
from guidance_agent.learning.consolidation import MemoryConsolidation, consolidation_prompt
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script

__all__ = [
    "ASKED",
    "FAST",
    "LONG_AGO",
    "SAID",
    "WINDOW",
    "answers",
    "codes",
    "consolidation",
    "observe",
    "reflection",
    "rows",
    "windows",
    "work_through",
]

LONG_AGO = datetime(2026, 11, 1, 9, tzinfo=UTC)
WINDOW = 4
FAST = BatchOptions(lease=5.0, grace=0.0, retry_after=0.01, poll=0.01, gone_after=0.0, prime_wait=0.0, max_rounds=2)
ASKED = "Asked more than once about taking the pot as cash."
SAID = (
    "Can I take my whole pot of £38,000 as cash to mend the roof?",
    "I care for my husband, who has dementia. Does that change anything?",
    "Is the roof money taxed if I take it all at once?",
    "My sister says annuities are a waste. What are they?",
    "I would hate to run out of money. What if I live to 95?",
    "Can I take half of the pot now and half next year?",
    "What is a defined benefit pension? I think I have one from the council.",
    "Long answers confuse me, please keep it short.",
)


def consolidation(runtime: Runtime, **values: Any) -> MemoryConsolidation:
    """The work with small windows, where what the simulator led to counts."""
    given: dict[str, Any] = {"window": WINDOW, "include_simulated": True, **values}
    return MemoryConsolidation(runtime.database, runtime.clock, runtime.knowledge, runtime.validator.model, **given)


async def observe(
    runtime: Runtime,
    customer: str,
    texts: Sequence[str],
    *,
    first: int = 0,
    simulated: bool = True,
    consultation: str | None = None,
) -> list[str]:
    """Add observations of a customer, one a day, and return their ids."""
    made = [
        runtime.memory.observation_row(
            customer_id=customer,
            consultation_id=consultation or f"c-{customer}-{number}",
            turn_id=f"t-{customer}-{number}",
            text=text,
            simulated=simulated,
            at=LONG_AGO + timedelta(days=number),
        )
        | {"id": f"mem-{customer}-{number:02}"}
        for number, text in enumerate(texts, first)
    ]
    await runtime.database.transaction(lambda connection: connection.execute(sa.insert(memories), made))
    return [str(row["id"]) for row in made]


async def codes(runtime: Runtime, customer: str) -> list[str]:
    """The codes that a customer's first waiting window has for its observations, in their order."""
    ids = [row.id for row in await windows(runtime) if row.customer_id == customer and row.stage == "waiting"]
    (window, *_) = await MemoryWindows(runtime.database, runtime.clock).find(ids)
    return re.findall(r"^\[([0-9a-f]{8,})\] \d{4}-", consolidation_prompt(window)[-1].content, re.MULTILINE)


def answers(
    simulator: ProviderSimulator,
    *reflections: Mapping[str, Any],
    contains: str = "Say what these observations come to",
    times: int | None = 1,
) -> None:
    """Dictate the answer about the next window whose request holds `contains`."""
    script = Script(text=json.dumps({"reflections": list(reflections)}))
    simulator.faults.add(Fault(kind="script", contains=contains, script=script, times=times))


def reflection(evidence: Sequence[str], text: str = ASKED, importance: int = 6) -> dict[str, Any]:
    return {"evidence": list(evidence), "text": text, "importance": importance}


async def work_through(work: BatchWork, batches: BatchProcessor, *, limit: int = 100) -> None:
    """Open, submit, wait and carry over until nothing is left to be done."""
    await work.open_new(limit=limit)
    while await work.advance(batches):
        for status in await batches.list():
            await batches.wait(status.job_key, timeout=20)


async def rows(runtime: Runtime, **values: Any) -> list[Any]:
    query = sa.select(memories).filter_by(**values).order_by(memories.c.created_at, memories.c.id)
    return await runtime.database.run(lambda connection: list(connection.execute(query)))


async def windows(runtime: Runtime) -> list[Any]:
    query = sa.select(memory_windows).order_by(memory_windows.c.customer_id, memory_windows.c.memory_ids.cast(sa.Text))
    return await runtime.database.run(lambda connection: list(connection.execute(query)))

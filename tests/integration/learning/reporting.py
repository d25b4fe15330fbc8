"""What the tests of insight reports share: a day of consultations in the records, and answers about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.schema import (
    consultations,
    gate_actions,
    insight_notes,
    insight_reports,
    turn_events,
    turns,
    verdicts,
)
from guidance_agent.core.transcript import text_hash
from guidance_agent.learning.insight_prompts import codes_of
from guidance_agent.learning.insights import InsightRounds
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.scripted_judge import verdict_on

__all__ = [
    "ANSWER",
    "DAY",
    "NOTE",
    "MorningAfter",
    "add_consultation",
    "codes",
    "day_says",
    "insights",
    "note_says",
    "notes",
    "reports",
]

DAY = date(2026, 11, 20)
ANSWER = "Good thinking, go ahead and take the lump sum."
NOTE: dict[str, Any] = {
    "topics": ["taking_money", "tax"],
    "misunderstandings": [{"topic": "tax", "words": "Takes the tax-free share for a yearly allowance."}],
    "cause": "none",
    "cause_words": "",
}


class MorningAfter(SystemClock):
    """A clock at two in the morning after the day."""

    def now(self) -> datetime:
        return datetime(2026, 11, 21, 2, tzinfo=UTC)

    def today(self) -> date:
        return DAY + timedelta(days=1)


def insights(runtime: Runtime, **values: Any) -> InsightRounds:
    """The work on the morning after the day, where what the simulator led to counts."""
    given: dict[str, Any] = {"include_simulated": True, **values}
    return InsightRounds(runtime.database, MorningAfter(), runtime.validator.model, **given)


async def add_consultation(
    runtime: Runtime,
    name: str,
    *,
    question: str = "Can I take my whole pot as cash?",
    text: str = ANSWER,
    ended: Sequence[datetime] = (datetime(2026, 11, 20, 12, tzinfo=UTC),),
    judgement: str | None = "passed",
    simulated: bool = True,
    state: str = "completed",
    rules_version: int = 0,
    first: int = 0,
) -> None:
    """Add a consultation with a turn that ended at each moment, or further turns from the number `first` on."""
    verdict = verdict_on(text, ("advice_boundary", 0, 13)).model_dump(mode="json")

    def write(connection: sa.Connection) -> None:
        if not first:
            connection.execute(
                sa.insert(consultations).values(
                    id=name, customer_id=f"customer-{name}", advisor_id="a", opened_at=ended[0],
                    profile={"first_name": "Winnie", "age": 72, "partner": "married to Ottoline"},
                    transcript_hash="h", turn_count=len(ended),
                    outcome="open", simulated=simulated,
                )
            )  # fmt: skip
        for number, moment in enumerate(ended, first):
            turn_id = f"{name}-{number}"
            connection.execute(
                sa.insert(turns).values(
                    id=turn_id, consultation_id=name, ordinal=number, state=state, question=question, model="m",
                    simulated=simulated, owner="o", lease_until=0.0, started_at=moment,
                    ended_at=None if state == "streaming" else moment, last_sequence=1, text_length=len(text),
                    delivered_length=len(text), text_hash=text_hash(text), finish_reason="stop", judgement=judgement,
                    error="ProviderTimeoutError: it took too long" if state == "failed" else None,
                    context={"rules_version": rules_version},
                )
            )  # fmt: skip
            connection.execute(
                sa.insert(turn_events).values(
                    turn_id=turn_id, sequence=0, type="text_delta", text=text, payload={}, created_at=moment
                )
            )
            if judgement == "failed":
                connection.execute(
                    sa.insert(verdicts).values(
                        id=f"v-{turn_id}", turn_id=turn_id, consultation_id=name, text_hash=text_hash(text),
                        policy_version="p", purpose="live", passed=False, needs_review=True, verdict=verdict,
                        simulated=simulated, created_at=moment,
                    )
                )  # fmt: skip
                connection.execute(
                    sa.insert(gate_actions).values(
                        turn_id=turn_id, number=0, action="flagged", check="advice_boundary", start=0, end=13,
                        findings=[], policy_version="p", created_at=moment,
                    )
                )  # fmt: skip

    await runtime.database.transaction(write)


def note_says(simulator: ProviderSimulator, *, contains: str = "", times: int | None = 1, **changes: Any) -> None:
    """Dictate the note about the next consultation, or of the one that holds a text."""
    script = Script(text=json.dumps(NOTE | changes))
    wanted = contains or "Note this conversation"
    simulator.faults.add(Fault(kind="script", contains=wanted, script=script, times=times))


def day_says(simulator: ProviderSimulator, *, times: int | None = 1, **words: Any) -> None:
    """Dictate the words of the next report."""
    whole = {"summary": "Many asked about cash.", "topics": [], "misunderstandings": [], "causes": [], **words}
    script = Script(text=json.dumps(whole))
    simulator.faults.add(Fault(kind="script", contains="Write the words of the report", script=script, times=times))


async def codes(work: InsightRounds) -> dict[str, str]:
    """The codes of the consultations in the report that is being made, by their ids."""
    report = await work.records.under_way(DAY)
    assert report is not None
    found = await work.records.notes(report.note_ids)
    made = codes_of(report, found)
    return {note.consultation_id: made[note.id] for note in found}


async def notes(runtime: Runtime) -> list[Any]:
    query = sa.select(insight_notes).order_by(insight_notes.c.day, insight_notes.c.consultation_id)
    return await runtime.database.run(lambda connection: list(connection.execute(query)))


async def reports(runtime: Runtime) -> list[Any]:
    query = sa.select(insight_reports).order_by(insight_reports.c.day, insight_reports.c.revision)
    return await runtime.database.run(lambda connection: list(connection.execute(query)))

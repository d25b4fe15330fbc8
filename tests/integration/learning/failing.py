"""Failed turns in the records, and what the models of the four steps are made to say about them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.compliance.verdict import CheckName
from guidance_agent.core.schema import consultations, reviews, turn_events, turns, verdicts
from guidance_agent.core.transcript import text_hash
from guidance_agent.learning.rule_records import Evidence
from guidance_agent.learning.rules import RulesBase
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.scripted_judge import verdict_on

__all__ = ["PRINCIPLE", "RULE", "Steps", "add_turn", "evidence", "review", "rules_base"]

LONG_AGO = datetime(2026, 11, 1, 9, tzinfo=UTC)
TEXT = "Good thinking, go ahead and take the lump sum."
RULE = "When a customer praises their own plan, note the preference and set out both sides instead of agreeing."
PRINCIPLE = "Note a preference of the customer and set out both sides."

ANSWERS: dict[str, dict[str, Any]] = {
    "reflect": {"cause": "It was meant to be kind.", "principle": PRINCIPLE, "requirement": "R-ADV-2"},
    "validate": {"reason": "It would have helped.", "requirement": "R-ADV-2", "valid": True, "confidence": 0.9},
    "refine": {"changes": "The situation comes first.", "rule": RULE},
    "judge the value": {"adds": "A habit.", "reason": "It is frequent.", "still_valid": True, "value": 0.8},
}


class Steps:
    """Makes the models of the four steps say something, and counts how often each was asked."""

    def __init__(self, simulator: ProviderSimulator) -> None:
        self._simulator = simulator

    def say(self, step: str, *, times: int | None = 1, **changes: Any) -> None:
        """Dictate the answer of a step, as it usually is but for the changes."""
        self.say_text(step, json.dumps(ANSWERS[step] | changes), times=times)

    def say_text(self, step: str, text: str, *, times: int | None = 1) -> None:
        script = Script(text=text)
        self._simulator.faults.add(Fault(kind="script", contains=f"Your step: {step}", script=script, times=times))

    def say_all(self, *, times: int | None = 1, rule: str = RULE) -> None:
        for step in ANSWERS:
            self.say(step, times=times, **({"rule": rule} if step == "refine" else {}))

    @property
    def asked(self) -> list[str]:
        bodies = [json.dumps(record.body) for record in self._simulator.requests]
        return [step for body in bodies for step in ANSWERS if f"Your step: {step}" in body]


async def add_turn(
    runtime: Runtime,
    name: str = "t1",
    *,
    text: str = TEXT,
    question: str = "I want the lump sum. That is right, isn't it?",
    judgement: str | None = "failed",
    simulated: bool = False,
    consultation: str | None = None,
    ordinal: int = 0,
    outcome: str = "open",
    outcome_reason: str | None = None,
    context: dict[str, Any] | None = None,
    requirement: str | None = None,
) -> str:
    """Add a turn that delivered a text, and a verdict on it: a failed one where `judgement` says so.

    A passed turn has a verdict where a `requirement` is named, of which the verdict's check on advice tells then.
    """
    of = consultation or f"c-{name}"
    fails = judgement == "failed"
    failures: list[tuple[CheckName, int, int]] = [("advice_boundary", 0, 13)] if fails else []
    verdict = verdict_on(text, *failures)
    if requirement is not None:
        named = (check.model_copy(update={"requirement": requirement}) for check in verdict.checks)
        verdict = verdict.model_copy(update={"checks": tuple(named)})
    ended = LONG_AGO + timedelta(minutes=ordinal)

    def write(connection: sa.Connection) -> None:
        if ordinal == 0:
            connection.execute(
                sa.insert(consultations).values(
                    id=of, customer_id="winnie-72", advisor_id="a", opened_at=LONG_AGO,
                    profile={"first_name": "Winnie", "age": 72, "partner": "married to Ottoline"},
                    transcript_hash="h", turn_count=1, outcome=outcome, outcome_reason=outcome_reason,
                    simulated=simulated,
                )
            )  # fmt: skip
        connection.execute(
            sa.insert(turns).values(
                id=name, consultation_id=of, ordinal=ordinal, state="completed", question=question, model="m",
                simulated=simulated, owner="o", lease_until=0.0, started_at=ended, ended_at=ended, last_sequence=1,
                text_length=len(text), delivered_length=len(text), text_hash=text_hash(text), finish_reason="stop",
                judgement=judgement, context=context or {},
            )
        )  # fmt: skip
        connection.execute(
            sa.insert(turn_events).values(
                turn_id=name, sequence=0, type="text_delta", text=text, payload={}, created_at=ended
            )
        )
        if fails or requirement is not None:
            connection.execute(
                sa.insert(verdicts).values(
                    id=f"v-{name}", turn_id=name, consultation_id=of, text_hash=text_hash(text), policy_version="p",
                    purpose="live", passed=not fails, needs_review=fails, verdict=verdict.model_dump(mode="json"),
                    simulated=simulated, created_at=ended,
                )
            )  # fmt: skip

    await runtime.database.transaction(write)
    return name


async def review(runtime: Runtime, turn_id: str, *, opened_at: datetime, **values: Any) -> None:
    """Add the review of a turn."""
    row = {"id": f"r-{turn_id}", "turn_id": turn_id, "verdict_id": f"v-{turn_id}", "cause": "fail", "status": "open"}
    insert = sa.insert(reviews).values(**row | {"opened_at": opened_at} | values)
    await runtime.database.transaction(lambda connection: connection.execute(insert))


def rules_base(runtime: Runtime) -> RulesBase:
    """A rules base where what the simulator led to counts."""
    return RulesBase(runtime.database, runtime.clock, runtime.knowledge, include_simulated=True)


def evidence(turn_id: str = "t1") -> Evidence:
    return Evidence(
        turn_id=turn_id, consultation_id="c", verdict_id=None, source="verdict", requirement="R-ADV-2", models=("m",)
    )

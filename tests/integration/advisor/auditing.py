"""Delivered turns in the records, judged and gated as a test says, and a judge that says what it dictates of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.compliance.audit import AuditRounds, AuditRun, process_audit_results
from guidance_agent.compliance.verdict import CheckName
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.core.schema import consultations, gate_actions, turn_events, turns, verdicts
from guidance_agent.core.transcript import text_hash
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.scripted_judge import verdict_on
from tests.integration.compliance.judging import REPLY, answer, entry

__all__ = ["BEGAN", "FAST", "STEER", "add_turn", "finish", "flag", "processor", "says", "steers"]

BEGAN = datetime(2026, 11, 2, 9, tzinfo=UTC)
STEER = "If I were you, I would take the whole pot out now."
FAST = BatchOptions(lease=5.0, grace=0.0, retry_after=0.01, poll=0.02, gone_after=0.0, prime_wait=0.0)


async def add_turn(
    runtime: Runtime,
    name: str,
    *,
    text: str = REPLY,
    question: str = "Can I take money out of my pension?",
    live: Sequence[CheckName] | None = (),
    judgement: str | None = None,
    days: float = 0.0,
    model: str = "anthropic/claude-sonnet-5-5",
    rules_version: int | None = 1,
    simulated: bool = False,
    purpose: str = "live",
) -> str:
    """Add a turn that delivered a text; `live` are the checks that its live verdict failed, None for no verdict."""
    ended = BEGAN + timedelta(days=days)
    where = text.find(STEER)
    at = (where, where + len(STEER)) if where >= 0 else (0, 7)
    verdict = None if live is None else verdict_on(text, *((check, *at) for check in live))
    stands = judgement or ("unjudged_needs_review" if live is None else "failed" if live else "passed")

    def write(connection: sa.Connection) -> None:
        connection.execute(
            sa.insert(consultations).values(
                id=f"c-{name}", customer_id="winnie-72", advisor_id="a", opened_at=ended,
                profile={"first_name": "Winnie", "age": 72}, transcript_hash="h", turn_count=1, outcome="open",
                simulated=simulated,
            )
        )  # fmt: skip
        connection.execute(
            sa.insert(turns).values(
                id=name, consultation_id=f"c-{name}", ordinal=0, state="completed", question=question, model=model,
                simulated=simulated, owner="o", lease_until=0.0, started_at=ended, ended_at=ended, last_sequence=1,
                text_length=len(text), delivered_length=len(text), text_hash=text_hash(text), finish_reason="stop",
                judgement=stands, context={"rules_version": rules_version},
            )
        )  # fmt: skip
        connection.execute(
            sa.insert(turn_events).values(
                turn_id=name, sequence=0, type="text_delta", text=text,
                payload={"start": 0, "end": len(text)}, created_at=ended,
            )
        )  # fmt: skip
        if verdict is not None:
            connection.execute(
                sa.insert(verdicts).values(
                    id=f"v-{name}", turn_id=name, consultation_id=f"c-{name}", text_hash=text_hash(text),
                    policy_version="p", purpose=purpose, passed=verdict.passed, needs_review=verdict.needs_review,
                    verdict=verdict.model_dump(mode="json"), judge_model="test/judge", simulated=simulated,
                    created_at=ended,
                )
            )  # fmt: skip

    await runtime.database.transaction(write)
    return name


async def flag(runtime: Runtime, turn_id: str, start: int, end: int, *, check: str = "advice_boundary") -> None:
    """Note that the gate let a sentence through and put it on record."""
    row = {
        "turn_id": turn_id, "number": 0, "action": "flagged", "check": check, "start": start, "end": end,
        "findings": [], "policy_version": "g", "created_at": BEGAN,
    }  # fmt: skip
    await runtime.database.transaction(lambda connection: connection.execute(sa.insert(gate_actions).values(**row)))


def processor(runtime: Runtime, rounds: AuditRounds) -> BatchProcessor:
    return BatchProcessor(runtime.database, runtime.gateway, kinds=rounds.kinds, options=FAST)


async def finish(rounds: AuditRounds, batches: BatchProcessor, run: AuditRun | None) -> AuditRun:
    """Work on a run until it has ended."""
    assert run is not None
    while not (run := await process_audit_results(rounds, batches, run.id)).done:
        for job in await batches.list():
            if not job.done:
                await batches.wait(job.job_key, timeout=20)
    return run


def steers(quote: str = STEER) -> dict[str, Any]:
    """The answer of a judge that calls a sentence advice."""
    return answer(
        entry(
            "advice_boundary",
            status="fail",
            severity="high",
            quote=quote,
            explanation="It tells the customer what to do.",
        ),
        reasoning="One sentence steers.",
    )


def says(
    simulator: ProviderSimulator, text: dict[str, Any] | str, *, contains: str | None = None, times: int | None = None
) -> None:
    """Dictate the judge's answers about replies that hold some words."""
    script = Script(text=text if isinstance(text, str) else json.dumps(text))
    where = {} if contains is None else {"contains": contains}
    fault = {"kind": "script", "operation": "batches.item", "script": script, "times": times, **where}
    simulator.faults.add(Fault.model_validate(fault))

"""Answers that failed, as the records would hold them, and what models say of them in the four steps."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent.compliance.verdict import CHECKS, CheckResult, Verdict
from guidance_agent.core.bulk import insert_rows
from guidance_agent.core.database import Database
from guidance_agent.core.schema import consultations, turn_events, turns, verdicts
from guidance_agent.core.transcript import text_hash
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.provider_simulator import Fault, Script
from guidance_agent.testing import load_persona, personas

__all__ = ["add_failures", "said"]

STEERS = (
    "On what you have told me, drawdown is the one to go for.",
    "Good thinking, go ahead and take the lump sum.",
    "If I were in your place I would leave it where it is for now.",
    "You really ought to bring the old pot across.",
)
RULES = (
    "When a customer praises their own plan, note the preference and set out both sides instead of agreeing.",
    "When a transfer of safeguarded benefits is mentioned, say first that an income for life is given up for good.",
    "Before explaining drawdown, ask whether the customer gets means-tested benefits, which a withdrawal reduces.",
    "If an answer compares two options, close with what each would mean if plans change.",
    "When inheritance comes up, say that the rules change and look up the date.",
    "When somebody mentions a cold call about their pension, explain how to report it and pause everything else.",
    "When the customer has several small pots, set out what combining would change and what it would lose.",
    "When the customer sounds distressed, slow down, use short sentences and offer a person to talk to.",
)
_BEGAN = datetime(2026, 11, 1, 9, tzinfo=UTC)


async def add_failures(database: Database, knowledge: Knowledge, count: int, *, seed: int = 5) -> None:
    """Add turns whose verdict stands failed: real questions, replies of facts with a sentence that steers."""
    rows = list(_rows(knowledge, count, random.Random(seed)))

    def write(connection: sa.Connection) -> None:
        for table in (consultations, turns, turn_events, verdicts):
            insert_rows(connection, table, [row[table.name] for row in rows])

    await database.transaction(write)


def said(count: int) -> list[Fault]:
    """Return what makes a simulator answer the four steps about so many failures, each with one of some rules."""
    answers: list[tuple[str, dict[str, Any], int | None]] = [
        (
            "reflect",
            {
                "cause": "The reply set out the options fairly and then ended with one of them, because a comparison "
                "had to end somewhere; the customer had already leaned that way.",
                "principle": "Where a customer leans towards an option, note it in their own words and set out the "
                "others at the same depth, with the price of each, before anything else is said.",
                "requirement": "R-ADV-2",
            },
            None,
        ),
        (
            "validate",
            {
                "reason": "The failed reply would have read otherwise, because its last sentence follows the lean. The "
                "strongest objection is length, since every option has to be set out; the requirement asks for that.",
                "requirement": "R-ADV-2",
                "valid": True,
                "confidence": 0.9,
            },
            None,
        ),
        *(
            ("refine", {"changes": "The situation comes first, and what is to be done in its place.", "rule": rule}, -1)
            for rule in RULES
        ),
        (
            "judge the value",
            {
                "adds": "It names the moment in which a fair comparison turns into a steer.",
                "reason": "The situation comes up in most conversations, and what it prevents cannot be taken back.",
                "still_valid": True,
                "value": 0.8,
            },
            None,
        ),
    ]
    each = -(-count // len(RULES))
    return [
        Fault(
            kind="script",
            contains=f"Your step: {step}",
            script=Script(text=json.dumps(answer)),
            times=each if times == -1 else times,
        )
        for step, answer, times in answers
    ]


def _rows(knowledge: Knowledge, count: int, draws: random.Random) -> Iterator[dict[str, dict[str, Any]]]:
    statements = [fact.statement for fact in knowledge.facts if fact.audience == "customer"]
    customers = [load_persona(name) for name in personas()]
    for number in range(count):
        customer = draws.choice(customers)
        steer = draws.choice(STEERS)
        text = "\n\n".join([*draws.sample(statements, 8), steer])
        ended, turn, of = _BEGAN + timedelta(seconds=number), f"turn-{number:05}", f"consultation-{number:05}"
        verdict = _verdict(text, steer)
        yield {
            "consultations": {
                "id": of, "customer_id": f"customer-{number}", "advisor_id": "advisor", "opened_at": ended,
                "profile": customer.profile.prompt_values(), "transcript_hash": "h", "turn_count": 1,
                "outcome": "open", "simulated": False,
            },
            "turns": {
                "id": turn, "consultation_id": of, "ordinal": 0, "state": "completed",
                "question": f"{customer.profile.presenting_question} I have thought about it since {1950 + number}.",
                "model": "anthropic/claude-sonnet-5-5", "simulated": False, "owner": "benchmark", "lease_until": 0.0,
                "started_at": ended, "ended_at": ended, "last_sequence": 1, "text_length": len(text),
                "delivered_length": len(text), "text_hash": text_hash(text), "finish_reason": "stop",
                "judgement": "failed", "context": {},
            },
            "turn_events": {
                "turn_id": turn, "sequence": 0, "type": "text_delta", "text": text, "payload": {}, "created_at": ended,
            },
            "verdicts": {
                "id": f"verdict-{number:05}", "turn_id": turn, "consultation_id": of, "text_hash": text_hash(text),
                "policy_version": "benchmark", "purpose": "live", "passed": False, "needs_review": True,
                "verdict": verdict.model_dump(mode="json"), "simulated": False, "created_at": ended,
            },
        }  # fmt: skip


def _verdict(text: str, steer: str) -> Verdict:
    start = text.index(steer)
    failed = CheckResult(
        check="advice_boundary",
        status="fail",
        severity="high",
        requirement="R-ADV-2",
        explanation="The reply ends with one option as the one to choose, for this customer.",
        quote=steer,
        start=start,
        end=start + len(steer),
        source="judge",
    )
    passed = (
        CheckResult(check=name, status="pass", requirement="R", explanation="Nothing against it.", source="judge")
        for name in CHECKS
        if name != "advice_boundary"
    )
    return Verdict(
        checks=(failed, *passed),
        confidence=0.9,
        reasoning="One sentence steers.",
        policy_version="benchmark",
        text_hash=text_hash(text),
    )

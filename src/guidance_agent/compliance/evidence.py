"""The evidence behind one answer: what is on record about it, and its deterministic checks computed again.

The bundle is made of plain JSON values and depends on the records and the installed version alone, never on the moment
at which it is asked for: the same records give the same bytes.

What the rules alone said of a text is recorded with the verdict, together with the day whose figures were right and a
fingerprint of rules, policy, knowledge and package. Where the installed version has the same fingerprint, the rules are
applied once more to the delivered text and the two results compared byte for byte; where it has another, that is said
instead, because a difference would prove nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from guidance_agent.compliance.verdict import RulesRecord, Verdict
from guidance_agent.core.evidence import RecordedTurn, read_turn
from guidance_agent.core.transcript import text_hash
from guidance_agent.core.types import JsonObject
from guidance_agent.core.verdicts import LIVE
from guidance_agent.errors import UnknownTurnError

if TYPE_CHECKING:
    from guidance_agent.core.database import Database
    from guidance_agent.knowledge.loader import Knowledge

__all__ = ["Reproduction", "canonical_json", "evidence_of_turn", "is_sound"]

Reproduction = Literal["identical", "different", "other_version", "not_recorded"]
"""What became of computing the deterministic checks again."""

_UK = ZoneInfo("Europe/London")
_SAID: Mapping[Reproduction, str] = {
    "identical": "Computed again with the same rules, policy and facts: the result is byte for byte the recorded one.",
    "different": "Computed again with the same rules, policy and facts: the result is NOT the recorded one. Either the "
    "program or the record has changed; keep both and ask who runs this system.",
    "other_version": "The installed rules, policy or facts are not those of the record, so nothing was compared. "
    "Install the package version of the answer to compare.",
    "not_recorded": "No result of the rules is recorded for this answer, so nothing was compared; what they say of it "
    "today is shown.",
}
_LINKS = ("turn_id", "consultation_id")


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, characters as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


async def evidence_of_turn(database: Database, knowledge: Knowledge, turn_id: str) -> JsonObject:
    """Return everything behind an answer as JSON values, personal data and withheld text included.

    Raises:
        UnknownTurnError: when there is no such turn.
        StorageError: when the records cannot be read.
    """
    recorded = await read_turn(database, turn_id)
    if recorded is None:
        raise UnknownTurnError(
            f"There is no turn {turn_id!r} in the records. Use the id that its first event told, or one that "
            "`guidance-agent review list --status all` shows."
        )
    # The rules take a moment, and reading them takes files.
    return await asyncio.to_thread(_bundle, recorded, knowledge)


def is_sound(bundle: JsonObject) -> bool:
    """Whether nothing in a bundle contradicts itself: the text has its hash, and the rules say what they said."""
    return bundle["answer"]["text_hash_matches"] is not False and bundle["deterministic"]["outcome"] != "different"


def _bundle(recorded: RecordedTurn, knowledge: Knowledge) -> JsonObject:
    turn, context = recorded.turn, recorded.turn["context"]
    answer = _answer(recorded)
    return {
        "turn": {
            name: _json(turn[name])
            for name in (
                *("id", "consultation_id", "ordinal", "state", "judgement", "model", "simulated", "started_at"),
                *("ended_at", "finish_reason", "error", "timing", "traceparent"),
            )
        },
        "question": turn["question"],
        "conversation": [entry._asdict() for entry in recorded.history],
        "customer": {
            "id": recorded.consultation["customer_id"],
            "consultation_opened_at": _json(recorded.consultation["opened_at"]),
            "profile": recorded.consultation["profile"],
        },
        "versions": {
            "package": context.get("package_version"),
            "released_rules": context.get("rules_version"),
            "knowledge": context.get("knowledge_version"),
            "gate": context.get("gate_version"),
            "judging": next((row["policy_version"] for row in recorded.verdicts if row["purpose"] == LIVE), None),
        },
        "retrieved": {
            "facts": [_fact(fact_id, context, knowledge) for fact_id in context.get("facts", ())],
            "memories": _rows(recorded.memories),
            "cases": _rows(recorded.cases),
            "rules": _rows(recorded.rules),
        },
        "private_notes": turn["reasoning"],
        "calculations": turn["calculations"] or [],
        "calls": _rows(recorded.calls),
        "cost": _cost(recorded.calls),
        "answer": answer,
        "journal": [
            {"sequence": row["sequence"], "type": row["type"], "at": _json(row["created_at"])}
            for row in recorded.events
        ],
        "gate_actions": _rows(recorded.gate_actions),
        "verdicts": _rows(recorded.verdicts),
        "corrections": _rows(recorded.corrections),
        "reviews": _rows(recorded.reviews),
        "deterministic": _deterministic(recorded, answer["text"], knowledge),
    }


def _answer(recorded: RecordedTurn) -> JsonObject:
    released = [row for row in recorded.events if row["text"] is not None]
    journaled = "".join(row["text"] for row in released)
    delivered = journaled[: recorded.turn["delivered_length"]]
    stored = recorded.turn["text_hash"]
    return {
        "text": delivered,
        "text_hash": stored,
        "text_hash_matches": None if stored is None else stored == text_hash(delivered),
        "journaled_length": len(journaled),
        "delivered_length": recorded.turn["delivered_length"],
        "released": [
            {
                "sequence": row["sequence"],
                "start": row["payload"]["start"],
                "end": row["payload"]["end"],
                "text": row["text"],
                "at": _json(row["created_at"]),
            }
            for row in released
        ],
    }


def _fact(fact_id: str, context: JsonObject, knowledge: Knowledge) -> JsonObject:
    """Return a fact with its words, if the installed knowledge is that of the answer; else its id alone."""
    if context.get("knowledge_version") != knowledge.version:
        return {"id": fact_id, "statement": None}
    fact = knowledge.get(fact_id)
    return {
        "id": fact_id,
        "statement": fact.statement,
        "source": fact.source,
        "effective_from": _json(fact.effective_from),
        "valid_until": _json(fact.valid_until),
    }


def _cost(calls: Sequence[JsonObject]) -> JsonObject:
    known = [call["cost_usd"] for call in calls if call["cost_usd"] is not None]
    return {
        "total_usd": sum(known) if calls and len(known) == len(calls) else None,
        "known_usd": sum(known) if known else None,
        "calls": len(calls),
        "calls_without_price": len(calls) - len(known),
        "usage_estimated": any(call["usage_estimated"] for call in calls),
    }


def _deterministic(recorded: RecordedTurn, text: str, knowledge: Knowledge) -> JsonObject:
    from guidance_agent.compliance.rule_results import TextRules

    record = _record_of_rules([row for row in recorded.verdicts if row["text_hash"] == recorded.turn["text_hash"]])
    day = _day_of(recorded) if record is None else record.day
    now = TextRules(knowledge).examine(text, question=recorded.turn["question"], on=day).record
    outcome = _compared(record, now)
    return {
        "outcome": outcome,
        "meaning": _SAID[outcome],
        "day": day.isoformat(),
        "recorded": None if record is None else record.model_dump(mode="json"),
        "computed": None if outcome == "other_version" else now.model_dump(mode="json"),
        "installed_version": now.version,
    }


def _compared(record: RulesRecord | None, now: RulesRecord) -> Reproduction:
    if record is None:
        return "not_recorded"
    if record.version != now.version:
        return "other_version"
    before, after = (canonical_json(each.model_dump(mode="json")) for each in (record, now))
    return "identical" if before.encode() == after.encode() else "different"


def _record_of_rules(verdicts: Sequence[JsonObject]) -> RulesRecord | None:
    for row in sorted(verdicts, key=lambda row: row["purpose"] != LIVE):
        record = Verdict.model_validate(row["verdict"]).rules
        if record is not None:
            return record
    return None


def _day_of(recorded: RecordedTurn) -> date:
    moment: datetime = recorded.turn["ended_at"] or recorded.turn["started_at"]
    return moment.astimezone(_UK).date()


def _rows(rows: Sequence[JsonObject]) -> list[JsonObject]:
    return [{name: _json(value) for name, value in row.items() if name not in _LINKS} for row in rows]


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value

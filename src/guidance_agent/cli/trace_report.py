"""What is told of a turn, as plain values: figures and ids from the records, and nothing that anybody said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from guidance_agent.core.types import JsonObject
from guidance_agent.tracing.span import read_traceparent

if TYPE_CHECKING:
    from guidance_agent.core.evidence import RecordedTurn
    from guidance_agent.settings import Settings

__all__ = ["Pages", "find_pages", "report_of_turn"]

_PROBE_SECONDS = 2.0
_RETRIEVED = ("facts", "memories", "cases", "rules")
_CALL = (
    *("id", "operation", "model", "requested_model", "provider", "transport", "outcome", "finish_reason", "attempts"),
    *("first_token_seconds", "total_seconds", "chunks", "input_tokens", "cache_read_tokens", "output_tokens"),
    *("reasoning_tokens", "usage_estimated", "cost_usd", "cache_outcome", "simulated", "request_id", "error"),
)
_GATE = ("number", "action", "check", "start", "end", "asked")


class Pages(NamedTuple):
    """Where a turn can be looked at, or why it cannot.

    Attributes:
        phoenix: The address of the Phoenix that answers.
        trace: The page of the turn's trace there.
        answer: The page of the answer's span there.
        why_not: Why there is no page, for a person.
    """

    phoenix: str | None = None
    trace: str | None = None
    answer: str | None = None
    why_not: str | None = None


async def find_pages(settings: Settings, recorded: RecordedTurn) -> Pages:
    """Return where Phoenix shows a turn; asks whether it answers, for at most two seconds.

    Raises:
        ConfigurationError: Phoenix's address is malformed.
    """
    from guidance_agent.core.phoenix_address import find_phoenix

    root = read_traceparent(recorded.turn["traceparent"])
    if root is None:
        return Pages(why_not="This turn was not traced.")
    address = await asyncio.to_thread(find_phoenix, settings, os.environ)
    if address is None:
        return Pages(why_not="No Phoenix runs here. `guidance-agent phoenix` starts one.")
    from guidance_agent.core.phoenix_rest import phoenix_version

    try:
        version = await phoenix_version(address, timeout=_PROBE_SECONDS)
    except OSError:
        return Pages(
            why_not=f"Phoenix at {address.place} does not answer. `guidance-agent phoenix` starts one on this machine."
        )
    if version is None:
        return Pages(why_not=f"What answers at {address.place} is no Phoenix.")
    span_id = recorded.turn["answer_span_id"]
    return Pages(
        phoenix=address.place,
        trace=address.trace_page(f"{root.trace_id:032x}"),
        answer=None if span_id is None else address.span_page(span_id),
    )


def report_of_turn(recorded: RecordedTurn, pages: Pages) -> JsonObject:
    """Return what is told of a turn. Times with `after` are in seconds from its beginning."""
    turn, began = recorded.turn, recorded.turn["started_at"]
    timing = turn["timing"] or {}
    root = read_traceparent(turn["traceparent"])
    return {
        "turn": {
            "id": turn["id"],
            "consultation_id": turn["consultation_id"],
            "ordinal": turn["ordinal"],
            "state": turn["state"],
            "judgement": turn["judgement"],
            "finish_reason": turn["finish_reason"],
            "error": turn["error"],
            "model": turn["model"],
            "simulated": turn["simulated"],
            "started_at": _moment(began),
            "ended_at": _moment(turn["ended_at"]),
            "first_token_seconds": timing.get("first_token"),
            "first_text_seconds": timing.get("first_text"),
            "total_seconds": timing.get("total"),
            "tokens_per_second": timing.get("tokens_per_second"),
            "text_length": turn["text_length"],
            "delivered_length": turn["delivered_length"],
            "events": len(recorded.events),
        },
        "trace": {
            "trace_id": None if root is None else f"{root.trace_id:032x}",
            "answer_span_id": turn["answer_span_id"],
            **pages._asdict(),
        },
        "retrieved": {name: list(turn["context"].get(name, ())) for name in _RETRIEVED},
        "calls": [_call(row, began) for row in recorded.calls],
        "cost": _cost(recorded.calls),
        "gate_actions": [
            {name: row[name] for name in _GATE} | {"after": _after(row["created_at"], began)}
            for row in recorded.gate_actions
        ],
        "verdicts": [_verdict(row, began) for row in recorded.verdicts],
        "corrections": [
            {
                "id": row["id"],
                "verdict_id": row["verdict_id"],
                "start": row["span_start"],
                "end": row["span_end"],
                "after": _after(row["created_at"], began),
                "delivered_at": _moment(row["delivered_at"]),
            }
            for row in recorded.corrections
        ],
        "reviews": [
            {
                "id": row["id"],
                "verdict_id": row["verdict_id"],
                "cause": row["cause"],
                "status": row["status"],
                "decision": row["decision"],
                "opened_at": _moment(row["opened_at"]),
                "decided_at": _moment(row["decided_at"]),
            }
            for row in recorded.reviews
        ],
        "annotations": [
            {
                "name": row["name"],
                "annotator_kind": row["annotator_kind"],
                "label": row["label"],
                "score": row["score"],
                "attempts": row["attempts"],
                "sent_at": _moment(row["sent_at"]),
                "error": row["error"],
            }
            for row in recorded.annotations
        ],
    }


def _call(row: JsonObject, began: datetime) -> JsonObject:
    written = [row["cache_write_5m_tokens"], row["cache_write_1h_tokens"]]
    known = [tokens for tokens in written if tokens is not None]
    return {
        "after": _after(row["started_at"], began),
        **{name: row[name] for name in _CALL},
        "cache_write_tokens": sum(known) if known else None,
    }


def _cost(calls: Sequence[JsonObject]) -> JsonObject:
    known = [call["cost_usd"] for call in calls if call["cost_usd"] is not None]
    return {
        "total_usd": sum(known) if calls and len(known) == len(calls) else None,
        "known_usd": sum(known) if known else None,
        "calls_without_price": len(calls) - len(known),
        "usage_estimated": any(call["usage_estimated"] for call in calls),
    }


def _verdict(row: JsonObject, began: datetime) -> JsonObject:
    verdict = row["verdict"]
    return {
        "id": row["id"],
        "purpose": row["purpose"],
        "by": "person" if verdict.get("reviewer") else "judge" if row["judge_model"] else "rules",
        "judge_model": row["judge_model"],
        "passed": row["passed"],
        "needs_review": row["needs_review"],
        "readable": verdict.get("unreadable") is None,
        "confidence": verdict.get("confidence"),
        "failed_checks": list(dict.fromkeys(_failed(verdict))),
        "cost_usd": row["cost_usd"],
        "after": _after(row["created_at"], began),
    }


def _failed(verdict: JsonObject) -> Iterator[str]:
    for result in verdict.get("checks", ()):
        if result["status"] == "fail":
            yield result["check"]


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def _after(at: datetime, began: datetime) -> float:
    return round((at - began).total_seconds(), 3)

"""What a row of results means for an item: outcome, answer, tokens and money, and the result that callers get of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel

from guidance_agent.core.batches.states import BatchKind, Parts
from guidance_agent.core.types import JsonObject
from guidance_agent.errors import StructuredOutputError
from guidance_agent.llm.batch_request import BatchResult, Route
from guidance_agent.llm.messages import Completion, ModelCall, Timing, ToolCall, Usage
from guidance_agent.llm.reasoning_filter import separated
from guidance_agent.llm.structured import read_answer, read_as, read_object
from guidance_agent.llm.transports.base import RawCompletion
from guidance_agent.llm.transports.batches.base import ResultRow

__all__ = ["KnownItem", "values_of", "whole_result"]

_USAGE = tuple(field.name for field in fields(Usage))
_NOTHING: JsonObject = {}


class KnownItem(NamedTuple):
    """An item that a row of results is about; `schema` where an answer is to be held to it here."""

    id: str
    custom_id: str
    model: str
    has_schema: bool
    spent_usd: float
    metadata: Mapping[str, str] | None = None
    schema: Mapping[str, Any] | None = None


def values_of(parts: Parts, kind: BatchKind, item: KnownItem, row: ResultRow, *, route: Route) -> JsonObject:
    """Return what is to be written of an item: the same columns for every outcome."""
    values: JsonObject = {
        "state": "collected",
        "outcome": row.outcome,
        "result": None,
        "usage": None,
        "cost_usd": None,
        "interactive_usd": None,
        "spent_usd": item.spent_usd,
        "error": row.error,
        "error_type": None if row.error_type is None else row.error_type[:64],
        "collected_at": parts.clock.now(),
    }
    if row.answer is None:
        return values
    text, reasoning = _separated(row.answer)
    result: JsonObject = {
        "text": text,
        "reasoning": reasoning,
        "finish_reason": row.answer.finish_reason,
        "tool_calls": [asdict(call) for call in row.answer.tool_calls],
        "route": route,
    }
    if item.has_schema:
        # Said here, because whoever applies the result would have to look for it in the request.
        result["structured"] = True
    if row.simulated:
        result["simulated"] = True
    values["result"] = result
    if (usage := row.answer.usage) is not None:
        cost = parts.gateway.cost(item.model, usage, batch=route == "batch")
        interactive = parts.gateway.cost(item.model, usage)
        values |= {
            "usage": {name: getattr(usage, name) for name in _USAGE},
            "cost_usd": None if cost is None else cost.usd,
            "interactive_usd": None if interactive is None else interactive.usd,
            "spent_usd": item.spent_usd + (0.0 if cost is None else cost.usd),
        }
    if item.has_schema and not row.answer.tool_calls:
        try:
            _parsed(kind, _completion(item, row.answer, kind.operation, values["collected_at"]), item.schema)
        except StructuredOutputError as error:
            values |= {"outcome": "invalid", "error": str(error), "error_type": f"StructuredOutputError:{error.kind}"}
    return values


def whole_result(kind: BatchKind, row: Mapping[str, Any]) -> BatchResult:
    """Return what callers get of an item that has its final outcome; `row` joins it with its batch's `model`."""
    result = row["result"] or _NOTHING
    calls = tuple([ToolCall(**call) for call in result.get("tool_calls", ())])
    success = row["outcome"] == "succeeded"
    parsed = None
    if success and result.get("structured") and not calls:
        answer = RawCompletion(text=result["text"], finish_reason=result["finish_reason"], usage=None)
        item = KnownItem(row["id"], row["custom_id"], row["model"], True, 0.0)
        parsed = _parsed(kind, _completion(item, answer, kind.operation, row["collected_at"]))
    submitted, collected = row["created_at"], row["collected_at"]
    return BatchResult(
        custom_id=row["custom_id"],
        success=success,
        outcome=row["outcome"],
        response=result.get("text"),
        parsed=parsed,
        tool_calls_made=calls,
        usage=None if row["usage"] is None else Usage(**row["usage"]),
        cost=None if row["usage"] is not None and row["cost_usd"] is None else row["spent_usd"],
        interactive_cost=row["interactive_usd"],
        error=row["error"],
        error_type=row["error_type"],
        attempts=row["round"],
        elapsed=None if collected is None else (collected - submitted).total_seconds(),
        metadata=row["metadata"],
        route=result.get("route", "batch"),
        simulated=result.get("simulated", False),
        finish_reason=result.get("finish_reason"),
    )


def _parsed(kind: BatchKind, completion: Completion, schema: Mapping[str, Any] | None = None) -> BaseModel | JsonObject:
    if kind.output is not None:
        return read_answer(completion, kind.output)
    if schema is None:
        return read_object(completion)
    read: JsonObject = read_as(completion, schema)[0]
    return read


def _separated(answer: RawCompletion) -> tuple[str, str]:
    """Return what the customer may see of an answer, and what the model said to itself."""
    text, inner = separated(answer.text, cut_off=answer.finish_reason not in ("stop", "tool_calls"))
    return text, answer.reasoning + inner


def _completion(item: KnownItem, answer: RawCompletion, operation: str, at: datetime) -> Completion:
    text, reasoning = _separated(answer)
    call = ModelCall(
        id=item.id,
        operation=operation,
        model=item.model,
        requested_model=item.model,
        provider=item.model.partition("/")[0],
        transport="batch",
        started_at=at,
        outcome="completed",
        finish_reason=answer.finish_reason,
        attempts=1,
        timing=Timing(),
        usage=answer.usage,
        cost=None,
        cache_outcome="unknown",
        cache_parts={},
        cache_use={},
        simulated=False,
        request_id=answer.request_id,
        error=None,
        metadata={},
    )
    return Completion(
        text=text,
        reasoning=reasoning,
        finish_reason=answer.finish_reason,
        tool_calls=answer.tool_calls,
        call=call,
    )

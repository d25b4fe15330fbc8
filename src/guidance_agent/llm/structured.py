"""Typed answers: JSON asked of a model, read strictly, and asked for again where the caller says so.

Where the model holds its answers to a JSON Schema itself, the schema goes with the request; to any other model the
schema is shown in a system message of its own, after those of the request. Either way the answer is read by the rules
of `llm/structured_reading.py`.

Unless the caller says otherwise nothing is repaired and nothing is asked twice: that is how judges read. `attempts` and
`repair` are for everybody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, overload

from pydantic import BaseModel

from guidance_agent.errors import StructuredOutputError
from guidance_agent.llm.json_faults import FaultClass, JsonFault, analyze_json_error
from guidance_agent.llm.messages import Completion, Message, ModelRequest
from guidance_agent.llm.structured_reading import read_answer, read_as, read_object
from guidance_agent.llm.structured_retry import RetryStrategy, get_retry_strategy, next_request
from guidance_agent.llm.structured_schema import Schema, answer_schema, asking_in_words, schema_of
from guidance_agent.llm.transports.base import PreparedCall

__all__ = [
    "Answered",
    "FaultClass",
    "JsonFault",
    "RetryStrategy",
    "Schema",
    "StructuredCompletion",
    "StructuredDoor",
    "analyze_json_error",
    "answer_schema",
    "asking_in_words",
    "complete",
    "get_retry_strategy",
    "read_answer",
    "read_as",
    "read_object",
    "schema_of",
    "typed_request",
]


Output = TypeVar("Output", bound=BaseModel)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredCompletion(Generic[Value]):
    """An answer that was read, and the call that it came from.

    `repairs` says what was repaired before it could be read, `attempts` how often it was asked for; `completion` is the
    last of these calls.
    """

    value: Value
    completion: Completion
    attempts: int = 1
    repairs: tuple[str, ...] = ()


class Answered(NamedTuple):
    """An answer, and the messages that it was given to: the request's, and what tools said meanwhile."""

    completion: Completion
    messages: tuple[Message, ...]


class StructuredDoor(Protocol):
    """What typed answers need of the gateway."""

    async def routed(self, request: ModelRequest) -> tuple[PreparedCall, str]:
        """Return the prepared call, and the name of its transport."""

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the whole answer."""


Ask: TypeAlias = Callable[[ModelRequest], Awaitable[Answered]]


@overload
async def complete(
    gateway: StructuredDoor,
    request: ModelRequest,
    *,
    output: type[Output],
    thinking_tokens: int = 0,
    attempts: int = 1,
    repair: bool = False,
    ask: Ask | None = None,
) -> StructuredCompletion[Output]: ...


@overload
async def complete(
    gateway: StructuredDoor,
    request: ModelRequest,
    *,
    output: Schema,
    thinking_tokens: int = 0,
    attempts: int = 1,
    repair: bool = False,
    ask: Ask | None = None,
) -> StructuredCompletion[Any]: ...


async def complete(
    gateway: StructuredDoor,
    request: ModelRequest,
    *,
    output: Schema,
    thinking_tokens: int = 0,
    attempts: int = 1,
    repair: bool = False,
    ask: Ask | None = None,
) -> StructuredCompletion[Any]:
    """Ask for an answer of the type `output` and return it.

    Args:
        gateway: The way to the model.
        request: The request; its `response_schema` is replaced by that of `output`.
        output: The pydantic model that the answer must be, or a JSON Schema of an object.
        thinking_tokens: Added to `max_tokens` where the model cannot but think, and what it thinks counts.
        attempts: How often an answer that cannot be read is asked for: with a correction for what is wrong with it,
            at a falling temperature.
        repair: Whether what is safe to repair is repaired; see `llm/json_repairs.py`.
        ask: Asks instead of the gateway, such as with tools.

    Raises:
        StructuredOutputError: no answer can be read; it is the last one's error.
        ModelError: the call failed, after retries and fallbacks.
        ConfigurationError: the model cannot be called as things are set up.
    """
    first = asked = await typed_request(gateway, request, output, thinking_tokens=thinking_tokens)
    spent: float | None = 0.0
    attempt = 0
    while True:
        attempt += 1
        if ask is None:
            completion, messages = await gateway.complete(asked), asked.messages
        else:
            completion, messages = await ask(asked)
        try:
            value, repairs = read_as(completion, output, repair=repair)
        except StructuredOutputError as error:
            spent = None if spent is None or error.cost_usd is None else spent + error.cost_usd
            error.cost_usd, error.attempts = spent, attempt
            following = next_request(
                first,
                first.messages if ask is None else messages,
                error,
                text=completion.text,
                attempt=attempt,
                limit=asked.max_tokens,
            )
            if attempt >= attempts or following is None:
                raise
            asked = following
        else:
            return StructuredCompletion(value=value, completion=completion, attempts=attempt, repairs=repairs)
        if completion.call.cost is None:
            spent = None


async def typed_request(
    gateway: StructuredDoor, request: ModelRequest, output: Schema, *, thinking_tokens: int = 0
) -> ModelRequest:
    """Return the request as it is sent to have an answer of the type `output`, with its schema or words for it."""
    schema = schema_of(output)
    call, _ = await gateway.routed(request)
    holds_schemas = call.traits.native_schema
    limit = request.max_tokens + (thinking_tokens if call.traits.always_thinks else 0)
    asked = replace(request, response_schema=schema if holds_schemas else None, max_tokens=limit)
    if not holds_schemas or request.fallbacks:
        asked = replace(asked, messages=asking_in_words(request.messages, schema))
    return asked

"""Typed answers: JSON asked of a model, and read without a second thought for what it may have meant.

Where the model holds its answers to a JSON Schema itself, the schema goes with the request; to any other model the
schema is shown in a system message of its own, after those of the request. Either way the answer is read strictly:

- The whole text is one JSON object. Blanks around it are allowed; a code fence, a sentence, a second object are not,
  because whoever takes the object out of its surroundings decides which words count.
- A key stands once in an object. `NaN`, infinities and numbers too large to be numbers are no JSON.
- Types are what the schema says: no `"95%"` for a number, no `"true"`, no `1` for `true`. Fields that nobody asked for
  are an error.
- An answer that was refused, or that stopped anywhere but at its end, is not read at all.

Nothing is repaired. What fails is a `StructuredOutputError` that says why and where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from guidance_agent.errors import StructuredOutputError, StructuredOutputKind
from guidance_agent.llm.messages import Completion, FinishReason, Message, ModelRequest

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["StructuredCompletion", "answer_schema", "asking_in_words", "complete", "read_answer", "read_object"]

Output = TypeVar("Output", bound=BaseModel)

_JSON_BLANKS = " \t\r\n"
_EXCERPT = 60
_FAULTS_TOLD = 3

# Providers refuse schemas with these; what they demand is told in words and checked when the answer is read.
_BOUNDS: Mapping[str, str] = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "pattern": "matches",
    "minItems": "items at least",
    "maxItems": "items at most",
}
_LEFT_OUT = frozenset({"title", "default", "uniqueItems"})
_OF_SCHEMAS_BY_NAME = frozenset({"properties", "$defs"})
_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})

_NOT_AN_END: Mapping[FinishReason, tuple[StructuredOutputKind, str]] = {
    "refusal": ("refusal", "was refused"),
    "content_filter": ("refusal", "was held back by the provider's filter"),
    "length": ("truncated", "was cut off at its longest length"),
    "tool_calls": ("unfinished", "ended with a call of a tool"),
    "pause": ("unfinished", "was paused"),
    "other": ("unfinished", "ended for a reason that is not known"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredCompletion(Generic[Output]):
    """An answer that was read, and the call that it came from."""

    value: Output
    completion: Completion


async def complete(
    gateway: ModelGateway, request: ModelRequest, *, output: type[Output], thinking_tokens: int = 0
) -> StructuredCompletion[Output]:
    """Ask for an answer of the type `output` and return it.

    Args:
        gateway: The way to the model.
        request: The request; its `response_schema` is replaced by that of `output`.
        output: The pydantic model that the answer must be.
        thinking_tokens: Added to `max_tokens` where the model cannot but think, and what it thinks counts.

    Raises:
        StructuredOutputError: the answer is none that can be read.
        ModelError: the call failed, after retries and fallbacks.
        ConfigurationError: the model cannot be called as things are set up.
    """
    schema = answer_schema(output)
    call, _ = await gateway.routed(request)
    holds_schemas = call.traits.native_schema
    limit = request.max_tokens + (thinking_tokens if call.traits.always_thinks else 0)
    asked = replace(request, response_schema=schema if holds_schemas else None, max_tokens=limit)
    if not holds_schemas or request.fallbacks:
        asked = replace(asked, messages=asking_in_words(request.messages, schema))
    completion = await gateway.complete(asked)
    return StructuredCompletion(value=read_answer(completion, output), completion=completion)


def answer_schema(output: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of `output` in the words that every provider with schemas of its own takes.

    Objects are closed and all their fields required. Bounds of numbers, texts and lists become descriptions.
    """
    return _portable(output.model_json_schema())


def read_answer(completion: Completion, output: type[Output]) -> Output:
    """Return what a whole answer says.

    Raises:
        StructuredOutputError: it cannot be read, by the rules of the module.
    """
    text = _read_json(completion)
    try:
        return output.model_validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise _schema_error(completion, error) from error


def read_object(completion: Completion) -> dict[str, Any]:
    """Return the JSON object that a whole answer is, where its type is not known here.

    Raises:
        StructuredOutputError: it cannot be read, or is no object.
    """
    value: object = json.loads(_read_json(completion))
    if not isinstance(value, dict):
        raise _error(completion, "wrong_schema", "is no JSON object")
    return value


def _read_json(completion: Completion) -> str:
    """Return the JSON text of a whole answer, once it is known that it is one."""
    if completion.finish_reason in _NOT_AN_END:
        kind, what = _NOT_AN_END[completion.finish_reason]
        raise _error(completion, kind, f"{what}")
    text = completion.text.strip(_JSON_BLANKS)
    if not text:
        raise _error(completion, "empty", "is empty")
    _check_json(completion, text)
    return text


def _check_json(completion: Completion, text: str) -> None:
    """Raise unless the text is one JSON value that every reader of JSON would read alike."""
    offset = completion.text.index(text)
    try:
        _, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise _error(completion, "not_json", f"is no JSON ({error.msg})", offset + error.pos) from error
    except _RepeatedKey as error:
        raise _error(completion, "repeated_key", "says the same key twice in one object") from error
    except (ValueError, RecursionError) as error:
        raise _error(completion, "not_json", "holds a number or a depth that JSON does not have") from error
    if text[end:].strip(_JSON_BLANKS):
        raise _error(completion, "extra_text", "goes on after its JSON", offset + end)


class _RepeatedKey(ValueError):
    pass


def _object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _RepeatedKey
    return made


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object_of, parse_constant=_no_number, parse_float=_finite)


def _schema_error(completion: Completion, error: ValidationError) -> StructuredOutputError:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        return _error(completion, "not_json", "is no JSON that can be written in UTF-8")
    places = [".".join(str(part)[:_EXCERPT] for part in fault["loc"]) for fault in faults]
    told = [f"{place or 'the answer'}: {fault['msg']}" for place, fault in zip(places, faults, strict=True)]
    more = f" and {len(told) - _FAULTS_TOLD} more" if len(told) > _FAULTS_TOLD else ""
    what = f"is not what was asked for ({'; '.join(told[:_FAULTS_TOLD])}{more})"
    return _error(completion, "wrong_schema", what, path=places[0])


def _error(
    completion: Completion,
    kind: StructuredOutputKind,
    what: str,
    position: int | None = None,
    *,
    path: str | None = None,
) -> StructuredOutputError:
    call, start = completion.call, position or 0
    where = "" if position is None else f" at character {position}"
    return StructuredOutputError(
        f"The answer of {call.model!r} for {call.operation!r} {what}{where}. Ask again, or choose another model.",
        kind=kind,
        position=position,
        path=path,
        excerpt=completion.text[start : start + _EXCERPT],
        provider=call.provider,
        model=call.model,
        request_id=call.request_id,
        cost_usd=None if call.cost is None else call.cost.usd,
        simulated=call.simulated,
    )


def asking_in_words(messages: Sequence[Message], schema: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the messages with the schema after those of the system, where it breaks no cached prefix."""
    place = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    words = _instruction().replace("{schema}", json.dumps(schema, ensure_ascii=False))
    return (*messages[:place], Message("system", words), *messages[place:])


@lru_cache(maxsize=1)
def _instruction() -> str:
    return (resources.files("guidance_agent.llm") / "templates" / "json_answer.md").read_text(encoding="utf-8")


def _portable(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _OF_SCHEMAS_BY_NAME:
            made[key] = {name: _portable(inner) for name, inner in value.items()}
        elif key in _OF_SCHEMAS:
            made[key] = [_portable(inner) for inner in value]
        elif key == "items" and isinstance(value, Mapping):
            made[key] = _portable(value)
        elif key not in _LEFT_OUT and key not in _BOUNDS:
            made[key] = value
    bounds = [f"{words} {schema[key]}" for key, words in _BOUNDS.items() if key in schema]
    if bounds:
        made["description"] = "; ".join(filter(None, [made.get("description", ""), ", ".join(bounds)]))
    if "properties" in made:
        made["required"] = list(made["properties"])
        made["additionalProperties"] = False
    return made

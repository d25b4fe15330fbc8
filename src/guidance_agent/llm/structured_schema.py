"""Schemas as every provider takes them, and in words for models that hold their answers to none."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, TypeAlias

from pydantic import BaseModel

from guidance_agent.errors import BatchRequestError
from guidance_agent.llm.messages import Message
from guidance_agent.llm.schema_check import schema_fault

__all__ = ["Schema", "answer_schema", "asking_in_words", "schema_of"]

Schema: TypeAlias = "type[BaseModel] | Mapping[str, Any]"
"""A pydantic model, or a JSON Schema."""

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


def answer_schema(output: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of `output` in the words that every provider with schemas of its own takes.

    Objects are closed and all their fields required. Bounds of numbers, texts and lists become descriptions.
    """
    return copy.deepcopy(_answer_schema(output))


@lru_cache(maxsize=128)
def _answer_schema(output: type[BaseModel]) -> dict[str, Any]:
    return _portable(output.model_json_schema())


def schema_of(output: Schema) -> Mapping[str, Any]:
    """Return the JSON Schema that a provider is sent for `output`.

    Raises:
        BatchRequestError: it is none.
    """
    if isinstance(output, type) and issubclass(output, BaseModel):
        return answer_schema(output)
    given: object = output
    fault = schema_fault(output) if isinstance(given, Mapping) else f"is {given!r:.80}"
    if fault is not None:
        raise BatchRequestError(f"The schema of an answer is none: it {fault}. Give a pydantic model or a JSON Schema.")
    return output


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

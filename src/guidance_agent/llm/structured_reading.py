"""Whole answers read as JSON, strictly: without a second thought for what they may have meant.

- The whole text is one JSON object. Blanks around it are allowed; a code fence, a sentence, a second object are not,
  because whoever takes the object out of its surroundings decides which words count.
- A key stands once in an object. `NaN`, infinities and numbers too large to be numbers are no JSON.
- Types are what the schema says: no `"95%"` for a number, no `"true"`, no `1` for `true`. Fields that nobody asked for
  are an error.
- An answer that was refused, or that stopped anywhere but at its end, is not read at all.

What fails is a `StructuredOutputError` that says why and where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from guidance_agent.errors import StructuredOutputError, StructuredOutputKind
from guidance_agent.llm.json_faults import FaultClass, JsonFault, analyze_json_error
from guidance_agent.llm.json_repairs import repair as repair_text
from guidance_agent.llm.messages import Completion, FinishReason
from guidance_agent.llm.structured_schema import Schema

__all__ = ["read_answer", "read_as", "read_object"]

Output = TypeVar("Output", bound=BaseModel)

_EXCERPT = 60

_JSON_BLANKS = " \t\r\n"

_FAULTS_TOLD = 3

_NOT_AN_END: Mapping[FinishReason, tuple[StructuredOutputKind, str]] = {
    "refusal": ("refusal", "was refused"),
    "content_filter": ("refusal", "was held back by the provider's filter"),
    "length": ("truncated", "was cut off at its longest length"),
    "tool_calls": ("unfinished", "ended with a call of a tool"),
    "pause": ("unfinished", "was paused"),
    "other": ("unfinished", "ended for a reason that is not known"),
}

_FAULTS: Mapping[FaultClass, str] = {
    "trailing_comma": "a comma before a closing bracket",
    "unterminated": "it ends while something is open",
    "missing_value": "a value is missing",
    "wrong_structure": "its grammar is broken",
    "extra_data": "there is something besides the JSON",
    "schema_violation": "its fields are wrong",
}


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


def read_as(completion: Completion, output: Schema, *, repair: bool = False) -> tuple[Any, tuple[str, ...]]:
    """Return what a whole answer says, and what was repaired in it.

    Args:
        completion: The answer.
        output: The pydantic model that it must be, or a JSON Schema.
        repair: Whether what is safe to repair is repaired.

    Raises:
        StructuredOutputError: it cannot be read, by the rules of the module.
    """
    try:
        return _read(completion, output), ()
    except StructuredOutputError as error:
        if not repair or error.kind not in ("not_json", "extra_text"):
            raise
        mended = repair_text(completion.text, ended=completion.finish_reason == "stop")
        if mended is None:
            raise
        try:
            return _read(replace(completion, text=mended.text), output), mended.repairs
        except StructuredOutputError as still:
            raise still from error


def read_object(completion: Completion) -> dict[str, Any]:
    """Return the JSON object that a whole answer is, where its type is not known here.

    Raises:
        StructuredOutputError: it cannot be read, or is no object.
    """
    value: object = json.loads(_read_json(completion))
    if not isinstance(value, dict):
        raise _error(completion, "wrong_schema", "is no JSON object", fault=JsonFault(kind="wrong_structure"))
    return value


def _read(completion: Completion, output: Schema) -> Any:
    if isinstance(output, type):
        return read_answer(completion, output)
    value = read_object(completion)
    # Loaded on first use: only schemas that are no pydantic models need it.
    validator = import_module("jsonschema").Draft202012Validator(output)
    faults = [(".".join(map(str, fault.absolute_path)), fault.message) for fault in validator.iter_errors(value)]
    if faults:
        raise _faulty(completion, tuple(faults))
    return value


def _read_json(completion: Completion) -> str:
    """Return the JSON text of a whole answer, once it is known that it is one."""
    if completion.finish_reason in _NOT_AN_END:
        kind, what = _NOT_AN_END[completion.finish_reason]
        fault = JsonFault(kind="unterminated") if kind == "truncated" else None
        raise _error(completion, kind, f"{what}", fault=fault)
    text = completion.text.strip(_JSON_BLANKS)
    if not text:
        raise _error(completion, "empty", "is empty", fault=JsonFault(kind="wrong_structure"))
    _check_json(completion, text)
    return text


def _check_json(completion: Completion, text: str) -> None:
    """Raise unless the text is one JSON value that every reader of JSON would read alike."""
    offset = completion.text.index(text)
    try:
        _, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        fault = analyze_json_error(error, completion.text)
        what = f"is no JSON ({_FAULTS[fault.kind]})"
        position = offset + error.pos if fault.position is None else fault.position
        raise _error(completion, "not_json", what, position, fault=fault) from error
    except _RepeatedKey as error:
        what, fault = "says the same key twice in one object", JsonFault(kind="wrong_structure")
        raise _error(completion, "repeated_key", what, fault=fault) from error
    except (ValueError, RecursionError) as error:
        fault = analyze_json_error(error, completion.text)
        what = "holds a number or a depth that JSON does not have"
        raise _error(completion, "not_json", what, fault=fault) from error
    if text[end:].strip(_JSON_BLANKS):
        fault = JsonFault(kind="extra_data", position=offset + end)
        raise _error(completion, "extra_text", "goes on after its JSON", offset + end, fault=fault)


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
        fault = JsonFault(kind="wrong_structure")
        return _error(completion, "not_json", "is no JSON that can be written in UTF-8", fault=fault)
    places = [".".join(str(part)[:_EXCERPT] for part in fault["loc"]) for fault in faults]
    return _faulty(completion, tuple((place, fault["msg"]) for place, fault in zip(places, faults, strict=True)))


def _faulty(completion: Completion, fields: tuple[tuple[str, str], ...]) -> StructuredOutputError:
    told = [f"{place or 'the answer'}: {what}" for place, what in fields]
    more = f" and {len(told) - _FAULTS_TOLD} more" if len(told) > _FAULTS_TOLD else ""
    what = f"is not what was asked for ({'; '.join(told[:_FAULTS_TOLD])}{more})"
    kind: FaultClass = "schema_violation" if fields[0][0] else "wrong_structure"
    return _error(completion, "wrong_schema", what, path=fields[0][0], fault=JsonFault(kind=kind, fields=fields))


def _error(
    completion: Completion,
    kind: StructuredOutputKind,
    what: str,
    position: int | None = None,
    *,
    path: str | None = None,
    fault: JsonFault | None = None,
) -> StructuredOutputError:
    call, start = completion.call, position or 0
    where = "" if position is None else f" at character {position}"
    return StructuredOutputError(
        f"The answer of {call.model!r} for {call.operation!r} {what}{where}. Ask again, or choose another model.",
        kind=kind,
        position=position,
        path=path,
        excerpt=completion.text[start : start + _EXCERPT],
        fault=fault,
        provider=call.provider,
        model=call.model,
        request_id=call.request_id,
        cost_usd=None if call.cost is None else call.cost.usd,
        simulated=call.simulated,
    )

"""What is wrong with a text that should be JSON: one class of fault, and the character where it is.

A reader of its own walks the text as the grammar has it and knows at each moment what may follow. The class comes from
what was expected and what stood there, never from the words of an error message, which change from version to version.

| class | the text |
|---|---|
| `trailing_comma` | has a comma before a closing bracket |
| `unterminated` | ends inside a text, a value or open brackets |
| `missing_value` | has a key without a value, or two commas in a row |
| `extra_data` | goes on after its JSON, or has words or a code fence around it |
| `wrong_structure` | breaks the grammar in another way, or is not the object that was asked for |
| `schema_violation` | is JSON, but fields are not what was asked for |
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pydantic import ValidationError

__all__ = ["FaultClass", "JsonFault", "OpenText", "analyze_json_error", "find_fault", "open_at_end"]

FaultClass: TypeAlias = Literal[
    "trailing_comma", "unterminated", "missing_value", "wrong_structure", "extra_data", "schema_violation"
]
_State: TypeAlias = Literal["value", "first_value", "first_key", "key", "colon", "comma", "end"]

_BLANKS = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_OPEN_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z')
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.+-])")
_OPEN_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][+-]?)?)?\Z")
_LITERAL = re.compile(r"(?:true|false|null)\b")
_LITERALS = ("true", "false", "null")
_CLOSES = {"{": "}", "[": "]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFault:
    """What is wrong with an answer.

    Attributes:
        kind: The class.
        position: The character where reading failed; None where no single one is to blame.
        fields: For `schema_violation`: each field that breaks the schema, and why.
    """

    kind: FaultClass
    position: int | None = None
    fields: tuple[tuple[str, str], ...] = ()


class OpenText(NamedTuple):
    """What is open where a text ends too early.

    Attributes:
        closing: The brackets that would close it.
        state: What the reader waits for.
        string: Where the open text inside quotation marks begins; None outside of one.
    """

    closing: str
    state: str
    string: int | None


def analyze_json_error(error: Exception, text: str) -> JsonFault:
    """Return what is wrong with `text`, for whose sake `error` was raised.

    Args:
        error: A `json.JSONDecodeError`, a pydantic `ValidationError`, or whatever else reading raised.
        text: The whole answer.
    """
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        if not any(fault["type"] == "json_invalid" for fault in faults):
            fields = tuple((".".join(map(str, fault["loc"])), fault["msg"]) for fault in faults)
            kind: FaultClass = "wrong_structure" if fields[0][0] == "" else "schema_violation"
            return JsonFault(kind=kind, fields=fields)
    found = find_fault(text)
    if found is not None:
        return found
    return JsonFault(kind="wrong_structure", position=error.pos if isinstance(error, json.JSONDecodeError) else None)


def find_fault(text: str) -> JsonFault | None:
    """Return the first fault of a text, or None where it is one JSON value."""
    reader = _Reader(text)
    fault = reader.read(0)
    if fault is not None and fault.kind == "wrong_structure" and reader.at_start:
        return _around(text, fault)
    return fault


def open_at_end(text: str) -> OpenText | None:
    """Return what is open at the end of a text that is JSON as far as it goes; None where it is not."""
    reader = _Reader(text)
    fault = reader.read(0)
    if fault is None or fault.kind != "unterminated" or reader.at_start:
        return None
    return OpenText("".join(_CLOSES[each] for each in reversed(reader.stack)), reader.state, reader.open_string)


def _around(text: str, fault: JsonFault) -> JsonFault:
    """Return the fault of a text that begins with something else than JSON: whether there is JSON inside of it."""
    for found in re.finditer(r"[{\[]", text):
        inner = _Reader(text)
        after = inner.read(found.start())
        if after is None or after.kind == "extra_data":
            return JsonFault(kind="extra_data", position=fault.position)
        if after.kind == "unterminated" and text.lstrip().startswith("```"):
            return after
        break
    return fault


class _Reader:
    """Walks a text by the grammar of JSON."""

    def __init__(self, text: str) -> None:
        self.stack: list[str] = []
        self.state: _State = "value"
        self.at_start = True
        self.open_string: int | None = None
        self._text = text

    def read(self, place: int) -> JsonFault | None:
        """Read one value from `place` on; return the first fault."""
        text = self._text
        while True:
            place = self._after_blanks(place)
            if place >= len(text):
                if self.state == "end":
                    return None
                if self.at_start:
                    return JsonFault(kind="wrong_structure", position=place)
                return JsonFault(kind="unterminated", position=len(text.rstrip()))
            if self.state == "end":
                return JsonFault(kind="extra_data", position=place)
            after = self._step(place, text[place])
            if isinstance(after, JsonFault):
                return after
            self.at_start = False
            place = after

    def _after_blanks(self, place: int) -> int:
        found = _BLANKS.match(self._text, place)
        return place if found is None else found.end()

    def _step(self, place: int, character: str) -> int | JsonFault:
        match self.state:
            case "first_key" | "key":
                return self._key(place, character)
            case "colon":
                if character == ":":
                    self.state = "value"
                    return place + 1
                return self._fault("missing_value" if character in ",}]" else "wrong_structure", place)
            case "comma":
                return self._next_or_close(place, character)
            case _:
                return self._value(place, character)

    def _key(self, place: int, character: str) -> int | JsonFault:
        if character == '"':
            after = self._string(place)
            if isinstance(after, int):
                self.state = "colon"
            return after
        if character == "}":
            return self._close(place) if self.state == "first_key" else self._fault("trailing_comma", place)
        return self._fault("missing_value" if character == "," else "wrong_structure", place)

    def _next_or_close(self, place: int, character: str) -> int | JsonFault:
        if character == ",":
            self.state = "key" if self.stack[-1] == "{" else "value"
            return place + 1
        if character == _CLOSES[self.stack[-1]]:
            return self._close(place)
        return self._fault("wrong_structure", place)

    def _value(self, place: int, character: str) -> int | JsonFault:
        if character in "{[":
            self.stack.append(character)
            self.state = "first_key" if character == "{" else "first_value"
            return place + 1
        if character in ",}]":
            return self._no_value(place, character)
        after = self._string(place) if character == '"' else self._scalar(place)
        if isinstance(after, int):
            self._valued()
        return after

    def _no_value(self, place: int, character: str) -> int | JsonFault:
        inside = self.stack[-1] if self.stack else ""
        if inside == "[" and character == "]":
            return self._close(place) if self.state == "first_value" else self._fault("trailing_comma", place)
        if inside and (character == "," or inside == "{"):
            return self._fault("missing_value", place)
        return self._fault("wrong_structure", place)

    def _string(self, place: int) -> int | JsonFault:
        if found := _STRING.match(self._text, place):
            return found.end()
        if _OPEN_STRING.match(self._text, place):
            self.open_string = place
            return self._fault("unterminated", place)
        return self._fault("wrong_structure", place)

    def _scalar(self, place: int) -> int | JsonFault:
        text = self._text
        if found := _LITERAL.match(text, place) or _NUMBER.match(text, place):
            return found.end()
        rest = text[place : place + 8]
        cut = any(word.startswith(rest) for word in _LITERALS) or _OPEN_NUMBER.match(text, place)
        return self._fault("unterminated" if cut and self.stack else "wrong_structure", place)

    def _close(self, place: int) -> int:
        self.stack.pop()
        self._valued()
        return place + 1

    def _valued(self) -> None:
        self.state = "comma" if self.stack else "end"

    def _fault(self, kind: FaultClass, place: int) -> JsonFault:
        return JsonFault(kind=kind, position=place)

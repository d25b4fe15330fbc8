"""Values that satisfy a JSON Schema, the same for the same schema and seed."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from guidance_agent.provider_simulator.answers.judgement import Steer

__all__ = ["value_for_schema"]

_DEEPEST = 12
_FAVOURED = (
    *(
        "pass",
        "passed",
        "ok",
        "none",
        "no_breach",
        "compliant",
        "permitted",
        "allow",
        "release",
        "low",
        "valid",
        "keep",
    ),
)
_ADVERSE = ("fail", "failed", "breach", "non_compliant", "steer", "violation", "reject", "withhold", "replace", "high")
_ABOUT_ADVICE = re.compile(r"advice|boundary|steer|recommend", re.IGNORECASE)
_NO_WORDS = re.compile(
    r"breach|fail|error|review|escalat|urgent|reject|harm|unsafe|refus|steer|violat|contradict", re.I
)
_QUOTED = re.compile(r"quote|offset|start|end|excerpt|span", re.I)
_FORMATS = {
    "date": "2026-11-21",
    "date-time": "2026-11-21T09:00:00Z",
    "time": "09:00:00Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_STEERED = "The sentence tells the customer which way to go, which guidance must not do."
_SENTENCES = (
    "The text sets out the options with their risks and leaves the choice open.",
    "Nothing in the text points one way, and the figures carry their tax year.",
    "The explanation is balanced and names where free help can be found.",
)


class _Generator:
    def __init__(self, root: Mapping[str, Any], seed: int, steer: Steer | None) -> None:
        self._root = root
        self._steer = steer
        self._rng = random.Random(seed)

    def value(self, schema: Any, name: str, depth: int) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema["enum"], name)
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.value(self._branch(schema[key], depth), name, depth)
        if schema.get("allOf"):
            return self.value(_merged([self._resolved(part) for part in schema["allOf"]], schema), name, depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((k for k in kind if k != "null"), "null") if depth < _DEEPEST else kind[-1]
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        return self._typed(str(kind), schema, name, depth)

    def _typed(self, kind: str, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "string":
                return self._string(schema, name)
            case "integer":
                return int(self._number(schema, name, whole=True))
            case "number":
                return self._number(schema, name, whole=False)
            case "boolean":
                return bool(_NO_WORDS.search(name)) == (self._steer is not None)
            case _:
                return None

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        if not isinstance(schema, Mapping):
            return {}
        resolved: dict[str, Any] = dict(schema)
        for _ in range(_DEEPEST):
            if "$ref" not in resolved:
                break
            target: Any = self._root
            for part in str(resolved.pop("$ref")).lstrip("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")] if part else target
            resolved = {**target, **resolved}
        return resolved

    def _branch(self, branches: Sequence[Any], depth: int) -> Any:
        resolved = [self._resolved(branch) for branch in branches]
        plain = [branch for branch in resolved if branch.get("type") != "null"]
        if depth >= _DEEPEST or not plain:
            return next((branch for branch in resolved if branch.get("type") == "null"), resolved[0])
        return plain[0]

    def _choice(self, values: Sequence[Any], name: str) -> Any:
        for favoured in _FAVOURED if self._steer is None else _ADVERSE:
            for value in values:
                if isinstance(value, str) and value.lower() == favoured:
                    return value
        return values[0]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", ())
        wanted = [name for name in properties if name in required or depth < _DEEPEST // 2]
        made = {name: self.value(properties[name], name, depth + 1) for name in wanted}
        for name in required:
            made.setdefault(name, self.value(schema.get("additionalProperties", {}), name, depth + 1))
        return made

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", 1_000_000))
        if schema.get("prefixItems"):
            return [self.value(item, name, depth + 1) for item in schema["prefixItems"]]
        items = self._resolved(schema.get("items", {}))
        listed = self._one_per_choice(items)
        if listed is not None and least <= len(listed[1]) <= most:
            return [self._finding(items, listed[0], choice, depth) for choice in listed[1]]
        empty = depth >= _DEEPEST or _NO_WORDS.search(name)
        count = min(most, max(least, 0 if empty else 1))
        if schema.get("uniqueItems") and "enum" in items:
            return list(items["enum"][:count])
        return [self.value(items, name, depth + 1) for _ in range(count)]

    def _finding(self, items: Mapping[str, Any], key: str, choice: Any, depth: int) -> dict[str, Any]:
        steer = self._steer
        if not _ABOUT_ADVICE.search(str(choice)):
            self._steer = None
        made = {**self.value(items, key, depth + 1), key: choice}
        self._steer = steer
        return made

    def _one_per_choice(self, items: Mapping[str, Any]) -> tuple[str, Sequence[Any]] | None:
        # A list of findings that are told apart by a closed list of names is complete only with one for each.
        for key in ("check", "check_id", "id", "name", "kind", "requirement", "criterion"):
            schema = self._resolved(items.get("properties", {}).get(key, {}))
            if len(schema.get("enum", ())) > 1:
                return key, schema["enum"]
        return None

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 1_000_000))
        if schema.get("pattern"):
            return _matching(str(schema["pattern"]), least, most)
        if self._steer is not None:
            return (self._steer.quote if _QUOTED.search(name) else _STEERED)[:most]
        text = "" if _QUOTED.search(name) and least == 0 else self._rng.choice(_SENTENCES)
        while len(text) < least:
            text = f"{text} {self._rng.choice(_SENTENCES)}".strip()
        return text[:most]

    def _number(self, schema: Mapping[str, Any], name: str, *, whole: bool) -> float:
        if self._steer is not None and re.search(r"start|end", name, re.IGNORECASE):
            return float(self._steer.start if "start" in name.lower() else self._steer.end)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None and high is None:
            value = 0.0 if _QUOTED.search(name) else 0.9 if "confidence" in name.lower() else 1.0
        elif low is None:
            value = float(high or 0) - 1
        elif high is None:
            value = float(low) + 1
        else:
            value = float(low) + (float(high) - float(low)) * 0.9
        if whole:
            value = float(int(value))
            if low is not None and value < low:
                value += 1
        step = schema.get("multipleOf")
        return value // step * step if step else round(value, 4)


def _merged(parts: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        for key, value in part.items():
            if key == "properties":
                made[key] = {**made.get(key, {}), **value}
            elif key == "required":
                made[key] = [*made.get(key, ()), *value]
            else:
                made[key] = value
    return made


def _matching(pattern: str, least: int, most: int) -> str:
    """A string for the simple patterns that schemas use; they are tried, not derived."""
    candidates = (
        "pass", "a", "A", "1", "AB-01", "R-ADV-1", "SP-01", "item-1", "2026-11-21", "2026/27", "a_b", "ABC", "0001",
    )  # fmt: skip
    for candidate in candidates:
        if least <= len(candidate) <= most and re.search(pattern, candidate):
            return candidate
    return "a" * max(least, 1)


def value_for_schema(schema: Mapping[str, Any], *, seed: int = 0, steer: Steer | None = None) -> Any:
    """A value that is valid under `schema` (objects, arrays, strings, numbers, enums, constants, unions, references).

    Lists whose items are told apart by a closed list of names get one item for each name; enums prefer the value that
    means "nothing wrong"; booleans are false where their name speaks of a failing. With a `steer` it is the other way
    round, in a list of findings only for the one about advice, and quotes and offsets are those of the steer.
    """
    return _Generator(schema, seed, steer).value(schema, "", 0)

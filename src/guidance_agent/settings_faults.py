"""What is wrong with settings, in words: one clause for each field, with the next step, and never a value.

A value may be a key that was put in the wrong place. So no clause repeats one, and a name that looks like a key is not
repeated either.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["faults_in_words", "misplaced_keys"]

# A key has a digit: names of files and folders that happen to begin alike seldom do, and are taken for what they are.
_KEY = re.compile(
    r"(?:Bearer\s+)?(?<![A-Za-z0-9_-])(?:(?:sk|pk|rk|gsk|xai|hf)[-_]|AIza)(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}"
)
_ABOUT_KEYS = re.compile(r"(?:^|_)(?:key|token|secret|password)$", re.IGNORECASE)
_MAY_HOLD_KEYS = frozenset({"api_key", "user_key", "database_url", "headers"})
_NUMBERS = frozenset({"float_parsing", "float_type", "int_parsing", "int_type", "int_from_float"})
_WHERE_KEYS_BELONG = (
    "Keys belong into the provider's own variable, which `guidance-agent models --all` names, or providers.NAME.api_key"
)


def faults_in_words(error: ValidationError, owner: type[BaseModel]) -> list[str]:
    """Return one clause for each fault of `error`, which came of validating `owner`."""
    return [
        f"{_place(item['loc'])}: {_fault(item['type'], item['loc'], item['msg'], owner)}" for item in error.errors()
    ]


def misplaced_keys(values: Mapping[str, Any]) -> list[str]:
    """Return one clause for each value that looks like a provider's key and stands where it would be shown."""
    told = f"this looks like a key. {_WHERE_KEYS_BELONG}, and one that stood in a place that is shown is replaced"
    return [f"{place}: {told}" for place in sorted(set(_keys_in(values, ())))]


def _keys_in(value: object, path: tuple[str | int, ...]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(name, str) and _KEY.fullmatch(name):
                yield _place((*path, name))
            elif name not in _MAY_HOLD_KEYS:
                yield from _keys_in(inner, (*path, name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys_in(inner, path)
    elif isinstance(value, str) and _KEY.search(value):
        yield _place(path)


def _place(path: Sequence[str | int]) -> str:
    return ".".join("<a key>" if _KEY.search(str(part)) else str(part) for part in path) or "settings"


def _fault(kind: str, path: Sequence[str | int], said: str, owner: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return _unknown(path, owner)
    if kind in _NUMBERS:
        return "must be a number without a unit (times are in seconds)"
    if kind in ("less_than_equal", "greater_than", "greater_than_equal") and _section(owner, path[:-1]) is not None:
        return f"{said} (times are in seconds, limits per minute)"
    return said.removeprefix("Value error, ")


def _unknown(path: Sequence[str | int], owner: type[BaseModel]) -> str:
    name = str(path[-1])
    if _ABOUT_KEYS.search(name) or _KEY.search(name):
        return f"is no setting. {_WHERE_KEYS_BELONG}"
    section = _section(owner, path[:-1])
    here = () if section is None else tuple(section.model_fields)
    close = difflib.get_close_matches(name, here, n=1)
    elsewhere = sorted((place for place in _names(owner) if place.rpartition(".")[2] == name), key=len)
    if close or elsewhere:
        prefix = "".join(f"{part}." for part in path[:-1])
        guesses = [f"{prefix}{close[0]}"] if close else elsewhere[:3]
        return f"is no setting. Did you mean {' or '.join(map(repr, guesses))}?"
    return f"is no setting. Use one of {', '.join(sorted(here))}" if here else "is no setting"


def _names(owner: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Return the settings and those of their sections, by their dotted names."""
    for name, field in owner.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            yield f"{prefix}{name}"
        else:
            is_table = getattr(field.annotation, "__origin__", None) is dict
            yield from _names(inner, f"{prefix}{name}.{'NAME.' if is_table else ''}")


def _section(owner: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model of the section at `path`, through tables by name and optional sections."""
    found: type[BaseModel] | None = owner
    is_table = False
    for part in path:
        if is_table:
            # A table's own names are the user's.
            is_table = False
            continue
        if found is None or part not in found.model_fields:
            return None
        annotation = found.model_fields[str(part)].annotation
        found = _model_of(annotation)
        is_table = getattr(annotation, "__origin__", None) is dict
    return found


def _model_of(annotation: Any) -> type[BaseModel] | None:
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)

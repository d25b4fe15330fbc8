"""Whether a JSON Schema that a caller gives is one that answers can be held to, found out before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any
from urllib.parse import unquote

__all__ = ["schema_fault"]


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Return what keeps a mapping from being a JSON Schema that stands alone; None where nothing does."""
    return _fault_of(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)
def _fault_of(text: str) -> str | None:
    # Loaded on first use: only schemas that are no pydantic models need it.
    validation = import_module("jsonschema")
    schema = json.loads(text)
    try:
        validation.Draft202012Validator.check_schema(schema)
    except validation.SchemaError as error:
        return f"says {error.message}"
    unknown = next((reference for reference in _references(schema) if not _is_within(schema, reference)), None)
    return None if unknown is None else f"refers to {unknown!r}, which is not in it"


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _is_within(schema: object, reference: str) -> bool:
    start, *steps = reference.split("/")
    for step in steps:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return False
    return start == "#"

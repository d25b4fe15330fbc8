"""JSON as the records keep it: the same text on every database, with characters that a person can read."""

from __future__ import annotations

import json
import math

from guidance_agent.core.text import is_storable

__all__ = ["stored_json"]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def stored_json(value: object) -> str:
    """Return the JSON text of `value`; what JSON has no number for becomes null, so that no row is lost to it."""
    try:
        text = _encode(value)
    except ValueError:
        value = _finite(value)
        text = _encode(value)
    # A lone surrogate can be escaped in JSON, and not be written in UTF-8.
    return text if is_storable(text) else json.dumps(value, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

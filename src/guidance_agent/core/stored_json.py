"""JSON as the records keep it: the same text on every database."""

from __future__ import annotations

import json
import math

__all__ = ["stored_json"]


def stored_json(value: object) -> str:
    """Return the JSON text of `value`; what JSON has no number for becomes null, so that no row is lost to it."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

"""Rows as JSON lines: those that go up, and the reading of those that come down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from guidance_agent.llm.transports.batch import load_object
from guidance_agent.llm.transports.batches.base import ResultRow

__all__ = ["encoded", "read_rows"]

_SHOWN = 120


def encoded(value: Mapping[str, Any]) -> bytes:
    """Return the JSON of an object, as interactive bodies are written."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def read_rows(
    lines: AsyncIterator[bytes], read: Callable[[str, Mapping[str, Any]], ResultRow]
) -> AsyncIterator[ResultRow]:
    """Yield what each line says; a line that says nothing gives a row without an id."""
    async for raw in lines:
        if not raw.strip():
            continue
        try:
            row = load_object(raw)
            wire_id = row["custom_id"]
            if not isinstance(wire_id, str):
                raise TypeError("its custom_id is no text")
            made = read(wire_id, row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            shown = raw[:_SHOWN].decode("utf-8", "replace")
            yield ResultRow(wire_id=None, error=f"{type(error).__name__}: {error} in {shown!r}")
            continue
        yield made

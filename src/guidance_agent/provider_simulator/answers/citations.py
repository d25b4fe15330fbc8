"""What a simulated model cites: entries that stand in the message behind a code, and never one that does not."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

__all__ = ["cite"]

_ENTRY = re.compile(r"^\[([0-9a-f]{6,64})\] ?(.*)\n(.*)$", re.MULTILINE)
_WORDS = "Simulated words: what these entries have in common was not examined."
_SENTENCE_END = re.compile(r"[.!?;:–—](?:\s|$)")
_MOST = 3
_LONGEST = 160


class _Entry(NamedTuple):
    code: str
    text: str


def cite(value: Any, message: str) -> None:
    """Have a value made for a schema name codes of the message, where its fields ask for evidence.

    Objects with a list `evidence` name the first codes; their `text` reports the first entry behind these, and their
    `words`, and a `summary` beside them, say that they are simulated. Nothing is changed where no code was shown.
    """
    entries = [_Entry(code, " ".join(text.split())) for code, _, text in _ENTRY.findall(message)]
    if entries and _fill(value, entries) and isinstance(value, dict) and isinstance(value.get("summary"), str):
        value["summary"] = _WORDS


def _fill(value: Any, entries: list[_Entry]) -> bool:
    """Fill every object that asks for evidence; True where there was one."""
    if isinstance(value, list):
        return any([_fill(each, entries) for each in value])
    if not isinstance(value, dict):
        return False
    if not isinstance(value.get("evidence"), list):
        return any([_fill(each, entries) for each in value.values()])
    value["evidence"] = [entry.code for entry in entries[:_MOST]]
    if isinstance(value.get("text"), str):
        value["text"] = f"Asked “{_SENTENCE_END.split(entries[0].text[:_LONGEST])[0]}”"
    if isinstance(value.get("words"), str):
        value["words"] = _WORDS
    return True

"""Repairs of JSON that change no value: each is safe alone, and what is repaired is still read strictly.

- `code_fence`: the whole answer is one code fence; what is inside is taken.
- `trailing_comma`: a comma before a closing bracket is left out.
- `closed_string`, `closed_brackets`: the model ended its answer and forgot to close what was open. An answer that was
  cut off at its longest length is never closed: what is missing there was meant to say something.

A text inside quotation marks is closed only where none of its characters could belong to the JSON around it, brackets
only after a whole value: a number at the very end may lack digits.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from guidance_agent.llm.json_faults import find_fault, open_at_end

__all__ = ["Repaired", "repair"]

_FENCE = re.compile(r"\s*```[A-Za-z0-9]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)
_STRUCTURAL = re.compile(r"[{}\[\]:\n\\]|,\s*$")
_MOST_COMMAS = 1_000


class Repaired(NamedTuple):
    """A text that can be read, and what was done to it."""

    text: str
    repairs: tuple[str, ...]


def repair(text: str, *, ended: bool) -> Repaired | None:
    """Return the text repaired, or None where that is not safe.

    Args:
        text: An answer that is no JSON.
        ended: Whether the model ended it by itself.
    """
    repairs: list[str] = []
    if (fence := _FENCE.fullmatch(text)) and "```" not in fence[1]:
        text = fence[1]
        repairs.append("code_fence")
    for _ in range(_MOST_COMMAS):
        fault = find_fault(text)
        if fault is None:
            return Repaired(text, tuple(repairs)) if repairs else None
        position = fault.position or 0
        if fault.kind == "trailing_comma":
            comma = text.rindex(",", 0, position)
            text = text[:comma] + text[comma + 1 :]
            _note(repairs, "trailing_comma")
        elif fault.kind == "unterminated" and ended and (closed := _closed(text)) is not None:
            text = closed.text
            for name in closed.repairs:
                _note(repairs, name)
        else:
            return None
    return None


def _closed(text: str) -> Repaired | None:
    found = open_at_end(text)
    if found is None:
        return None
    if found.string is not None:
        if found.state not in ("value", "first_value") or _STRUCTURAL.search(text, found.string + 1):
            return None
        names = ("closed_string", "closed_brackets") if found.closing else ("closed_string",)
        return Repaired(text + '"' + found.closing, names)
    last = text.rstrip()[-1:]
    if found.state != "comma" or not (last in '"}]' or text.rstrip().endswith(("true", "false", "null"))):
        return None
    return Repaired(text.rstrip() + found.closing, ("closed_brackets",))


def _note(repairs: list[str], name: str) -> None:
    if name not in repairs:
        repairs.append(name)

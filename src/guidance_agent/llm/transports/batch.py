"""Deltas gathered from all events that arrived together, and the checks that make foreign JSON safe to use."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from guidance_agent.llm.messages import Delta

__all__ = ["LARGEST_COUNT", "DeltaBatch", "count", "load_object", "mend"]

LARGEST_COUNT = (1 << 31) - 1
"""Largest count of tokens that is believed, and that an integer column of every database holds."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_HIGH_SURROGATES = ("\ud800", "\udbff")


def load_object(payload: str | bytes) -> dict[str, Any]:
    """Return the JSON object that `payload` is.

    Raises:
        ValueError: when it is not JSON, not an object, or nested too deeply to be read.
    """
    try:
        value = json.loads(payload)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error
    if type(value) is not dict:
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def count(value: object) -> int | None:
    """Return a token count that a provider wrote as a number or a string of one; None where it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value)
    return value if isinstance(value, int) and 0 <= value <= LARGEST_COUNT else None


def mend(text: str) -> str:
    """Return `text` without what UTF-8 or a database cannot hold: lone surrogates and NUL become U+FFFD."""
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text


class DeltaBatch:
    """Collects the pieces of one read; neighbouring pieces of text become one delta.

    Half of a surrogate pair at the end of a piece waits for the other half, so that the text does not depend on where
    a provider cuts it.
    """

    __slots__ = ("_deltas", "_half", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self._deltas: list[Delta] = []
        self._half = ""

    def add_text(self, piece: str) -> None:
        if self.reasoning:
            self._flush()
        self.text.append(piece)

    def add_reasoning(self, piece: str) -> None:
        if self.text:
            self._flush()
        self.reasoning.append(piece)

    def add(self, delta: Delta) -> None:
        self._flush()
        self._deltas.append(delta)

    def take(self, *, last: bool = False) -> list[Delta]:
        """Return what was gathered since the last call; `last` also gives up a half character that waits."""
        self._flush()
        if last and self._half:
            self._half = ""
            self._deltas.append(Delta(text="\ufffd", pieces=0))
        deltas, self._deltas = self._deltas, []
        return deltas

    def _flush(self) -> None:
        if self.text:
            pieces = len(self.text)
            text = "".join(self.text) if pieces > 1 else self.text[0]
            self.text.clear()
            if self._half or not text.isascii():
                text = self._halved(text)
            if text:
                self._deltas.append(Delta(text=mend(text), pieces=pieces))
        if self.reasoning:
            pieces = len(self.reasoning)
            text = mend("".join(self.reasoning))
            self.reasoning.clear()
            if text:
                self._deltas.append(Delta(reasoning=text, pieces=pieces))

    def _halved(self, text: str) -> str:
        text = self._half + text
        self._half = ""
        low, high = _HIGH_SURROGATES
        if text and low <= text[-1] <= high:
            self._half = text[-1]
            return text[:-1]
        return text

"""Text that comes in pieces of one size and leaves in pieces of another."""

from __future__ import annotations

import re
from collections import deque
from typing import Literal

from guidance_agent.llm.streaming.graphemes import cut_near, is_cut

__all__ = ["LONGEST_HELD", "PieceBuffer", "Unit"]

Unit = Literal["characters", "words", "sentences"]

LONGEST_HELD = 4_096
"""Characters without the end of a word or a sentence that are held; then they are handed out as they are."""

# What lies between two units; the next one begins where the match ends. A small letter after a full stop means that it
# ended an abbreviation.
_BETWEEN = {
    "words": re.compile(r"(?<=\S)\s+(?=\S)"),
    "sentences": re.compile(r"[.!?…][\"'”’)\]»]*\s+(?=[^\sa-z])|[。！？][」』”’]*(?=\S)|(?<=\S)[^\S\n]*\n\s*(?=\S)"),
}


class PieceBuffer:
    """Holds text until a piece of it is whole. Joined, what comes out is what went in, in the same order.

    The first text is never held. Pieces end with a word or a sentence, or have so many characters, and are never cut
    inside what a reader sees as one character unless that is longer than any language makes it.

    Args:
        unit: What is counted; None counts nothing: text is held until it is flushed or too long.
        size: How many units make a piece.
    """

    def __init__(self, unit: Unit | None, size: int) -> None:
        self._between = None if unit is None or unit == "characters" else _BETWEEN[unit]
        self._size = size
        self._limit = size if unit == "characters" else LONGEST_HELD
        self._whole: deque[str] = deque()
        self._parts: list[str] = []
        self._begun = False
        self.waiting = 0
        """Characters that are not in a whole piece yet."""

    @property
    def held(self) -> str:
        """Everything that was added and not taken."""
        return "".join((*self._whole, *self._parts))

    def add(self, text: str) -> None:
        """Add what has arrived."""
        self._parts.append(text)
        self.waiting += len(text)
        if self._between is not None or self.waiting > self._limit:
            self._cut()
        if not self._begun:
            self._begun = True
            self.flush()

    def take(self) -> str | None:
        """Return the next whole piece; None when there is none."""
        return self._whole.popleft() if self._whole else None

    def flush(self, *, last: bool = False) -> None:
        """Make a piece of everything that waits, but for half a character that the next text may complete."""
        text = "".join(self._parts)
        cut = len(text)
        if text and not last and "\ud800" <= text[-1] <= "\udbff":
            cut -= 1
        self._part(text, 0, cut)

    def _cut(self) -> None:
        text = "".join(self._parts)
        done = 0
        if self._between is not None:
            units = 0
            for between in self._between.finditer(text):
                units += 1
                if units >= self._size and is_cut(text, between.end()):
                    self._put(text[done : between.end()])
                    done, units = between.end(), 0
        while len(text) - done > self._limit:
            end = cut_near(text, done, done + self._limit)
            if end is None:
                break
            self._put(text[done:end])
            done = end
        self._part(text, done, done)

    def _part(self, text: str, start: int, end: int) -> None:
        self._put(text[start:end])
        rest = text[end:]
        self._parts = [rest] if rest else []
        self.waiting = len(rest)

    def _put(self, piece: str) -> None:
        if piece:
            self._whole.append(piece)

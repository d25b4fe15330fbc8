"""Finds what a judge quotes in the text that it judged.

A model copies words well and marks badly: it straightens quotation marks, joins lines, turns dashes into hyphens. So a
quote that is not found as it stands is looked for again with spaces, quotation marks, dashes and invisible characters
made alike on both sides. Letters and digits are never made alike: other words are no quote.
"""

from __future__ import annotations

import unicodedata
from functools import cached_property

__all__ = ["QuotedText"]

_SHORTEST = 3
_ALIKE = {
    **dict.fromkeys("\"“”„‟«»‹›'‘’‚‛ʼ′″`´", "'"),
    **dict.fromkeys("-‐‑‒–—―−", "-"),
    "…": "...",
}
_AROUND = "'\" \t\n.…"


class QuotedText:
    """A text in which quotes are looked for; reads the text once, however many they are."""

    def __init__(self, text: str) -> None:
        self._text = text

    def find(self, quote: str) -> tuple[int, int] | None:
        """Return where `quote` stands first, as code points of the text; None where it does not."""
        if len(quote.strip()) < _SHORTEST:
            return None
        start = self._text.find(quote)
        if start >= 0:
            return start, start + len(quote)
        plain, places = self._plain
        for sought in (_plain(quote)[0].strip(), _plain(quote)[0].strip(_AROUND)):
            start = plain.find(sought) if len(sought) >= _SHORTEST else -1
            if start >= 0:
                return places[start], places[start + len(sought) - 1] + 1
        return None

    @cached_property
    def _plain(self) -> tuple[str, list[int]]:
        return _plain(self._text)


def _plain(text: str) -> tuple[str, list[int]]:
    """Return the text with marks made alike, and the place that each of its characters comes from."""
    made: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if character.isspace():
            if made and made[-1] == " ":
                continue
            alike = " "
        elif not character.isascii() and unicodedata.category(character) == "Cf":
            continue
        else:
            alike = _ALIKE.get(character, character)
        made.extend(alike)
        places.extend([place] * len(alike))
    return "".join(made), places

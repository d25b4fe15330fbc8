"""Where a text may be cut without tearing apart what a reader sees as one character.

A part of Unicode's rules for grapheme clusters (UAX #29), as far as Python's character database carries it: combining
and enclosing marks, variation selectors, emoji joined by a zero-width joiner or with a skin tone, flags, tag sequences,
Korean syllables written as jamo, a carriage return with its line feed, and halves of surrogate pairs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Literal

__all__ = ["LONGEST_CLUSTER", "cut_near", "is_cut"]

LONGEST_CLUSTER = 64
"""Code points; what is longer is not language, and is cut."""

_JOINER = "\u200d"
_NON_JOINER = "\u200c"

# Spacing vowels that the database files under letters.
_SPACING_LETTERS = frozenset("\u0e33\u0eb3")

_Jamo = Literal["L", "V", "T", "LV", "LVT", ""]
_CONTINUED_BY: Mapping[_Jamo, frozenset[_Jamo]] = {
    "L": frozenset(("L", "V", "LV", "LVT")),
    "V": frozenset(("V", "T")),
    "LV": frozenset(("V", "T")),
    "T": frozenset(("T",)),
    "LVT": frozenset(("T",)),
    "": frozenset(),
}


def cut_near(text: str, start: int, end: int) -> int | None:
    """Return where to cut `text` so that the piece from `start` has at most `end - start` code points.

    The piece is longer where a single cluster is. None means that only more text can tell where it ends.
    """
    for place in range(min(end, len(text) - 1), start, -1):
        if is_cut(text, place):
            return place
        if end - place >= LONGEST_CLUSTER:
            return end
    for place in range(end + 1, min(len(text), start + LONGEST_CLUSTER)):
        if is_cut(text, place):
            return place
    return end if len(text) - start > LONGEST_CLUSTER else None


def is_cut(text: str, place: int) -> bool:
    """Return whether `text` may be cut before `place`, which lies inside it."""
    before, after = text[place - 1], text[place]
    if after < "\u0300":
        # Below the first combining mark nothing continues a character, except a line feed its carriage return.
        return not (after == "\n" and before == "\r")
    if before == _JOINER or _extends(after):
        return False
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return False
    if _is_flag_letter(before) and _is_flag_letter(after):
        return _flag_letters_before(text, place) % 2 == 0
    return _jamo(after) not in _CONTINUED_BY[_jamo(before)]


def _extends(character: str) -> bool:
    if character in (_JOINER, _NON_JOINER) or character in _SPACING_LETTERS:
        return True
    # Skin tones of emoji, and the letters of tag sequences such as the flag of Wales.
    if "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f":
        return True
    return unicodedata.category(character) in ("Mn", "Mc", "Me")


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_letters_before(text: str, place: int) -> int:
    start = place
    while start > 0 and place - start < LONGEST_CLUSTER and _is_flag_letter(text[start - 1]):
        start -= 1
    return place - start


def _jamo(character: str) -> _Jamo:
    """Return the part that a character plays in a Korean syllable."""
    if "\uac00" <= character <= "\ud7a3":
        return "LVT" if (ord(character) - 0xAC00) % 28 else "LV"
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb":
        return "T"
    return ""

"""What a text says under its spelling: spaces, digits, dashes, accents and escapes made plain, with the way back.

Rules search the plain reading; what they find is cut out of the text as it is written. A text is read twice where its
spelling is ambiguous: as it stands, and with its escapes resolved (JSON's, HTML's, percent-encoding, also one inside
another), because `DOMAIN\\nadine` is a name in one reading and a line break in the other.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

__all__ = ["Reading", "fold", "readings"]

_MOST_LAYERS = 4
"""Escapes inside escapes that are resolved; each costs a pass over the text."""

_MARKS = (
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u0300-\u036f\u061c\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f"
)
# The first character is one class, so that `re` skips what cannot be an escape.
_ESCAPE = re.compile(
    rf"[\\%&<+{_MARKS}](?:"
    r"(?<=\\)(?<!\\\\)\\*+(?:u(?P<u>[0-9a-f]{4})|x(?P<x>[0-9a-f]{2})|U000(?P<wide>[0-9a-f]{5})|(?P<letter>[nrtbf])"
    r"|(?P<quote>[\"'/]))"
    r"|(?<=%)(?P<percent>(?:25){0,3}[0-9a-f]{2}(?:%(?:25){0,3}[0-9a-f]{2}){0,40})"
    r"|(?<=&)(?:amp;){0,3}(?P<entity>\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z]{2,8}[0-9]{0,2});"
    r"|(?<=<)(?P<tag>/?[a-z][^<>]{0,80}>)"
    r"|(?<=[0-9a-z]\+)(?P<plus>(?=[0-9a-z]))"
    rf"|(?<=[{_MARKS}])(?P<mark>[{_MARKS}]*))",
    re.IGNORECASE,
)
_PERCENT = re.compile("%(?:25)*(?=[0-9a-f]{2})", re.IGNORECASE)
_MAY_ESCAPE = re.compile(r"[\\%&<+]|[^\t\n\r -~]")
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "", "f": ""}
_LETTERS = {
    chr(code): plain
    for code, plain in zip(map(ord, "øØłŁđĐħĦıðÐŧŦæÆœŒßẞ"), map(chr, b"oOlLdDhHidDtTaAoOss"), strict=True)
}
_SIGNS = {
    **dict.fromkeys("‘’‚‛′´`ʹʼʻ＇", "'"),
    **dict.fromkeys("“”„‟″«»＂", '"'),
    **dict.fromkeys("−⁻₋ー·•‧∙⋅", "-"),
    "⁄": "/",
    "∕": "/",
    "\x85": "\n",
}


class _Folding(dict[int, str]):
    """One character for one character, worked out when a character is first seen."""

    def __missing__(self, code: int) -> str:
        plain = self[code] = _plain(chr(code))
        return plain


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if (known := _SIGNS.get(character) or _LETTERS.get(character)) is not None:
        return known
    if (digit := unicodedata.digit(character, None)) is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in {"Zl", "Zp"}:
        return "\n"
    if category == "Zs":
        return " "
    if category == "Pd":
        return "-"
    parts = unicodedata.normalize("NFKD", character)
    plain = parts[0].isascii() and all(unicodedata.combining(mark) for mark in parts[1:])
    return parts[0] if plain else character


_FOLDING = _Folding()


def fold(text: str) -> str:
    """Return the text with plain digits, spaces, dashes, quotes and letters; every character keeps its place."""
    return text if text.isascii() else text.translate(_FOLDING)


class _Offsets:
    """From places in a text whose escapes are resolved to places in the text they were written in."""

    def __init__(self) -> None:
        self._plain_starts: list[int] = []
        self._plain_ends: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, plain_start: int, plain_end: int, start: int, end: int) -> None:
        self._plain_starts.append(plain_start)
        self._plain_ends.append(plain_end)
        self._starts.append(start)
        self._ends.append(end)

    def start(self, place: int) -> int:
        index = bisect_right(self._plain_starts, place) - 1
        if index < 0:
            return place
        if place < self._plain_ends[index]:
            return self._starts[index]
        return self._ends[index] + place - self._plain_ends[index]

    def end(self, place: int) -> int:
        if place == 0:
            return 0
        index = bisect_right(self._plain_starts, place - 1) - 1
        if index < 0:
            return place
        if place - 1 < self._plain_ends[index]:
            return self._ends[index]
        return self._ends[index] + place - self._plain_ends[index]


class Reading:
    """A plain reading of a text: `text` with letters as written, `lower` in lower case, both of the same length."""

    def __init__(self, text: str, offsets: tuple[_Offsets, ...] = ()) -> None:
        self.text = text
        self.lower = text.lower()
        if len(self.lower) != len(text):
            self.lower = "".join(one if len(one := character.lower()) == 1 else character for character in text)
        self._offsets = offsets

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Return where the written text holds what this reading holds between `start` and `end`."""
        for offsets in reversed(self._offsets):
            start, end = offsets.start(start), offsets.end(end)
        return start, end


def readings(text: str) -> Iterator[Reading]:
    """Yield the text as it stands and, where it has escapes, the text with all of them resolved."""
    folded = fold(text)
    yield Reading(folded)
    layers: list[_Offsets] = []
    while len(layers) < _MOST_LAYERS and _MAY_ESCAPE.search(folded) is not None:
        resolved, offsets = _resolved(folded)
        if offsets is None:
            break
        folded = fold(resolved)
        layers.append(offsets)
    if layers:
        yield Reading(folded, tuple(layers))


def _resolved(text: str) -> tuple[str, _Offsets | None]:
    pieces: list[str] = []
    offsets, length, last = _Offsets(), 0, 0
    for found in _ESCAPE.finditer(text):
        meaning = _meaning(found)
        if meaning is None:
            continue
        start, end = found.span()
        pieces.append(text[last:start])
        length += start - last
        pieces.append(meaning)
        offsets.add(length, length + len(meaning), start, end)
        length += len(meaning)
        last = end
    if last == 0:
        return text, None
    pieces.append(text[last:])
    return "".join(pieces), offsets


def _meaning(found: re.Match[str]) -> str | None:
    kind, value = found.lastgroup, found.group(found.lastgroup or 0)
    match kind:
        case "u" | "x" | "wide":
            code = int(value, 16)
            # One half of a pair has no meaning by itself, and none of what is looked for is written with pairs.
            return "" if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF else chr(code)
        case "letter":
            return _CONTROL[value.lower()]
        case "quote":
            return value
        case "percent":
            return bytes.fromhex(_PERCENT.sub("", "%" + value)).decode("utf-8", "replace")
        case "entity":
            meaning = html.unescape(f"&{value};")
            return None if meaning.startswith("&") and len(meaning) > 1 else meaning
        case "tag" | "plus":
            return " "
        case _:
            return ""

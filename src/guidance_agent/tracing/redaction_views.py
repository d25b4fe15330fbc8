"""What a text says under its spelling: spaces, digits, dashes, accents and escapes made plain, with the way back.

Rules search the plain reading; what they find is cut out of the text as it is written. A text is read twice where its
spelling is ambiguous: as it stands, and with its escapes resolved (JSON's, HTML's, percent-encoding, also one inside
another), because `DOMAIN\\nadine` is a name in one reading and a line break in the other.
"""

from __future__ import annotations

import functools
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
    rf"[\\%&<+{_MARKS}](?i:"
    r"(?<=\\)(?<!\\\\)\\*+(?:u(?P<u>[0-9a-f]{4})|x(?P<x>[0-9a-f]{2})|U000(?P<wide>[0-9a-f]{5})|(?P<letter>[nrtbf])"
    r"|(?P<quote>[\"'/]))"
    r"|(?<=%)(?P<percent>(?:25){0,3}[0-9a-f]{2}(?:%(?:25){0,3}[0-9a-f]{2}){0,40})"
    r"|(?<=&)(?:amp;){0,3}(?P<entity>\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z]{2,8}[0-9]{0,2});"
    r"|(?<=<)(?P<tag>/?[a-z][^<>]{0,80}>)"
    r"|(?<=[0-9a-z]\+)(?P<plus>(?=[0-9a-z]))"
    rf"|(?<=[{_MARKS}])(?P<mark>[{_MARKS}]*))"
)
_PERCENT = re.compile("%(?:25)*(?=[0-9a-f]{2})", re.IGNORECASE)
_MAY_ESCAPE = re.compile(rf"[\\%&<+{_MARKS}]")
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
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_FEW = 16


def fold(text: str) -> str:
    """Return the text with plain digits, spaces, dashes, quotes and letters; every character keeps its place."""
    if text.isascii():
        return text
    strange = set(_NOT_ASCII.findall(text))
    if len(strange) > _FEW:
        return text.translate(_FOLDING)
    # Most texts hold a pound sign and a quotation mark: replacing is ten times as fast as translating.
    for character in strange:
        if (plain := _FOLDING[ord(character)]) != character:
            text = text.replace(character, plain)
    return text


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


_FIGURES = re.compile(r"[0-9](?<![0-9].)(?:[\s.()/_-]{0,3}[0-9]){5,}")
"""Six digits and more with no more between them than any rule allows: where there are none, no long number is."""

_DATE_ALONE = re.compile(r"(?:19|20)[0-9]{2}(?:-[0-9]{2}-[0-9]{2}|/[0-9]{2})")
_BEFORE_FIGURES, _AFTER_FIGURES = 24, 32
"""Characters that belong to a number before and behind its digits: a country's code in brackets, an extension."""

_CAPITALISED = re.compile(r"[A-Z](?:[a-z]+|[A-Z]+)")
_LETTERS_ALONE = bytes(code if 97 <= code <= 122 else 32 for code in range(256))


class Reading:
    """A plain reading of a text: `text` with letters as written, `lower` in lower case, both of the same length.

    What several rules need to know before they search is worked out once, when the first of them asks.
    """

    def __init__(self, text: str, offsets: tuple[_Offsets, ...] = ()) -> None:
        self.text = text
        self.lower = text.lower()
        if len(self.lower) != len(text):
            self.lower = "".join(one if len(one := character.lower()) == 1 else character for character in text)
        self._offsets = offsets

    @functools.cached_property
    def capitalised(self) -> frozenset[str]:
        """Every word that begins with a capital, or a part of it."""
        return frozenset(_CAPITALISED.findall(self.text))

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """Every longest row of letters in the lower case, without repetitions."""
        letters = self.lower.encode("ascii", "replace").translate(_LETTERS_ALONE)
        return frozenset(letters.decode("ascii").split())

    @functools.cached_property
    def _figures(self) -> list[tuple[int, int]]:
        return [found.span() for found in _FIGURES.finditer(self.lower)]

    @functools.cached_property
    def _figures_around(self) -> list[tuple[int, int]]:
        return _joined(self._figures)

    @functools.cached_property
    def _numbers_around(self) -> list[tuple[int, int]]:
        lower = self.lower
        return _joined([span for span in self._figures if _DATE_ALONE.fullmatch(lower, *span) is None])

    @functools.cached_property
    def dates(self) -> list[int]:
        """Where tax years and dates in the order of ISO 8601 begin that are no part of a longer number."""
        return [start for start, end in self._figures if _DATE_ALONE.fullmatch(self.lower, start, end) is not None]

    def numbers(self, pattern: re.Pattern[str], *, dates: bool = False) -> Iterator[re.Match[str]]:
        """Yield what `pattern.finditer` would in the lower case.

        Args:
            pattern: A number of six digits at least, with what `_FIGURES` allows between them.
            dates: Whether one of `dates` can be such a number.
        """
        for start, end in self._figures_around if dates else self._numbers_around:
            yield from pattern.finditer(self.lower, start, end)

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Return where the written text holds what this reading holds between `start` and `end`."""
        for offsets in reversed(self._offsets):
            start, end = offsets.start(start), offsets.end(end)
        return start, end


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Widen spans by what belongs to them, and make one of those that then overlap."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        start, end = max(0, start - _BEFORE_FIGURES), end + _AFTER_FIGURES
        if joined and start <= joined[-1][1]:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


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

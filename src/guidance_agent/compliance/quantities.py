"""Amounts, shares, spans of time and dates as they stand in a sentence, in digits or in words.

A sentence is rewritten with a mark in the place of each of them, so that a pattern can say what kind of number it
wants: `#gbp` money, `#big` a large number without a unit, `#pct` a share, `#span` a time with its unit, `#num` a bare
number, `#date` a day, month or year.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from guidance_agent.compliance.language import Token, Words
from guidance_agent.knowledge.tax_years import tax_year_dates

__all__ = ["MARKS", "Quantity", "QuantityKind", "QuantityReader", "holds_number", "quantities_of"]

QuantityKind: TypeAlias = Literal["gbp", "big", "pct", "span", "num", "date"]
MARKS = frozenset({"#gbp", "#big", "#pct", "#span", "#num", "#date"})

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
_WORDS = _SMALL | {
    f"{tens}-{unit}": 10 * number + _SMALL[unit] for number, tens in enumerate(_TENS, 2) for unit in _UNITS[1:10]
}
_SCALES = {"hundred": 100, "thousand": 1_000, "grand": 1_000, "million": 1_000_000}
_SHORT_SCALES = {"": 1, "k": 1_000, "m": 1_000_000}
_THIRD = Decimal(100) / 3
_SHARES = {"quarter": Decimal(25), "half": Decimal(50), "third": _THIRD, "fifth": Decimal(20), "tenth": Decimal(10)}
_PARTS = {"quarters": Decimal(25), "thirds": _THIRD, "fifths": Decimal(20), "tenths": Decimal(10)}
_JOINED_PARTS = {
    "one-third": _THIRD,
    "two-thirds": 2 * _THIRD,
    "one-quarter": Decimal(25),
    "three-quarters": Decimal(75),
}
_SPANS = {"day": "days", "week": "weeks", "month": "months", "year": "years"}
_SPAN_UNITS = {each: unit for word, unit in _SPANS.items() for each in (word, unit)}
_BETWEEN = frozenset(
    (
        *("qualifying", "full", "complete", "whole", "tax", "previous", "past", "earlier", "more", "further", "clear"),
        *("calendar", "or", "so", "ni", "additional", "last", "prior", "extra"),
    )
)
_WHOLE = frozenset(("full", "whole", "entire", "complete", "single"))
_PER = {"week": "week", "weekly": "week", "year": "year", "yearly": "year", "annum": "year", "annually": "year"} | {
    "month": "month", "monthly": "month", "pw": "week", "pa": "year", "p.a": "year"
}  # fmt: skip
_MONTH_NAMES = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october"),
    *("november", "december"),
)
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_NUMBER = re.compile(r"([£$€]?)(\d{1,3}(?:,\d{3})+|\d{1,12})(\.\d{1,4})?(k|m)?(%?)")
_AGE_DECADE = re.compile(r"(\d{2})(?:th|st|nd|rd)")
_TAX_YEAR = re.compile(r"(20\d\d|\d\d)[/-](20\d\d|\d\d)")
_PER_WRITTEN = re.compile(r"(£?[\d,.]+)/(week|year|month)")
_JOINED_SPAN = re.compile(r"([a-z]+(?:-[a-z]+)?|\d{1,3})-(day|week|month|year)s?")
_DAY = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?")
_WORD_NUMBERS = (
    frozenset(_WORDS) | frozenset(_SCALES) | frozenset(_SHARES) | frozenset(_PARTS) | frozenset(_JOINED_PARTS)
)
_STARTS = _WORD_NUMBERS | frozenset(_MONTHS) | {"a", "the"}
_ARTICLES = frozenset(("a", "the"))
_AFTER_ARTICLE = _WHOLE | frozenset(_SHARES)
"""Words that an article must have behind it to begin a number."""
_DIGIT = re.compile(r"\d")
_LONGEST = 500
"""Tokens that are read; no sentence of a reply is as long."""
_LONGEST_LOOK = 12
"""Tokens behind a number that can still change how it is read, and a few more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number that a sentence gives.

    Attributes:
        kind: What the number is.
        value: Pounds, percent, or a count; for a date zero.
        start, end: Where it stands in the text.
        unit: Of a `span`: days, weeks, months or years.
        per: Of money: week, month or year, where that is said.
        first, last: Of a date: the days that it may mean.
        exact: Whether it is given to the penny or as a fraction of a percent.
    """

    kind: QuantityKind
    value: Decimal
    start: int
    end: int
    unit: str = ""
    per: str = ""
    first: date = date.min
    last: date = date.max
    exact: bool = False


def holds_number(words: Words) -> bool:
    """Whether a sentence has a digit or a word for a number."""
    return not _WORD_NUMBERS.isdisjoint(words.vocabulary) or _DIGIT.search(words.line) is not None


def quantities_of(words: Words, text: str) -> tuple[Words, list[Quantity | None]]:
    """Return the sentence with marks for its numbers, and for each of its tokens the number that it stands for."""
    reader = QuantityReader()
    reader.read(words.tokens, text)
    return reader.words, reader.found


class QuantityReader:
    """Reads the numbers of a sentence that grows: what no further word can change is read once.

    Attributes:
        marked: The words, each number among them replaced by its mark.
        found: For each of them the number that it stands for.
        numbers: The numbers, each with its place among them.
    """

    __slots__ = ("_place", "_settled", "found", "marked", "numbers")

    def __init__(self) -> None:
        self.marked: list[Token] = []
        self.found: list[Quantity | None] = []
        self.numbers: list[tuple[int, Quantity]] = []
        self._settled = 0
        """How many of `marked` no further word can change."""
        self._place = 0
        """How many tokens those are."""

    @property
    def words(self) -> Words:
        """What has been read so far, as `quantities_of` returns it."""
        return Words(self.marked)

    def read(self, tokens: Sequence[Token], text: str) -> None:
        """Read a sentence so far.

        Args:
            tokens: Begin with those of the call before.
            text: Where the offsets of the tokens point, up to the end of the last one at least.
        """
        marked, found, numbers, place = self.marked, self.found, self.numbers, self._place
        del marked[self._settled :], found[self._settled :]
        while numbers and numbers[-1][0] >= self._settled:
            numbers.pop()
        if len(tokens) > _LONGEST:
            tokens = tokens[:_LONGEST]
        length, is_settling = len(tokens), True
        while place < length:
            token = tokens[place]
            first = token[0]
            # An article may begin a number with the word that comes next.
            is_settling = is_settling and not (first in _ARTICLES and place + 1 == length)
            if _may_begin(first) and (first not in _ARTICLES or _text(tokens, place + 1) in _AFTER_ARTICLE):
                read = _date_at(tokens, place) or _number_at(tokens, place, text)
                end = place + 1 if read is None else read[1]
                # Zeros may be many before a number ends, and a scale that begins a sentence looks at the other end.
                is_open = first == "zero" or (place == 0 and first in _SCALES)
                is_settling = is_settling and not is_open and end + _LONGEST_LOOK <= length
                if read is None:
                    marked.append(token)
                    found.append(None)
                else:
                    quantity = read[0]
                    numbers.append((len(marked), quantity))
                    marked.append(Token(f"#{quantity.kind}", quantity.start, quantity.end))
                    found.append(quantity)
                place = end
            else:
                marked.append(token)
                found.append(None)
                place += 1
            if is_settling:
                self._settled, self._place = len(marked), place


@lru_cache(maxsize=16_384)
def _may_begin(word: str) -> bool:
    if word in _STARTS or word[0].isdigit() or word[0] in "£$€":
        return True
    return "-" in word and _JOINED_SPAN.fullmatch(word) is not None


@lru_cache(maxsize=4_096)
def _may_begin_date(word: str) -> bool:
    return (
        word in _MONTHS or _year(word) > 0 or _DAY.fullmatch(word) is not None or _TAX_YEAR.fullmatch(word) is not None
    )


def _date_at(tokens: Sequence[Token], place: int) -> tuple[Quantity, int] | None:
    if not _may_begin_date(tokens[place][0]):
        return None
    texts = [token.text for token in tokens[place : place + 4]] + [""] * 4
    days: tuple[date, date] | None = None
    used = 1
    label = _TAX_YEAR.fullmatch(texts[0])
    if label is not None:
        first = int(label[1]) if len(label[1]) == 4 else 2000 + int(label[1])
        if (first + 1) % 100 == int(label[2][-2:]):
            days = tax_year_dates(f"{first:04d}/{(first + 1) % 100:02d}")
    elif (day := _DAY.fullmatch(texts[0])) and texts[1] in _MONTHS:
        used, days = _day_and_month(int(day[1]), texts[1:])
    elif texts[0] in _MONTHS and (year := _year(texts[1])):
        used, days = 2, _month_of(year, _MONTHS[texts[0]])
    elif texts[0] in _MONTHS and (day := _DAY.fullmatch(texts[1])) and texts[0] != "may":
        used, days = _day_and_month(int(day[1]), [texts[0], *texts[2:]])
    elif year := _year(texts[0]):
        if texts[1] == "to" and _year(texts[2]) == year + 1:
            used, days = 3, tax_year_dates(f"{year:04d}/{(year + 1) % 100:02d}")
        else:
            days = date(year, 1, 1), date(year, 12, 31)
    if days is None:
        return None
    start, end = tokens[place].start, tokens[place + used - 1].end
    return Quantity(kind="date", value=Decimal(0), start=start, end=end, first=days[0], last=days[1]), place + used


def _year(text: str) -> int:
    return int(text) if len(text) == 4 and text.isdecimal() and text[:2] in ("19", "20") else 0


def _day_and_month(day: int, texts: Sequence[str]) -> tuple[int, tuple[date, date] | None]:
    month, year = _MONTHS[texts[0]], _year(texts[1])
    if not year:
        # A day without its year says when in the year, not when: it may be any.
        return 2, (date.min, date.max)
    try:
        found = date(year, month, day)
    except ValueError:
        return 3, _month_of(year, month)
    return 3, (found, found)


def _month_of(year: int, month: int) -> tuple[date, date]:
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, 1), following - timedelta(days=1)


def _number_at(tokens: Sequence[Token], place: int, text: str) -> tuple[Quantity, int] | None:
    token = tokens[place]
    if token.text in ("a", "one", "the", "half") or token.text in _WORDS:
        share = _share_at(tokens, place)
        if share is not None:
            return share
    whole = _SPAN_UNITS.get(_text(tokens, place + 2)) if _text(tokens, place + 1) in _WHOLE else None
    if whole and token.text in ("a", "one"):
        return _quantity("span", 1, token.start, tokens[place + 2].end, unit=whole), place + 3
    if token.text in _JOINED_PARTS:
        return _quantity("pct", _JOINED_PARTS[token.text], token.start, token.end, unit="share"), place + 1
    if joined := _JOINED_SPAN.fullmatch(token.text):
        number = _WORDS.get(joined[1]) or (int(joined[1]) if joined[1].isdecimal() else 0)
        if number:
            unit = _SPANS[joined[2]]
            return _quantity("span", number, token.start, token.end, unit=unit), place + 1
    if (digits := _digits(token.text)) is not None:
        return _digits_at(tokens, place, text, digits)
    if (ordinal := _AGE_DECADE.fullmatch(token.text)) and _text(tokens, place + 1) == "birthday":
        return _quantity("num", int(ordinal[1]), token.start, token.end), place + 1
    return _words_at(tokens, place)


def _share_at(tokens: Sequence[Token], place: int) -> tuple[Quantity, int] | None:
    token, following = tokens[place], _text(tokens, place + 1)
    value: Decimal | None = None
    if token.text == "half":
        if following in ("of", "the", "your", "a"):
            return _quantity("pct", 50, token.start, token.end, unit="share"), place + 1
        return None
    if following in _PARTS and token.text in _WORDS:
        value = _WORDS[token.text] * _PARTS[following]
    elif following in _SHARES and token.text in ("a", "one", "the"):
        after = _text(tokens, place + 2)
        if following == "quarter" or after in {"of", "tax-free", "free", "can", "is", "may", "comes", "without"}:
            value = _SHARES[following]
    if value is None:
        return None
    return _quantity("pct", value, token.start, tokens[place + 1].end, unit="share"), place + 2


class _Digits(NamedTuple):
    """A number in digits, as one word: the value is None for what no figure is written like."""

    value: Decimal | None
    is_pounds: bool
    is_percent: bool
    is_large: bool
    is_exact: bool
    per: str


@lru_cache(maxsize=4_096)
def _digits(word: str) -> _Digits | None:
    """Return what a word says in digits; None when it is no number."""
    per = ""
    if slashed := _PER_WRITTEN.fullmatch(word):
        word, per = slashed[1], slashed[2]
    parsed = _NUMBER.fullmatch(word)
    if parsed is None:
        return None
    sign, whole, fraction, scale, percent = parsed.groups()
    value: Decimal | None = None
    if sign not in ("$", "€") and (whole[0] != "0" or len(whole) == 1):
        with contextlib.suppress(InvalidOperation):
            value = Decimal(whole.replace(",", "") + (fraction or "")) * _SHORT_SCALES[scale or ""]
    return _Digits(value, bool(sign), bool(percent), bool(scale) or "," in whole, bool(fraction), per)


def _digits_at(tokens: Sequence[Token], place: int, text: str, digits: _Digits) -> tuple[Quantity, int] | None:
    token, value = tokens[place], digits.value
    if value is None:
        return None
    before = text[max(0, token.start - 3) : token.start].rstrip()
    start, end, place = token.start, token.end, place + 1
    if digits.is_pounds or before.endswith(("£", "￡")):
        start = start if digits.is_pounds else text.rindex(before[-1], 0, start)
        return _money(tokens, place, value, start, digits.per, exact=digits.is_exact)
    if digits.is_percent or text[end : end + 3].lstrip().startswith(("%", "％")):
        return _quantity("pct", value, start, end, exact=digits.is_exact), place
    return _with_unit(tokens, place, value, start, large=digits.is_large, exact=digits.is_exact)


def _words_at(tokens: Sequence[Token], place: int) -> tuple[Quantity, int] | None:
    start = place
    total, part, seen = 0, 0, False
    while place < len(tokens):
        word = tokens[place].text
        if word in _WORDS:
            if seen and part % 100 and not (part % 10 == 0 and part % 100 >= 20 and _WORDS[word] < 10):
                break
            part += _WORDS[word]
        elif word in _SCALES and (seen or tokens[place - 1].text == "a"):
            factor = _SCALES[word]
            part = (part or 1) * factor
            if factor > 100:
                total, part = total + part, 0
        elif not (word == "and" and seen and (part >= 100 or total) and _text(tokens, place + 1) in _WORDS):
            break
        seen = True
        place += 1
    if not seen:
        return None
    value = total + part
    return _with_unit(tokens, place, Decimal(value), tokens[start].start, large=total > 0, alone=value == 1)


def _with_unit(
    tokens: Sequence[Token],
    place: int,
    value: Decimal,
    start: int,
    *,
    large: bool = False,
    exact: bool = False,
    alone: bool = False,
) -> tuple[Quantity, int] | None:
    following = _text(tokens, place)
    if following in _SCALES and following != "hundred":
        value, large, place = value * _SCALES[following], True, place + 1
        following = _text(tokens, place)
    if following in ("pounds", "quid", "pound"):
        return _money(tokens, place + 1, value, start, "", exact=exact)
    if following in ("percent", "pc"):
        return _quantity("pct", value, start, tokens[place].end, exact=exact), place + 1
    if following == "per" and _text(tokens, place + 1) == "cent":
        return _quantity("pct", value, start, tokens[place + 1].end, exact=exact), place + 2
    last = place
    while _text(tokens, last) in _BETWEEN and last - place < 3:
        last += 1
    if (unit := _SPAN_UNITS.get(_text(tokens, last))) and not large:
        # "Six years old" and "60 years of age" are ages, and so have no unit.
        if _text(tokens, last + 1) in ("old", "of") and _text(tokens, last + 2) in ("age", "when", ",", ".", ""):
            return _quantity("num", value, start, tokens[last].end), last + 1
        return _quantity("span", value, start, tokens[last].end, unit=unit), last + 1
    if alone:
        return None
    end = tokens[place - 1].end
    if large or value >= 1_000:
        per, last = _per_at(tokens, place)
        return _quantity("big", value, start, end, per=per, exact=exact), last
    return _quantity("num", value, start, end, exact=exact), place


def _money(
    tokens: Sequence[Token], place: int, value: Decimal, start: int, per: str, *, exact: bool
) -> tuple[Quantity, int]:
    if (scale := _text(tokens, place)) in ("thousand", "million", "grand"):
        value, exact, place = value * _SCALES[scale], False, place + 1
    end = tokens[place - 1].end
    if not per:
        per, place = _per_at(tokens, place)
    return _quantity("gbp", value, start, end, per=per, exact=exact), place


def _per_at(tokens: Sequence[Token], place: int) -> tuple[str, int]:
    first, second = _text(tokens, place), _text(tokens, place + 1)
    if first in ("a", "per", "each", "every") and second in _PER:
        return _PER[second], place + 2
    if first in _PER and first.endswith(("y", "w", "a")):
        return _PER[first], place + 1
    return "", place


def _quantity(
    kind: QuantityKind,
    value: Decimal | int,
    start: int,
    end: int,
    *,
    unit: str = "",
    per: str = "",
    exact: bool = False,
) -> Quantity:
    return Quantity(kind=kind, value=Decimal(value), start=start, end=end, unit=unit, per=per, exact=exact)


def _text(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) else ""

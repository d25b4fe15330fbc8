"""For which time, and as whose words, a sentence gives a figure.

A sentence falls into pieces at semicolons, colons, dashes, brackets and conjunctions. What stands in the piece of a
figure says whether it is given as today's, as another year's, as something that is only reported or denied, or as an
example.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Literal, NamedTuple

from guidance_agent.compliance.figure_wording import phrases, word_list
from guidance_agent.compliance.language import Token
from guidance_agent.compliance.quantities import Quantity
from guidance_agent.knowledge.tax_years import tax_year, tax_year_dates

__all__ = ["Claim", "claim_at", "names_other_time", "pieces_of"]


class Claim(NamedTuple):
    """How a figure is given: `stated` for the days from `first` to `last`, `past` or `future` without saying when, or
    `reported`, which leaves it alone. `named` says that the sentence names the time."""

    kind: Literal["stated", "past", "future", "reported"]
    first: date
    last: date
    named: bool = False


_BREAKS = frozenset(';:—–().!?“”"')
_CONJUNCTIONS = word_list("conjunctions")
_AFTER_COMMA = word_list("after_comma")
_AFTER_AND = word_list("after_and")

_DENIED = re.compile(
    r"(?:\b(?:not|n't|never|nor|isn't)(?: (?:the|a|an|at|your|that|is|just|by|about|some|only))? "
    r"|\b(?:rather than|instead of|as opposed to|unlike)(?: (?:the|a|that|your|those))?(?: \S+)? )\Z"
)
_REPORTED = phrases("reported")
_ENDORSED = phrases("endorsed")
_PAST = phrases("past")
_NOW = phrases("now", "(?! #date)")
_CONDITION = re.compile(r"(?<!\S)(?:if|unless|where|whether|once) (?:(?!,)\S+ ){0,6}?(?:was|were) ")
_LAST_YEAR = phrases("last_year")
_NEXT_YEAR = phrases("next_year")
_FUTURE = phrases("future")
_LIFE = phrases("life")
_ORDINARY_PREPOSITION = re.compile(
    r"(from|since|after|until|till|before|by|up to|to|in|for|on|of|during|with|through)(?: the)?(?: tax)?(?: year)? \Z"
)


_OTHER_TIME = re.compile("|".join([each.pattern for each in (_LAST_YEAR, _NEXT_YEAR, _FUTURE)]))


def names_other_time(line: str) -> bool:
    """Whether words, each followed by a space, name another time than now without a date."""
    return _OTHER_TIME.search(line) is not None


def pieces_of(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Return for each token where the piece that it belongs to begins and ends."""
    starts = [0]
    for place, token in enumerate(tokens):
        following = tokens[place + 1].text if place + 1 < len(tokens) else ""
        if (
            token.text in _BREAKS
            or token.text in _CONJUNCTIONS
            or (token.text == "," and following in _AFTER_COMMA)
            or (token.text == "and" and following in _AFTER_AND)
        ):
            starts.append(place + 1)
    bounds: list[tuple[int, int]] = []
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        bounds += [(start, end)] * (end - start)
    return bounds


def claim_at(
    place: int,
    tokens: Sequence[Token],
    quantities: Sequence[Quantity | None],
    pieces: Sequence[tuple[int, int]],
    on: date,
) -> Claim:
    """Say how the figure at `place` is given in a sentence that is said on the day `on`."""
    start, end = pieces[place]
    before = "".join([f"{token.text} " for token in tokens[start:place]])
    piece = before + "".join([f"{token.text} " for token in tokens[place:end]])
    if _DENIED.search(before) or (_REPORTED.search(piece) and not _ENDORSED.search(piece)):
        return Claim("reported", on, on)
    if dated := _named_days(place, start, end, tokens, quantities, on):
        return dated
    if _NOW.search(piece) and not (_PAST.search(piece) or _LAST_YEAR.search(piece)):
        return Claim("stated", on, on, named=True)
    if _LAST_YEAR.search(piece):
        first, _ = tax_year_dates(tax_year(on))
        return Claim("stated", *tax_year_dates(tax_year(first - timedelta(days=1))), named=True)
    if _NEXT_YEAR.search(piece):
        _, last = tax_year_dates(tax_year(on))
        return Claim("stated", *tax_year_dates(tax_year(last + timedelta(days=1))), named=True)
    if _NOW.search(piece):
        return Claim("stated", on, on, named=True)
    if _PAST.search(_CONDITION.sub(" ", piece)):
        return Claim("past", on, on)
    if _FUTURE.search(piece):
        return Claim("future", on, on)
    return Claim("stated", on, on)


def _named_days(
    place: int, start: int, end: int, tokens: Sequence[Token], quantities: Sequence[Quantity | None], on: date
) -> Claim | None:
    """Return the days of the date in the piece that stands nearest, what follows the figure first."""
    dates = [at for at in range(start, end) if (found := quantities[at]) and found.kind == "date"]
    dates = [at for at in dates if not _LIFE.search(_line(tokens[max(start, at - 6) : at]))]
    for at in sorted(dates, key=lambda at: (abs(at - place), at < place)):
        found = quantities[at]
        if found is None or found.first == date.min:
            continue
        said = _ORDINARY_PREPOSITION.search(_line(tokens[max(start, at - 4) : at]))
        match said and said[1]:
            case "from" | "after":
                return Claim("stated", _sixth(found), found.last, named=True)
            case "since":
                return Claim("stated", _sixth(found), max(on, found.last), named=True)
            case "until" | "till" | "before" | "up to" | "to" | "by" if found.first <= on:
                day = found.last - timedelta(days=1) if found.first == found.last else found.first
                return Claim("stated", day - timedelta(days=400), day, named=True)
            case "until" | "till" | "before" | "up to" | "to" | "by":
                return Claim("stated", on, found.first - timedelta(days=1), named=True)
            case _:
                return Claim("stated", found.first, found.last, named=True)
    return None


def _sixth(found: Quantity) -> date:
    """From April means from the first day of the tax year."""
    if found.first.month == 4 and found.first.day == 1 and found.first != found.last:
        return found.first.replace(day=6)
    return found.first


def _line(tokens: Sequence[Token]) -> str:
    return "".join([f"{token.text} " for token in tokens])

"""Dates of birth among the many dates of pension guidance.

A date beside "born", "date of birth" or "birthday" is one. Without such a word, a date in figures from the last century
is taken for one, and a date in words from before 1975 unless a preposition makes it a limit ("before 6 April 1973").
Statutes are dated in words, and later than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from guidance_agent.tracing.redaction_rules import ALONE, Found
from guidance_agent.tracing.redaction_views import Reading

__all__ = ["dates_of_birth"]

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DATE = re.compile(
    r"[0-9]" + ALONE + r"(?:"
    r"(?P<iso>(?<=[12])(?P<iso_year>[09][0-9]{2})\s?[-/. ]\s?[0-9]{1,2}\s?[-/. ]\s?[0-9]{1,2})"
    r"|(?P<figures>[0-9]?\s?(?P<gap>[-/. ])\s?[0-9]{1,2}\s?(?P=gap)\s?'?(?P<year>(?:19|20)[0-9]{2}|[0-9]{2}))"
    rf"|(?P<words>(?P<day>[0-9]?(?:\s?(?:st|nd|rd|th))?[\s,.\-/]{{1,2}}(?:day\s)?(?:of\s)?(?:the\s)?){_MONTH}"
    r"[\s,.\-/]{1,3}'?(?P<words_year>(?:19|20)[0-9]{2}|(?<=')[0-9]{2}|(?<=[-/])[0-9]{2}))"
    r"|(?P<compact>[0-9]{7})|(?P<only_year>(?<=[12])[09][0-9]{2})"
    rf"|(?P<no_year>[0-9]?(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH})"
    r")(?![0-9]|[-/][0-9])"
)
_AMERICAN = re.compile(rf"{_MONTH}\s[0-9]{{1,2}}(?:st|nd|rd|th)?(?:,?\s|,)'?(?P<year>(?:19|20)[0-9]{{2}})(?![0-9])")
_MONTH_YEAR = re.compile(rf"{_MONTH},?\s(?:19|20)[0-9]{{2}}(?![0-9])")

_CUE = re.compile(
    r"date[\s_-]{0,2}of[\s_-]{0,2}birth|dateofbirth|birth[\s_-]?da(?:te|y)|d\.?\s?o\.?\s?b\b\.?|\bborn\b"
    r"|birth[\s_-]?year(?!s)"
)
_LIMIT = re.compile(r"\b(?:before|after|between|until|since|from|or)\b")
_GROUP = re.compile(
    r"(?:people|those|anyone|women|men|someone|everyone|members|customers|person|anybody)(?:\s(?:who|that))?"
    r"(?:\s(?:is|are|was|were))?\s+\Z"
)
_FOLLOWS = re.compile(
    r"\A[^.\n]{0,8}\b(?:is|was|as|\()\s?\(?(?:my|his|her|their|your|the)?\s?(?:own\s)?(?:date of birth|birthday"
    r"|dob|d\.o\.b)|\A\s?\(?(?:dob|d\.o\.b|date of birth)"
)
_YEAR = re.compile("(?<![0-9])(?:19|20)[0-9]{2}(?![0-9])")
_OTHER_DATE = re.compile(
    r"(?:from|until|to|effective|valid|since|start|end|_on|_at|date|time|joined|left|created"
    r"|updated)[\"']?\s?[:=]\s?[\"']?\Z"
)
_BOUND = re.compile(r"\b(?:before|after|between|until|since|from|by|on|and|or|to|of|until|than|dated)\s+(?:the\s)?\Z")

_MAY_SAY = re.compile(r"birth|born|d\.?\s?o\.?\s?b")
_OLD_YEAR = re.compile("19[0-9]{2}")
_SLASHES = re.compile(r"/(?=\s?[0-9]{1,2}\s?/)")
_LONGEST_DATE = 60


def dates_of_birth(reading: Reading) -> Iterator[Found]:
    """Dates at which somebody was born."""
    regions = _where_they_can_be(reading.lower)
    for start, last in regions:
        yield from _between(reading.lower, start, last)


def _where_they_can_be(text: str) -> list[tuple[int, int]]:
    """Return where a date may begin that is one of birth: around cues, last century's years, and slashes."""
    hints = [(found.start() - 95, found.end() + 50) for found in _MAY_SAY.finditer(text)]
    hints += [(found.start() - 45, found.start()) for found in _OLD_YEAR.finditer(text)]
    hints += [(found.start() - 6, found.start()) for found in _SLASHES.finditer(text)]
    regions: list[tuple[int, int]] = []
    for start, last in sorted(hints):
        if regions and start <= regions[-1][1] + _LONGEST_DATE:
            start, last = regions[-1][0], max(last, regions.pop()[1])
        regions.append((max(0, start), last))
    return regions


def _between(text: str, low: int, last: int) -> Iterator[Found]:
    high = last + _LONGEST_DATE
    for found in _DATE.finditer(text, low, high):
        start, stop = found.span()
        if start > last:
            break
        said = _said_to_be(text, start, stop, weak=found["only_year"] is not None)
        if said or (said is None and _looks(found, text)):
            yield Found(start, stop, "DATE OF BIRTH")
    for pattern in (_AMERICAN, _MONTH_YEAR):
        for found in pattern.finditer(text, low, high):
            if found.start() > last:
                break
            if _said_to_be(text, *found.span(), weak=False) or (
                pattern is _AMERICAN and found["year"] < "1975" and not _bounded(text, found.start())
            ):
                yield Found(*found.span(), "DATE OF BIRTH")


def _said_to_be(text: str, start: int, stop: int, *, weak: bool) -> bool | None:
    """Whether the words around it make it a date of birth, or no such date; None if they do not say."""
    if (year := _YEAR.search(text, start, stop)) is not None and year[0] >= "2016":
        return False
    if _FOLLOWS.search(text[stop : stop + 40]) is not None:
        return True
    near = text[max(0, start - (18 if weak else 45)) : start]
    cues = list(_CUE.finditer(near))
    if not cues:
        return None
    cue = cues[-1]
    if _LIMIT.search(near, cue.end()) is not None:
        return False
    before = text[max(0, start - 75) : start - len(near) + cue.start()]
    return not (cue[0] == "born" and _GROUP.search(before) is not None)


def _looks(found: re.Match[str], text: str) -> bool:
    start = found.start()
    match found.lastgroup:
        case "iso":
            return found["iso_year"].startswith("9") and _OTHER_DATE.search(text, max(0, start - 30), start) is None
        case "figures":
            year, first, second = found["year"], *(int(part) for part in re.findall("[0-9]+", found[0])[:2])
            if not (1 <= min(first, second) <= 12 and 1 <= max(first, second) <= 31):
                return False
            return year.startswith("19") if len(year) == 4 else found["gap"] == "/" and year >= "30"
        case "words":
            year = found["words_year"]
            return "1900" <= year < "1975" and not _bounded(text, found.start())
        case _:
            return False


def _bounded(text: str, start: int) -> bool:
    return _BOUND.search(text, max(0, start - 16), start) is not None

"""Street addresses: a number and a street, a flat, a named house, and the places that follow them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from guidance_agent.tracing.redaction_rules import Found, any_word, listed, words_of
from guidance_agent.tracing.redaction_views import Reading

__all__ = ["addresses"]

_SURE = r"street|road|avenue|lane|crescent|terrace|mews|gardens|boulevard|esplanade"
_STREET_WORDS = listed(
    "Street St Road Rd Avenue Ave Lane Ln Close Cl Drive Dr Way Court Ct Crescent Cres Gardens Gdns Grove Gr "
    "Terrace Terr Place Pl Square Sq Hill Park Row Mews Walk Green View Rise Parade Wharf Quay Parkway Boulevard Blvd "
    "Mount Vale Meadow Meadows Croft Bank Broadway Esplanade Gate Yard Field Fields End Heights"
)
_STREETS = _STREET_WORDS | {word.upper() for word in _STREET_WORDS}
_AFTER_SPACE = re.compile(r"[A-Z](?<=\s.)[A-Za-z]+")
_STREET = rf"(?:{'|'.join(sorted(_STREET_WORDS))})"
_NUMBER = r"[0-9](?<![\w£$€.,%/#-].)[0-9]{0,3}[A-Za-z]?(?:\s?[-/]\s?[0-9]{1,4}[A-Za-z]?)?,?\s+"
_MONTHS = r"(?!(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b)"
_NUMBERED = re.compile(
    _NUMBER
    + _MONTHS
    + r"(?:(?:[A-Z][\w'.-]{0,30}|of|the|upon)\s+){1,4}"
    + _STREET
    + r"\b(?:\s(?:North|South|East|West))?"
)
_UPPER = re.compile(_NUMBER + r"(?:[A-Z][A-Z'.-]{1,30}\s+){1,3}" + _STREET.upper() + r"\b")
_LOWER = re.compile(
    r"[0-9](?<![\w£$€.,%/#-].)[0-9]{0,3}[a-z]?,?\s+(?P<words>(?:[a-z][a-z'-]{1,30}\s+){1,2})(?:" + _SURE + r")\b"
)
_FLAT = re.compile(
    r"(?:flat|apartment|apt\.?|maisonette)\s+(?:no\.?\s?|number\s)?[0-9]{1,4}[a-z]?\b(?!\s?(?:%|per\b|p\b|pounds"
    r"|years|[.,][0-9]))"
)
_NAMED_HOUSE = re.compile(
    r"(?:Cottage|House|Farm|Lodge|Villa|Barn|Manor|Bungalow|Rectory|Mill),?\s+(?:[A-Z][\w'-]{1,30}\s){1,3}"
    + _STREET
    + r"\b"
)
_HOUSE_NAME = re.compile(r"(?:[A-Z][\w'-]{1,30}\s){1,3}\Z")
_LIVES = any_word("live lives living reside resides moved moving home house address lived")
_WHERE = re.compile(r"\s+(?:(?:at|on|in|to|into|is)\s+){0,2}(?P<place>(?:[A-Z][\w'-]{1,30}\s){1,3}" + _STREET + r")\b")
_BOX = re.compile(r"p\.?\s?o\.?\s?box\s[0-9]{1,6}")
_SURE_WORDS = frozenset(_SURE.split("|"))
_UNITS = {_FLAT: listed("flat apt apartment maisonette"), _BOX: listed("box obox pobox")}
_NEXT = re.compile(
    r"(?:,[\s]{0,8}|\s{0,3}\n\s{0,8})(?P<words>[A-Z][\w'-]{1,30}(?:[ -][A-Z][\w'-]{1,30}|-(?:on|upon|in|under|le"
    r"|by|the)-[A-Z][\w'-]{1,30}){0,2})(?=\s*[,.\n]|\s+[A-Za-z]{1,2}[0-9]|\s*\"|\s*\Z)"
)


def addresses(reading: Reading) -> Iterator[Found]:
    """Lines of an address, with the towns and counties that follow them."""
    if not _STREETS.isdisjoint(reading.capitalised) and not _STREETS.isdisjoint(_AFTER_SPACE.findall(reading.text)):
        yield from _with_capitals(reading)
    lower, text = reading.lower, reading.text
    ordinary = words_of("function_words")
    for found in _LOWER.finditer(lower) if not _SURE_WORDS.isdisjoint(reading.words) else ():
        if not any(word in ordinary for word in found["words"].split()):
            yield Found(found.start(), _with_places(text, found.end()), "ADDRESS")
    for pattern, signs in _UNITS.items():
        for found in pattern.finditer(lower) if not signs.isdisjoint(reading.words) else ():
            yield Found(found.start(), _with_places(text, found.end()), "ADDRESS")


def _with_capitals(reading: Reading) -> Iterator[Found]:
    text = reading.text
    for found in _NAMED_HOUSE.finditer(text):
        if (name := _HOUSE_NAME.search(text, max(0, found.start() - 60), found.start())) is not None:
            yield Found(name.start(), _with_places(text, found.end()), "ADDRESS")
    for pattern in (_NUMBERED, _UPPER):
        for found in pattern.finditer(text):
            yield Found(found.start(), _with_places(text, found.end()), "ADDRESS")
    cues = _LIVES.finditer(reading.lower)
    for found in (place for cue in cues if (place := _WHERE.match(text, cue.end())) is not None):
        yield Found(found.start("place"), _with_places(text, found.end("place")), "ADDRESS")


def _with_places(text: str, stop: int) -> int:
    for _ in range(3):
        found = _NEXT.match(text, stop)
        if found is None or all(word.lower() in _not_places() for word in found["words"].split()):
            break
        stop = found.end()
    return stop


def _not_places() -> frozenset[str]:
    return words_of("function_words") | words_of("never_names")

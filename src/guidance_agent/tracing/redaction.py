"""Personal data out of what leaves the process: typed marks such as `[NAME]` and `[SORT CODE]` in place of the data.

    text ── windows ── two readings of each ── rules ── places in the text ── marks

Rules are in the modules beside this one. A text is searched in windows of a few thousand characters: the cost grows
with its length and not faster, and the interpreter lock is free for the event loop between two calls of a rule. Windows
overlap by more than the longest thing looked for, and what is found counts in the window where it is whole.

What cannot be redacted is never passed on: `[REDACTION FAILED]` stands in its place.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import Amounts
from guidance_agent.tracing import redaction_numbers as numbers
from guidance_agent.tracing.people import Told
from guidance_agent.tracing.redaction_addresses import addresses
from guidance_agent.tracing.redaction_amounts import amounts as pound_amounts
from guidance_agent.tracing.redaction_dates import dates_of_birth
from guidance_agent.tracing.redaction_labels import kind_of_key, labelled, plans, says_something
from guidance_agent.tracing.redaction_names import announced_names, given_names, known_names, names_of
from guidance_agent.tracing.redaction_rules import Found, Rule
from guidance_agent.tracing.redaction_secrets import secrets
from guidance_agent.tracing.redaction_views import Reading, readings

__all__ = ["FAILED", "RULES", "Redactor"]


FAILED = "[REDACTION FAILED]"
"""Stands where a text could not be redacted."""

RULES: Mapping[str, Rule] = {
    "secret": secrets,
    "email": numbers.emails,
    "iban": numbers.ibans,
    "card": numbers.cards,
    "phone": numbers.phones,
    "ni_number": numbers.ni_numbers,
    "nhs_number": numbers.nhs_numbers,
    "tax_reference": numbers.tax_references,
    "passport": numbers.passports,
    "driving_licence": numbers.driving_licences,
    "sort_code": numbers.sort_codes,
    "account_number": numbers.accounts,
    "spoken_digits": numbers.spoken_digits,
    "date_of_birth": dates_of_birth,
    "postcode": numbers.postcodes,
    "address": addresses,
    "plan_number": plans,
    "label": labelled,
    "announced_name": announced_names,
    "given_name": given_names,
}
"""Every rule by its name, but for `known_name`; of two that find the same, the earlier names it."""

_WINDOW = 12_288
_MARGIN = 512
_LONGEST_VALUE = 400
_PEOPLE = 1_000
_ONE_WORD = re.compile(r"[a-z_.]{0,80}")
_PROGRAM_PART = re.compile(r"(?:(?:app|guidance|llm|input|output|tool|gen_ai|metadata|retrieval|key|tag)[._])+")
_PLAIN_KEY = re.compile(r"[a-zA-Z_]+(?:[._][a-zA-Z_]+|\.[0-9]{1,4}(?=\.[a-zA-Z_]|\Z))*")
_logger = logging.getLogger("guidance_agent.tracing")


class Redactor:
    """Replaces personal data by marks that say what was there.

    Args:
        amounts: What is done with sums of money: nothing, one significant figure, or a mark.
        without: Names of `RULES`, or `known_name`, that are switched off.

    Raises:
        ConfigurationError: if an argument names nothing that exists.
    """

    def __init__(self, *, amounts: Amounts = "keep", without: Collection[str] = ()) -> None:
        if amounts not in {"keep", "round", "hide"}:
            raise ConfigurationError(f"amounts is {amounts!r}. Use keep, round or hide.")
        if unknown := sorted(set(without) - RULES.keys() - {"known_name"}):
            raise ConfigurationError(f"{unknown[0]!r} is no rule. Use known_name or one of {', '.join(RULES)}.")
        self._rules: list[Rule] = [rule for name, rule in RULES.items() if name not in without]
        self._known = "known_name" not in without
        self._announced = "announced_name" not in without
        self._labelled = "label" not in without
        if amounts != "keep":
            self._rules.append(pound_amounts(amounts))
        self._names_told = functools.lru_cache(maxsize=_PEOPLE)(self.names_in)

    def redact(self, text: str, *, known: Sequence[str] = (), learned: Collection[str] = ()) -> str:
        """Return the text with marks in place of personal data.

        Args:
            text: Prose, JSON, a stack trace: anything.
            known: Names and identifiers of people, found in any case; of a `Told` the names in it. See `people_of`.
            learned: Words of names that were found elsewhere, found where they are capitalised; see `names_in`.
        """
        return self.read(text, known=known, learned=learned)[0]

    def read(
        self, text: str, *, known: Sequence[str] = (), learned: Collection[str] = ()
    ) -> tuple[str, frozenset[str]]:
        """Return what `redact` returns and what `names_in` does, from one look at the text."""
        if not known and not learned and _ONE_WORD.fullmatch(text) is not None:
            return text, frozenset()
        known = self._people(known)
        windows: list[tuple[list[Reading], int]] = []
        places: list[tuple[int, int, int, Found]] = []
        announced: set[str] = set()
        for low, core, core_end, high in _windows(len(text)):
            layers = list(readings(text[low:high]))
            windows.append((layers, low))
            for reading in layers:
                for rank, rule in enumerate(self._rules):
                    found = list(rule(reading))
                    if rule is announced_names or rule is given_names:
                        announced |= names_of(found, reading)
                    places += _placed(found, reading, low, core, core_end, rank + 1)
                if self._known and known:
                    places += _placed(known_names(reading, known), reading, low, core, core_end, 0)
        if self._announced and (words := announced.union(learned)):
            wanted = tuple(sorted(words))
            for (layers, low), (_, core, core_end, _) in zip(windows, _windows(len(text)), strict=True):
                for reading in layers:
                    found = list(known_names(reading, wanted, capitalised=True))
                    places += _placed(found, reading, low, core, core_end, len(self._rules) + 1)
        return _marked(text, places), frozenset(announced if self._announced else ())

    def names_in(self, text: str) -> frozenset[str]:
        """Return words of the names that a text announces, to be redacted in other texts of the same conversation."""
        words: set[str] = set()
        if self._announced:
            for low, _, _, high in _windows(len(text)):
                for reading in readings(text[low:high]):
                    for rule in self._rules:
                        if rule is announced_names or rule is given_names:
                            words |= names_of(list(rule(reading)), reading)
        return frozenset(words)

    def safely(self, redact: Callable[[str], str], text: str) -> str:
        """Return `redact(text)`, or `FAILED`: what cannot be redacted is not passed on."""
        try:
            return redact(text)
        except Exception:  # whatever went wrong, the text must not leave
            _logger.warning("A text of %d characters could not be redacted and is left out.", len(text), exc_info=False)
            return FAILED

    def redact_key(self, key: str, *, known: Sequence[str] = (), learned: Collection[str] = ()) -> str:
        """Return the name of an attribute without personal data; what programs call things has no data but names."""
        if _PLAIN_KEY.fullmatch(key) is not None:
            reading = Reading(key)
            known = self._people(known)
            found = known_names(reading, known) if self._known and known else ()
            return _marked(key, list(_placed(found, reading, 0, 0, len(key), 0)))
        # A dot before a number would make it the end of another.
        program = None if "@" in key else _PROGRAM_PART.match(key)
        begin = 0 if program is None else program.end()
        return key[:begin] + self.redact(key[begin:], known=known, learned=learned)

    def mark_for(self, key: str, value: str) -> str | None:
        """Return the mark for a whole value whose key says that it is personal, or None."""
        kind = kind_of_key(key) if self._labelled else None
        if kind is None or len(value) > _LONGEST_VALUE or not says_something(kind, value):
            return None
        return f"[{'NAME' if kind == 'PLAIN NAME' else kind}]"

    def _people(self, known: Sequence[str]) -> Sequence[str]:
        """Return the names with those in sentences about other people, instead of the sentences."""
        told = " ".join(name for name in known if isinstance(name, Told))
        if not told:
            return known
        return (*(name for name in known if not isinstance(name, Told)), *sorted(self._names_told(told)))


def _windows(length: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield for each window where it begins, where its own part begins and ends, and where it ends."""
    for core in range(0, max(length, 1), _WINDOW):
        core_end = min(core + _WINDOW, length)
        yield max(0, core - _MARGIN), core, core_end, min(length, core_end + _MARGIN)


def _placed(
    found: Iterator[Found] | Collection[Found], reading: Reading, low: int, core: int, core_end: int, rank: int
) -> Iterator[tuple[int, int, int, Found]]:
    for one in found:
        start, end = reading.source(one.start, one.end)
        if start + low < core_end and end + low > core and start < end:
            yield start + low, end + low, rank, one


def _marked(text: str, places: list[tuple[int, int, int, Found]]) -> str:
    """Put marks into the text; what overlaps becomes one mark, named by its longest part and then by rank."""
    if not places:
        return text
    places.sort(key=lambda place: (place[0], -place[1]))
    pieces: list[str] = []
    last = 0
    start, end, rank, best = places[0]
    longest = end - start
    for next_start, next_end, next_rank, found in [*places[1:], (len(text) + 1, len(text) + 1, 0, places[0][3])]:
        if next_start < end:
            if (next_end - next_start, -next_rank) > (longest, -rank):
                longest, rank, best = next_end - next_start, next_rank, found
            end = max(end, next_end)
            continue
        pieces += [text[last:start], best.instead or f"[{best.kind}]"]
        last = end
        start, end, rank, best = next_start, next_end, next_rank, found
        longest = end - start
    pieces.append(text[last:])
    return "".join(pieces)

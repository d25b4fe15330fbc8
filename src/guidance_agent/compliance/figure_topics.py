"""What people call a figure, and what it was when: read from the package's files and the knowledge base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property, lru_cache
from importlib import resources
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from guidance_agent.compliance.figure_values import OtherPeriods, Value, value_of_figure, value_of_other
from guidance_agent.compliance.patterns import (
    Alphabet,
    Lexicon,
    PatternError,
    elements_of,
    literals,
    needed_words,
    translate_pattern,
)
from guidance_agent.compliance.quantities import MARKS, QuantityKind
from guidance_agent.core.shipped import read_shipped
from guidance_agent.errors import ConfigurationError
from guidance_agent.knowledge.loader import Knowledge

__all__ = ["ByBirth", "FigureRules", "FigureTopic", "Sought", "Statement", "WordsBefore", "figure_rules", "may_match"]

TopicKind = Literal["money", "percent", "span", "age", "count", "date"]

_ACCEPTED: dict[TopicKind, tuple[QuantityKind, ...]] = {
    "money": ("gbp", "big"),
    "percent": ("pct",),
    "span": ("span",),
    "age": ("num",),
    "count": ("num",),
    "date": ("date",),
}


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ByBirth(_Entry):
    """Values that hold for those born in a stretch of days."""

    born_from: date
    born_until: date
    values: tuple[Decimal, ...]


class _TopicEntry(_Entry):
    id: str
    kind: TopicKind
    figures: tuple[str, ...] = ()
    per: Literal["", "week", "year"] = ""
    units: tuple[str, ...] = ()
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(10_000_000)
    names: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    accepted: tuple[Decimal, ...] = ()
    accepted_unless_now: tuple[Decimal, ...] = ()
    by_birth: tuple[ByBirth, ...] = ()

    @property
    def all_patterns(self) -> tuple[str, ...]:
        return (*self.names, *self.about, *self.says, *self.then, *self.unless)


class _StatementEntry(_Entry):
    id: str
    effective_from: date
    fact: str
    right: str
    patterns: tuple[str, ...]
    after: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def all_patterns(self) -> tuple[str, ...]:
        return (*self.patterns, *self.after, *self.then, *self.unless)


@dataclass(frozen=True, eq=False)
class Sought:
    """A pattern, compiled when a sentence first calls for it.

    Attributes:
        expression: The pattern as a regular expression.
        needs_each: Sets of words, the rarest first: a sentence needs one of each. None for a pattern of numbers.
    """

    expression: str
    needs_each: tuple[frozenset[str], ...]

    @property
    def needs(self) -> frozenset[str]:
        """The rarest of the sets; empty when there is none."""
        return self.needs_each[0] if self.needs_each else frozenset()

    def may_match(self, vocabulary: Set[str]) -> bool:
        """Whether a sentence of these words can match."""
        for needs in self.needs_each:  # noqa: SIM110 - a generator costs more than what it would go through
            if needs.isdisjoint(vocabulary):
                return False
        return True

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.expression)


def may_match(patterns: Iterable[Sought], vocabulary: Set[str]) -> bool:
    """Whether a sentence of these words can match one of the patterns."""
    for sought in patterns:  # noqa: SIM110 - as above
        if sought.may_match(vocabulary):
            return True
    return False


class WordsBefore(Protocol):
    """What stands before a sentence."""

    def may_have(self, patterns: tuple[Sought, ...]) -> bool:
        """Whether one of the patterns can be found there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FigureTopic:
    """A figure as people speak of it.

    Attributes:
        accepts: Kinds of number that it can be.
        per: For money by the week or by the year: which.
        units: For a span of time: those in which it is counted; none means any.
        low, high: Bounds outside which a number is something else.
        names: What it is called; a number near a name is compared.
        about: What else shows that a sentence is about it, so that `then` applies.
        says: Patterns of the figure itself, its place named `said`.
        then: The same, where a sentence or what stands before it is about the figure.
        unless: What leaves a sentence alone.
        accepted: Values that are right, too.
        accepted_unless_now: Values that are right for some, unless they are given as today's.
        values: Every known value with its period.
    """

    id: str
    kind: TopicKind
    accepts: tuple[QuantityKind, ...]
    per: str
    units: tuple[str, ...]
    low: Decimal
    high: Decimal
    names: tuple[Sought, ...]
    about: tuple[Sought, ...]
    says: tuple[Sought, ...]
    then: tuple[Sought, ...]
    unless: tuple[Sought, ...]
    accepted: tuple[Decimal, ...]
    accepted_unless_now: tuple[Decimal, ...]
    by_birth: tuple[ByBirth, ...]
    values: tuple[Value, ...]

    def may_be_said(self, words: Set[str], before: WordsBefore | None) -> bool:
        """Whether these words, and those before them, are all that it takes to say something of the figure.

        Args:
            words: The words of a sentence, and marks for its numbers.
            before: What stands before it.
        """
        if may_match(self.names, words) or may_match(self.says, words):
            return True
        if before is not None and before.may_have(self.names):
            return True
        if not may_match(self.then, words):
            return False
        return may_match(self.about, words) or (before is not None and before.may_have(self.about))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statement:
    """What holds only from `effective_from` on, and how it is said, without a number, as if it held already.

    `then` applies where what stands before the sentence matches one of `after`.
    """

    id: str
    effective_from: date
    fact: str
    right: str
    patterns: tuple[Sought, ...]
    after: tuple[Sought, ...]
    then: tuple[Sought, ...]
    unless: tuple[Sought, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRules:
    """All topics and statements, and the alphabet in which their patterns are written."""

    topics: tuple[FigureTopic, ...]
    statements: tuple[Statement, ...]
    alphabet: Alphabet


def figure_rules(knowledge: Knowledge) -> FigureRules:
    """Return the rules of the package with the values that `knowledge` and the file of other periods give them.

    Raises:
        ConfigurationError: a file is not valid, or a topic names a figure that neither of them has.
    """
    read = _read()
    values: dict[str, list[Value]] = {}
    for figure in knowledge.figures:
        values.setdefault(figure.id, []).append(value_of_figure(figure))
    for other in read.others:
        values.setdefault(other.figure, []).extend(value_of_other(other, each) for each in other.values)
    return FigureRules(
        topics=tuple(_topic(entry, values, read) for entry in read.topics),
        statements=tuple(_statement(entry, read) for entry in read.statements),
        alphabet=read.alphabet,
    )


def _topic(entry: _TopicEntry, values: Mapping[str, Sequence[Value]], read: _Files) -> FigureTopic:
    for name in entry.figures:
        if name not in values:
            raise ConfigurationError(f"The topic {entry.id!r} names the figure {name!r}, which is unknown. Correct it.")
    accepts = _ACCEPTED[entry.kind]
    return FigureTopic(
        id=entry.id,
        kind=entry.kind,
        accepts=accepts,
        per=entry.per,
        units=entry.units,
        low=entry.low,
        high=entry.high,
        names=_sought(entry.names, read),
        about=_sought(entry.about, read),
        says=_sought(entry.says, read, accepts),
        then=_sought(entry.then, read, accepts),
        unless=_sought(entry.unless, read),
        accepted=entry.accepted,
        accepted_unless_now=entry.accepted_unless_now,
        by_birth=entry.by_birth,
        values=tuple(value for name in entry.figures for value in values[name]),
    )


def _statement(entry: _StatementEntry, read: _Files) -> Statement:
    return Statement(
        id=entry.id,
        effective_from=entry.effective_from,
        fact=entry.fact,
        right=entry.right,
        patterns=_sought(entry.patterns, read),
        after=_sought(entry.after, read),
        then=_sought(entry.then, read),
        unless=_sought(entry.unless, read),
    )


_TARGET = "@"
"""What stands in a pattern for the figure itself."""


def _sought(patterns: Iterable[str], read: _Files, accepts: Sequence[QuantityKind] = ()) -> tuple[Sought, ...]:
    found = []
    for each in patterns:
        if each.split().count(_TARGET) != bool(accepts):
            raise PatternError(f"The pattern {each!r} must have the figure's place, '@', just where one is sought.")
        expression = translate_pattern(each, read.lexicon, read.alphabet)
        if accepts:
            marks = read.alphabet.one_of([f"#{kind}" for kind in accepts])
            expression = expression.replace(read.alphabet.one_of([_TARGET]), f"(?P<said>{marks})")
        found.append(Sought(expression, _needs(each, read.lexicon)))
    return tuple(found)


def _needs(pattern: str, lexicon: Lexicon) -> tuple[frozenset[str], ...]:
    """Return the sets of words that the pattern needs; none when it needs nothing but numbers."""
    written = [element for element in elements_of(pattern) if element != _TARGET and "#" not in element]
    try:
        return needed_words(" ".join(written), lexicon)
    except PatternError:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    topics: Sequence[_TopicEntry]
    others: Sequence[OtherPeriods]
    statements: Sequence[_StatementEntry]
    lexicon: Lexicon
    alphabet: Alphabet


@lru_cache(maxsize=1)
def _read() -> _Files:
    folder = resources.files("guidance_agent.compliance") / "rules" / "figures"
    names = sorted(file.name for file in folder.iterdir() if file.name.startswith("topics_"))
    topics = [entry for name in names for entry in read_shipped(folder / name, list[_TopicEntry])]
    statements = read_shipped(folder / "statements.yaml", list[_StatementEntry])
    lexicon = read_shipped(folder / "lexicon.yaml", dict[str, list[str]])
    named = {word for entries in lexicon.values() for entry in entries for word in entry.split()}
    written = [each.all_patterns for each in topics] + [each.all_patterns for each in statements]
    named |= {word for patterns in written for pattern in patterns for word in literals(pattern)}
    return _Files(
        topics=topics,
        others=read_shipped(folder / "other_periods.yaml", list[OtherPeriods]),
        statements=statements,
        lexicon=lexicon,
        alphabet=Alphabet(sorted(named | MARKS | {_TARGET})),
    )

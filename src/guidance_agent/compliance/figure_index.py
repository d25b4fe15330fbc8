"""Which figures a sentence can speak of, by its words and by its numbers, as sets of bits.

Most sentences with a number say nothing that is compared. Two numbers with one bit for each topic tell that in a few
operations: those that the words call for, and those that a number can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from guidance_agent.compliance.figure_topics import FigureTopic, Sought
from guidance_agent.compliance.figure_values import is_value
from guidance_agent.compliance.quantities import Quantity, QuantityKind

__all__ = ["Called", "TopicIndex"]

_KEPT = 4_096


class Called(NamedTuple):
    """The topics that words call for: by a name, as what a sentence is about, by a pattern of the figure itself, and by
    one that holds where the sentence is about the figure."""

    names: int
    about: int
    says: int
    then: int

    @property
    def any_topic(self) -> int:
        return self.names | self.about | self.says

    def collecting(self, before: Called) -> int:
        """Return the topics of which a number may be read, behind words that call for `before`."""
        spoken_of = self.names | self.about | before.names | before.about
        return self.names | self.says | before.names | (self.then & spoken_of)


class TopicIndex:
    """All topics, each with a bit, in the order of their ids."""

    def __init__(self, topics: Iterable[FigureTopic]) -> None:
        self._topics = sorted(topics, key=lambda topic: topic.id)
        self._names = self._by_word([topic.names for topic in self._topics])
        self._about = self._by_word([topic.about for topic in self._topics])
        self._says = self._by_word([topic.says for topic in self._topics])
        self._then = self._by_word([topic.then for topic in self._topics])
        self._words = frozenset({*self._names, *self._about, *self._says, *self._then})
        # A pattern that needs no word may be found everywhere.
        self._always = Called(*(each.get("", 0) for each in (self._names, self._about, self._says, self._then)))
        self._accepting = {
            kind: sum(1 << number for number, topic in enumerate(self._topics) if kind in topic.accepts)
            for kind in ("gbp", "big", "pct", "span", "num", "date")
        }
        self._fitting = lru_cache(maxsize=_KEPT)(self._find_fitting)
        self._right = lru_cache(maxsize=_KEPT)(self._find_right)

    def called(self, vocabulary: frozenset[str]) -> Called:
        """Return what words call for."""
        names, about, says, then = self._always
        for word in self._words & vocabulary:
            names |= self._names.get(word, 0)
            about |= self._about.get(word, 0)
            says |= self._says.get(word, 0)
            then |= self._then.get(word, 0)
        return Called(names, about, says, then)

    def accepting(self, quantities: Iterable[Quantity | None]) -> int:
        """Return the topics that are numbers of one of the kinds."""
        found = 0
        for quantity in quantities:
            if quantity is not None:
                found |= self._accepting[quantity.kind]
        return found

    def fitting(self, quantity: Quantity) -> int:
        """Return the topics that the number can be."""
        is_vague = quantity.first == date.min
        return self._fitting(quantity.kind, quantity.value, quantity.per, quantity.unit, is_vague)

    def right(self, quantity: Quantity, on: date) -> int:
        """Return the topics of which the number is right on the day, whether it is meant roughly or not."""
        if quantity.kind == "date":
            return 0
        return self._right(quantity.kind, quantity.value, quantity.unit, quantity.exact, on)

    def topics(self, bits: int) -> Iterator[tuple[int, FigureTopic]]:
        """Yield the topics of a set, each with its bit."""
        while bits:
            bit = bits & -bits
            yield bit, self._topics[bit.bit_length() - 1]
            bits ^= bit

    def _by_word(self, sought: Sequence[Sequence[Sought]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, patterns in enumerate(sought):
            for pattern in patterns:
                for word in pattern.needs or ("",):
                    found[word] = found.get(word, 0) | (1 << number)
        return found

    def _find_fitting(self, kind: QuantityKind, value: Decimal, per: str, unit: str, is_vague: bool) -> int:
        found = 0
        for bit, topic in self.topics(self._accepting[kind]):
            if topic.kind == "date":
                is_fitting = not is_vague
            elif (topic.per and per not in (topic.per, "")) or (topic.units and unit not in topic.units):
                is_fitting = False
            else:
                is_fitting = topic.low <= value <= topic.high
            found |= bit if is_fitting else 0
        return found

    def _find_right(self, kind: QuantityKind, value: Decimal, unit: str, exact: bool, on: date) -> int:
        said = Quantity(kind=kind, value=value, start=0, end=0, unit=unit, exact=exact)
        found = 0
        for bit, topic in self.topics(self._accepting[kind]):
            holding = [each for each in topic.values if each.first <= on <= each.last]
            if value in topic.accepted or any(is_value(said, each, approximate=False) for each in holding):
                found |= bit
        return found

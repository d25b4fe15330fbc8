"""Which figures a sentence can speak of, by its words and by its numbers, as sets of bits.

Most sentences with a number say nothing that is compared. Two numbers with one bit for each topic tell that in a few
operations: those that the words call for, and those that a number can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from guidance_agent.compliance.figure_topics import FigureTopic
from guidance_agent.compliance.figure_values import is_value
from guidance_agent.compliance.quantities import Quantity, QuantityKind

__all__ = ["NOTHING_CALLED", "Called", "TopicIndex"]

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

    def collecting(self, before: Called, elliptic: int) -> int:
        """Return the topics of which a number may be read, behind words that call for `before`.

        Args:
            elliptic: Topics of which a number may be read where only what stands before names them.
        """
        spoken_of = self.names | self.about | before.names | before.about
        return self.names | self.says | (before.names & elliptic) | (self.then & spoken_of)

    def adds(self, called: Called, elliptic: int, fitting: int) -> int:
        """Return the topics of which a number may be read only because they were spoken of before.

        Args:
            called: What the words of the sentence call for.
            elliptic: As in `collecting`.
            fitting: Topics that its numbers can be.
        """
        return fitting & ((self.names & elliptic) | (called.then & (self.names | self.about)))


NOTHING_CALLED = Called(0, 0, 0, 0)


class TopicIndex:
    """All topics, each with a bit, in the order of their ids."""

    def __init__(self, topics: Iterable[FigureTopic]) -> None:
        self._topics = sorted(topics, key=lambda topic: topic.id)
        self._width = len(self._topics)
        self._mask = (1 << self._width) - 1
        self.by_word: dict[str, int] = {}
        """For each word the four sets of `Called` in one number."""
        self.always = 0
        """What a pattern that needs no word calls for everywhere."""
        self._index_words()
        self._words = frozenset(self.by_word)
        self._accepting = {
            kind: sum(1 << number for number, topic in enumerate(self._topics) if kind in topic.accepts)
            for kind in ("gbp", "big", "pct", "span", "num", "date")
        }
        self.by_birth = sum(1 << number for number, topic in enumerate(self._topics) if topic.by_birth)
        """The topics whose values depend on somebody's birth."""
        self._fitting = lru_cache(maxsize=_KEPT)(self._find_fitting)
        self._right = lru_cache(maxsize=_KEPT)(self._find_right)

    def called(self, vocabulary: frozenset[str]) -> Called:
        """Return what words call for."""
        by_word, packed = self.by_word, self.always
        for word in self._words & vocabulary:
            packed |= by_word[word]
        return self.unpacked(packed)

    def unpacked(self, packed: int) -> Called:
        """Return the four sets of one number: what values of `by_word` and `always` together call for."""
        mask, width = self._mask, self._width
        return Called(packed & mask, packed >> width & mask, packed >> 2 * width & mask, packed >> 3 * width)

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

    def _index_words(self) -> None:
        for number, topic in enumerate(self._topics):
            for sort, patterns in enumerate((topic.names, topic.about, topic.says, topic.then)):
                bit = 1 << (number + sort * self._width)
                for pattern in patterns:
                    for word in pattern.needs:
                        self.by_word[word] = self.by_word.get(word, 0) | bit
                    if not pattern.needs:
                        self.always |= bit

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

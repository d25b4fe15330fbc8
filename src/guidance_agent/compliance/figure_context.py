"""Words as patterns see them, and what stands before a sentence, each part of it read once and only when asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from guidance_agent.compliance.figure_index import Called, TopicIndex
from guidance_agent.compliance.figure_topics import Sought, may_match
from guidance_agent.compliance.language import Words, tokens_without_places, vocabulary_of
from guidance_agent.compliance.patterns import Alphabet
from guidance_agent.compliance.quantities import MARKS, Quantity, quantities_of

__all__ = ["FigureContext", "Stretch"]


class Stretch:
    """Words as patterns see them."""

    __slots__ = ("_alphabet", "_code", "_words", "vocabulary")

    def __init__(self, words: Words, alphabet: Alphabet) -> None:
        self._alphabet = alphabet
        self._code = ""
        self._words = words
        self.vocabulary = words.vocabulary

    @property
    def code(self) -> str:
        """One character for each of the words."""
        if not self._code:
            self._code = self._alphabet.encode(self._words.texts)
        return self._code

    def matches(self, patterns: Iterable[Sought]) -> Iterator[re.Match[str]]:
        """Yield every place where one of the patterns is found."""
        for sought in patterns:
            if sought.may_match(self.vocabulary):
                yield from sought.regex.finditer(self.code)

    def may_have(self, patterns: Iterable[Sought]) -> bool:
        """Whether `has` can find one of the patterns."""
        return may_match(patterns, self.vocabulary)

    def has(self, patterns: Iterable[Sought]) -> bool:
        """Whether one of the patterns is found."""
        return next(self.matches(patterns), None) is not None


class FigureContext:
    """What stands before a sentence, such as the question that it answers."""

    def __init__(self, words: Words | str, alphabet: Alphabet) -> None:
        self._given = words
        self._alphabet = alphabet
        self._called: Called | None = None
        self._possible: dict[tuple[Sought, ...], bool] = {}
        self._found: dict[tuple[Sought, ...], bool] = {}

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """All words of `stretch`, and some more: those that are parts of its numbers, and every mark."""
        given = self._given
        return (given.vocabulary if isinstance(given, Words) else vocabulary_of(given)) | MARKS

    def called(self, index: TopicIndex) -> Called:
        """Return what `vocabulary` calls for; some more than the words of `stretch` do."""
        if self._called is None:
            self._called = index.called(self.vocabulary)
        return self._called

    @cached_property
    def _words(self) -> Words:
        return self._given if isinstance(self._given, Words) else Words(tokens_without_places(self._given))

    @cached_property
    def read(self) -> tuple[Words, list[Quantity | None]]:
        """The words with marks for their numbers, and the numbers."""
        return quantities_of(self._words, "")

    @cached_property
    def stretch(self) -> Stretch:
        """The words with marks for their numbers."""
        return Stretch(self.read[0], self._alphabet)

    @cached_property
    def plain(self) -> Stretch:
        """The words as they stand."""
        return Stretch(self._words, self._alphabet)

    def may_have(self, patterns: tuple[Sought, ...]) -> bool:
        """Whether `has` can find one of the patterns; does not read the numbers."""
        found = self._possible.get(patterns)
        if found is None:
            found = self._possible[patterns] = may_match(patterns, self.vocabulary)
        return found

    def has(self, patterns: tuple[Sought, ...]) -> bool:
        """Whether one of the patterns is found in `stretch`."""
        if not self.may_have(patterns):
            return False
        found = self._found.get(patterns)
        if found is None:
            found = self._found[patterns] = self.stretch.has(patterns)
        return found

"""Sums of weights over the features of a sentence, word by word.

The weights are made by `python -m fitting` from labelled sentences and shipped with the package. A model is
a function of the words alone. What a pair of words is worth is looked up once and kept, so that a sentence costs little
more than a few look-ups for each word.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from guidance_agent.compliance.sentence_features import (
    BEGINNING,
    BREAKS,
    WINDOW,
    WordKinds,
    opening_features,
    pair_features,
    triple_features,
    vicinity_features,
    word_features,
)

__all__ = ["LinearModel", "RunningScore", "count_features", "features_by_word", "highest_sum"]

_KEPT = 65_536
"""Values that are kept of each sort; with more, all are worked out anew."""


_Key = TypeVar("_Key")


class LinearModel:
    """Weights of features, and the values of words and of words together that follow from them.

    Attributes:
        bias: What a sentence without words is worth.
        weights: What each feature adds, each time that it occurs.
    """

    def __init__(self, bias: float, weights: Mapping[str, float], kinds: WordKinds) -> None:
        self.bias = bias
        self.weights = weights
        self._kinds = kinds
        self._words: dict[str, float] = {}
        self._pairs: dict[tuple[str, str], float] = {}
        self._triples: dict[tuple[str, str, str], float] = {}
        self._steps: dict[tuple[str, str, str], float] = {}
        self._vicinities: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = {}
        self._openings: dict[tuple[str, str], float] = {}

    def kinds(self, word: str) -> tuple[str, ...]:
        return self._kinds.get(word, ())

    def word(self, word: str) -> float:
        value = self._words.get(word)
        if value is None:
            value = self._kept(self._words, word, self._sum(word_features(word, self._kinds)))
        return value

    def pair(self, before: str, word: str) -> float:
        value = self._pairs.get((before, word))
        if value is None:
            value = self._kept(self._pairs, (before, word), self._sum(pair_features(before, word, self._kinds)))
        return value

    def triple(self, first: str, second: str, third: str) -> float:
        value = self._triples.get((first, second, third))
        if value is None:
            found = self._sum(triple_features(first, second, third))
            value = self._kept(self._triples, (first, second, third), found)
        return value

    def step(self, second: str, before: str, word: str) -> float:
        """Return what a word is worth after the two before it, by itself and with them."""
        value = self._steps.get((second, before, word))
        if value is None:
            # In the order in which the three have always been added: floats differ by it in their last digit.
            value = self.word(word) + self.pair(before, word)
            value = self._kept(self._steps, (second, before, word), value + self.triple(second, before, word))
        return value

    def vicinity(self, before: tuple[str, ...], now: tuple[str, ...]) -> float:
        value = self._vicinities.get((before, now))
        if value is None:
            value = self._kept(self._vicinities, (before, now), self._sum(vicinity_features(before, now)))
        return value

    def opening(self, word: str, mark: str) -> float:
        value = self._openings.get((word, mark))
        if value is None:
            value = self._kept(self._openings, (word, mark), self._sum(opening_features(word, self._kinds, mark)))
        return value

    def score(self, words: Iterable[str]) -> float:
        """Return what a whole sentence is worth."""
        running = RunningScore(self)
        for word in words:
            running.read(word)
        return running.value

    def _kept(self, values: dict[_Key, float], key: _Key, value: float) -> float:
        if len(values) >= _KEPT:
            values.clear()
        values[key] = value
        return value

    def _sum(self, features: Iterable[str]) -> float:
        weights = self.weights
        return sum([weights.get(feature, 0.0) for feature in features])


class RunningScore:
    """The sum of a sentence that is being read.

    Attributes:
        value: The sum so far.
    """

    __slots__ = ("_before", "_clause", "_first", "_model", "_second", "value")

    def __init__(self, model: LinearModel) -> None:
        self._model = model
        self._before = self._second = BEGINNING
        self._clause: list[tuple[str, ...]] = []
        self._first = ""
        self.value = model.bias

    def read(self, word: str) -> float:
        """Take the next word and return what it added."""
        model = self._model
        if word in BREAKS:
            added = model.word(word)
            self._clause = []
        else:
            added = model.step(self._second, self._before, word)
            kinds = model.kinds(word)
            clause = self._clause
            if not clause:
                added += model.opening(word, "S")
            elif kinds:
                for near in clause[-WINDOW:-1]:
                    if near:
                        added += model.vicinity(near, kinds)
            if not self._first:
                self._first = word
            if word == "?":
                added += model.opening(self._first, "Q")
            clause.append(kinds)
        self._second, self._before = self._before, word
        self.value += added
        return added


SLACK = 2.0
SLACK_WORDS = 20
"""The first words of a sentence say little; a sum must be so much higher there, falling to nothing at this word."""


_SLACK = tuple(SLACK * (1 - number / SLACK_WORDS) for number in range(SLACK_WORDS))


def slack(number: int, word: str) -> float:
    """Return how much higher the sum must be after so many words to count as much as at the sentence's end."""
    return 0.0 if number >= SLACK_WORDS or word in ("?", ".", "!") else _SLACK[number]


def highest_sum(model: LinearModel, words: Iterable[str]) -> float:
    """Return the highest sum that a sentence reaches while it is read, less the slack of its first words."""
    running = RunningScore(model)
    highest = -math.inf
    for number, word in enumerate(words, start=1):
        running.read(word)
        highest = max(highest, running.value - slack(number, word))
    return highest


class _Collector(LinearModel):
    """Keeps the features of what is read instead of adding up their weights."""

    def __init__(self, kinds: WordKinds) -> None:
        super().__init__(0.0, {}, kinds)
        self.found: list[str] = []

    def _kept(self, values: dict[_Key, float], key: _Key, value: float) -> float:
        return value

    def _sum(self, features: Iterable[str]) -> float:
        self.found.extend(features)
        return 0.0


def features_by_word(words: Iterable[str], kinds: WordKinds) -> list[list[str]]:
    """Return for every word of a sentence the features that it adds."""
    collector = _Collector(kinds)
    running = RunningScore(collector)
    by_word = []
    for word in words:
        collector.found = []
        running.read(word)
        by_word.append(collector.found)
    return by_word


def count_features(words: Iterable[str], kinds: WordKinds) -> Counter[str]:
    """Return how often each feature occurs in a sentence."""
    return Counter(feature for added in features_by_word(words, kinds) for feature in added)

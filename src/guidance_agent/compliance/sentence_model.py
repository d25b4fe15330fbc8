"""Sums over the features of a sentence, word by word: of weights, of places in a table, or of the features themselves.

The weights are made by `python -m fitting` from labelled sentences and shipped with the package. A model is
a function of the words alone. What a pair of words is worth is looked up once and kept, so that a sentence costs little
more than a few look-ups for each word.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

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

__all__ = ["FeaturePlaces", "FeatureSums", "LinearModel", "RunningSum", "count_features", "highest_sum"]

_KINDS_BITS = 20


_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")
_Sum = TypeVar("_Sum", float, tuple[int, ...], tuple[str, ...])


class FeatureSums(ABC, Generic[_Sum]):
    """What words, and words together, add to a sum over features; each is worked out once and kept.

    Attributes:
        nothing: What a sentence without words is worth.
        kept: Values that are kept of each sort; with more, all are worked out anew.
    """

    kept = 65_536

    def __init__(self, nothing: _Sum, kinds: WordKinds) -> None:
        self.nothing: _Sum = nothing
        self._kinds = kinds
        self._words: dict[str, _Sum] = {}
        self._pairs: dict[tuple[str, str], _Sum] = {}
        self.steps: dict[tuple[str, str, str], tuple[_Sum, int]] = {}
        """What `step` has returned."""
        self.vicinities: dict[int, _Sum] = {}
        """What `vicinity` has returned, by both numbers in one."""
        self._openings: dict[tuple[str, str], _Sum] = {}
        self._named = [(), *sorted(set(kinds.values()))]
        self._numbers = {named: number for number, named in enumerate(self._named)}

    def word(self, word: str) -> _Sum:
        """Return what a word adds by itself."""
        value = self._words.get(word)
        if value is None:
            value = self._keep(self._words, word, self._sum(word_features(word, self._kinds)))
        return value

    def step(self, second: str, before: str, word: str) -> tuple[_Sum, int]:
        """Return what a word adds after the two before it, by itself and with them, and the number of its kinds."""
        value = self.word(word)
        pair = self._pairs.get((before, word))
        if pair is None:
            pair = self._keep(self._pairs, (before, word), self._sum(pair_features(before, word, self._kinds)))
        # In the order in which the three have always been added: floats differ by it in their last digit.
        value += pair
        value += self._sum(triple_features(second, before, word))
        return self._keep(self.steps, (second, before, word), (value, self._numbers[self._kinds.get(word, ())]))

    def vicinity(self, before: int, now: int) -> _Sum:
        """Return what kinds of words add that stand near each other, named by their numbers."""
        found = self._sum(vicinity_features(self._named[before], self._named[now]))
        return self._keep(self.vicinities, before << _KINDS_BITS | now, found)

    def opening(self, word: str, mark: str) -> _Sum:
        """Return what a word adds as the first one of a clause or a question."""
        value = self._openings.get((word, mark))
        if value is None:
            value = self._keep(self._openings, (word, mark), self._sum(opening_features(word, self._kinds, mark)))
        return value

    def _keep(self, values: dict[_Key, _Kept], key: _Key, value: _Kept) -> _Kept:
        if len(values) >= self.kept:
            values.clear()
        values[key] = value
        return value

    @abstractmethod
    def _sum(self, features: Iterable[str]) -> _Sum:
        """Return what features add together."""


class LinearModel(FeatureSums[float]):
    """Weights of features.

    Attributes:
        bias: What a sentence without words is worth.
        weights: What each feature adds, each time that it occurs.
    """

    def __init__(self, bias: float, weights: Mapping[str, float], kinds: WordKinds) -> None:
        super().__init__(bias, kinds)
        self.bias = bias
        self.weights = weights

    def score(self, words: Iterable[str]) -> float:
        """Return what a whole sentence is worth."""
        running = RunningSum(self)
        for word in words:
            running.read(word)
        return running.value

    def _sum(self, features: Iterable[str]) -> float:
        weights = self.weights
        return sum([weights.get(feature, 0.0) for feature in features])


class FeaturePlaces(FeatureSums[tuple[int, ...]]):
    """The places that features have in a table; those without one are left out."""

    kept = 16_384

    def __init__(self, places: Mapping[str, int], kinds: WordKinds) -> None:
        super().__init__((), kinds)
        self._places = places

    def __contains__(self, feature: str) -> bool:
        return feature in self._places

    def by_word(self, words: Iterable[str]) -> list[tuple[int, ...]]:
        """Return for every word of a sentence the places of the features that it adds."""
        running = RunningSum(self)
        return [running.read(word) for word in words]

    def _sum(self, features: Iterable[str]) -> tuple[int, ...]:
        found = self._places.get
        return tuple([place for feature in features if (place := found(feature)) is not None])


class RunningSum(Generic[_Sum]):
    """The sum of a sentence that is being read.

    Attributes:
        value: The sum so far.
    """

    __slots__ = ("_before", "_clause", "_first", "_model", "_second", "_steps", "_vicinities", "value")

    def __init__(self, model: FeatureSums[_Sum]) -> None:
        self._model: FeatureSums[_Sum] = model
        self._steps: dict[tuple[str, str, str], tuple[_Sum, int]] = model.steps
        self._vicinities: dict[int, _Sum] = model.vicinities
        self._before = self._second = BEGINNING
        self._clause: list[int] = []
        self._first = ""
        self.value: _Sum = model.nothing

    def read(self, word: str) -> _Sum:
        """Take the next word and return what it added."""
        second, before = self._second, self._before
        self._second, self._before = before, word
        if word in BREAKS:
            added = self._model.word(word)
            self._clause = []
            self.value += added
            return added
        step = self._steps.get((second, before, word))
        added, kinds = self._model.step(second, before, word) if step is None else step
        clause = self._clause
        if not clause:
            added += self._model.opening(word, "S")
        elif kinds:
            vicinities = self._vicinities
            for near in clause[-WINDOW:-1]:
                if near:
                    value = vicinities.get(near << _KINDS_BITS | kinds)
                    added += self._model.vicinity(near, kinds) if value is None else value
        if not self._first:
            self._first = word
        if word == "?":
            added += self._model.opening(self._first, "Q")
        clause.append(kinds)
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
    running = RunningSum(model)
    highest = -math.inf
    for number, word in enumerate(words, start=1):
        running.read(word)
        highest = max(highest, running.value - slack(number, word))
    return highest


class _Features(FeatureSums[tuple[str, ...]]):
    """The features themselves."""

    def _sum(self, features: Iterable[str]) -> tuple[str, ...]:
        return tuple(features)


def count_features(words: Iterable[str], kinds: WordKinds) -> Counter[str]:
    """Return how often each feature occurs in a sentence."""
    running = RunningSum(_Features((), kinds))
    return Counter([feature for word in words for feature in running.read(word)])

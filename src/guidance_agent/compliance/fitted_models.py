"""The models that the package ships: a cue, a network for breaches, and which check a breach belongs to.

The network gives every feature a short vector; their sum goes through one layer. It sees what the sum of weights
cannot: that the same words weigh differently in different company. Both are functions of the words alone.
"""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from guidance_agent.compliance.sentence_features import load_word_kinds, word_features
from guidance_agent.compliance.sentence_model import FeaturePlaces, LinearModel

__all__ = ["BreachNetwork", "CheckModels", "FittedModels", "NetworkReading", "load_models"]

_CHECK = "check:"
"""Begins the names of models that say which check a breach belongs to."""
_LENGTH = 3.0
"""Length to which the features of a sentence are scaled together, however many there are."""


class BreachNetwork:
    """Scores a sentence, and says how much each of its words adds.

    Args:
        stored: `features`, `steps`, `hidden_bias`, `weights` and `bias` as `python -m fitting` writes them.
        vectors: One row of whole numbers for each feature; `steps` says what one is worth in each column.
    """

    def __init__(self, stored: Mapping[str, Any], vectors: np.ndarray) -> None:
        self._vectors = vectors
        self._features = len(vectors)
        self._steps = np.array(stored["steps"])
        self._hidden_bias = np.array(stored["hidden_bias"])
        self._weights = np.array(stored["weights"])
        self._bias = float(stored["bias"])

    def read(self, by_word: Sequence[Sequence[int]]) -> NetworkReading:
        """Read a sentence.

        Args:
            by_word: The places of the features that each word adds. Only those that the network knows count, as when
                it was fitted.
        """
        features = self._features
        known = list({place for added in by_word for place in added if place < features})
        if not known:
            return NetworkReading(self._bias, by_word, known, None, None)
        scale = self._steps * (_LENGTH / math.sqrt(len(known)))
        vectors = self._vectors[known]
        before = np.add.reduce(vectors, axis=0, dtype=np.int64) * scale + self._hidden_bias
        active = before > 0
        score = float(before[active] @ self._weights[active]) + self._bias
        return NetworkReading(score, by_word, known, vectors, np.where(active, self._weights, 0.0) * scale)


class NetworkReading(NamedTuple):
    """What the network says of a sentence; the share of each word in it is worked out when it is asked for."""

    score: float
    by_word: Sequence[Sequence[int]]
    known: Sequence[int]
    vectors: np.ndarray | None
    worth: np.ndarray | None

    def shares(self) -> list[float]:
        """Return what each word adds to the score; what two words have in common counts for the first."""
        if self.vectors is None or self.worth is None:
            return [0.0 for _ in self.by_word]
        left = dict(zip(self.known, (self.vectors @ self.worth).tolist(), strict=True))
        return [sum([left.pop(place, 0.0) for place in added]) for added in self.by_word]


class CheckModels:
    """Says which check a breach belongs to: the one whose weights add up to most.

    Args:
        biases: What each check is worth before a word is said.
        weights: One row for each feature, one column for each check.
    """

    def __init__(self, checks: Sequence[str], biases: Sequence[float], weights: np.ndarray) -> None:
        self._checks = checks
        self._biases = np.array(biases)
        self._weights = weights

    def check_of(self, by_word: Sequence[Sequence[int]]) -> str:
        """Return the check that a breach with these features belongs to."""
        places = [place for added in by_word for place in added]
        return self._checks[int(np.argmax(self._weights[places].sum(axis=0) + self._biases))]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModels:
    """The models of the gate with their thresholds.

    Attributes:
        version: Fingerprint of the fitted values.
        features: The features that the network and the models of the checks know, each with its place.
        cue: Scores a sentence while it is read; from `cue_from` on it is held.
        cue_share: How much the cue's sum over the sentence counts beside the network's score.
        breach: Scores a whole sentence; from `breach_from` on it is a breach, below `doubt_from` it is none.
        checks: Which check a breach belongs to.
    """

    version: str
    features: FeaturePlaces
    cue: LinearModel
    cue_from: float
    cue_share: float
    breach: BreachNetwork
    breach_from: float
    doubt_from: float
    checks: CheckModels

    def knows(self, word: str) -> bool:
        """Whether a word has been learned by itself, and so says something."""
        feature = next(word_features(word, {}))
        return feature in self.features or feature in self.cue.weights


@lru_cache(maxsize=1)
def load_models() -> FittedModels:
    """Return the models that the package ships; the first call reads files and takes a moment."""
    folder = resources.files("guidance_agent.compliance") / "model"
    stored = json.loads(gzip.decompress((folder / "sentences.json.gz").read_bytes()))
    vectors = np.load(io.BytesIO(gzip.decompress((folder / "vectors.npy.gz").read_bytes())), allow_pickle=False)
    kinds = load_word_kinds()
    linear, thresholds = stored["linear"], stored["thresholds"]
    places = {feature: place for place, feature in enumerate(stored["network"]["features"])}
    return FittedModels(
        version=stored["version"],
        checks=_check_models(linear, places),
        features=FeaturePlaces(places, kinds),
        cue=LinearModel(linear["cue"]["bias"], linear["cue"]["weights"], kinds),
        cue_from=thresholds["cue"],
        cue_share=thresholds["cue_share"],
        breach=BreachNetwork(stored["network"], vectors),
        breach_from=thresholds["breach"],
        doubt_from=thresholds["doubt"],
    )


def _check_models(linear: Mapping[str, Any], places: dict[str, int]) -> CheckModels:
    """Return the models of the checks, and give those of their features places that the network does not know."""
    stored = {name.removeprefix(_CHECK): model for name, model in linear.items() if name.startswith(_CHECK)}
    for model in stored.values():
        for feature in model["weights"]:
            places.setdefault(feature, len(places))
    weights = np.zeros((len(places), len(stored)))
    for column, model in enumerate(stored.values()):
        weights[[places[feature] for feature in model["weights"]], column] = list(model["weights"].values())
    return CheckModels(tuple(stored), [model["bias"] for model in stored.values()], weights)

"""The models that the package ships: a cue, a network for breaches, and which check a breach belongs to.

The network gives every feature a short vector; their sum goes through one layer. It sees what the sum of weights
cannot: that the same words weigh differently in different company. Both are functions of the words alone.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from guidance_agent.compliance.sentence_features import load_word_kinds
from guidance_agent.compliance.sentence_model import LinearModel

__all__ = ["BreachNetwork", "FittedModels", "load_models"]

_LENGTH = 3.0
"""Length to which the features of a sentence are scaled together, however many there are."""


class BreachNetwork:
    """Scores a sentence, and says how much each of its words adds.

    Args:
        stored: `features`, `steps`, `hidden_bias`, `weights` and `bias` as `python -m fitting` writes them.
        vectors: One row of whole numbers for each feature; `steps` says what one is worth in each column.
    """

    def __init__(self, stored: Mapping[str, Any], vectors: np.ndarray) -> None:
        self._places = {name: place for place, name in enumerate(stored["features"])}
        self._vectors = vectors
        self._steps = np.array(stored["steps"])
        self._hidden_bias = np.array(stored["hidden_bias"])
        self._weights = np.array(stored["weights"])
        self._bias = float(stored["bias"])

    def score(self, by_word: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """Return the score of a sentence and the share of each word in it.

        Args:
            by_word: The features that each word adds. Only those that the network knows count, as when it was fitted.
        """
        found = self._places.get
        places = [[place for feature in added if (place := found(feature)) is not None] for added in by_word]
        known = list({place for added in places for place in added})
        if not known:
            return self._bias, [0.0 for _ in by_word]
        scale = self._steps * (_LENGTH / np.sqrt(len(known)))
        vectors = self._vectors[known]
        before = vectors.sum(axis=0, dtype=np.int64) * scale + self._hidden_bias
        active = before > 0
        score = float(before[active] @ self._weights[active]) + self._bias
        worth = vectors @ (np.where(active, self._weights, 0.0) * scale)
        left = dict(zip(known, worth.tolist(), strict=True))
        return score, [sum([left.pop(place, 0.0) for place in added]) for added in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModels:
    """The models of the gate with their thresholds.

    Attributes:
        version: Fingerprint of the fitted values.
        cue: Scores a sentence while it is read; from `cue_from` on it is held.
        cue_share: How much the cue's sum over the sentence counts beside the network's score.
        breach: Scores a whole sentence; from `breach_from` on it is a breach, below `doubt_from` it is none.
        checks: Which check a breach belongs to: the one whose model scores it highest.
    """

    version: str
    cue: LinearModel
    cue_from: float
    cue_share: float
    breach: BreachNetwork
    breach_from: float
    doubt_from: float
    checks: Mapping[str, LinearModel]

    def check_of(self, by_word: Sequence[Sequence[str]]) -> str:
        """Return the check that a breach with these features belongs to."""
        features = [feature for added in by_word for feature in added]

        def score(name: str) -> float:
            model = self.checks[name]
            weight = model.weights.get
            return model.bias + sum([weight(feature, 0.0) for feature in features])

        return max(self.checks, key=score)


@lru_cache(maxsize=1)
def load_models() -> FittedModels:
    """Return the models that the package ships; the first call reads files and takes a moment."""
    folder = resources.files("guidance_agent.compliance") / "model"
    stored = json.loads(gzip.decompress((folder / "sentences.json.gz").read_bytes()))
    vectors = np.load(io.BytesIO(gzip.decompress((folder / "vectors.npy.gz").read_bytes())), allow_pickle=False)
    kinds = load_word_kinds()
    linear = {name: LinearModel(values["bias"], values["weights"], kinds) for name, values in stored["linear"].items()}
    thresholds = stored["thresholds"]
    return FittedModels(
        version=stored["version"],
        cue=linear["cue"],
        cue_from=thresholds["cue"],
        cue_share=thresholds["cue_share"],
        breach=BreachNetwork(stored["network"], vectors),
        breach_from=thresholds["breach"],
        doubt_from=thresholds["doubt"],
        checks={name.removeprefix("check:"): model for name, model in linear.items() if name.startswith("check:")},
    )

"""A linear model: logistic regression over features scaled by how unequally the two labels hold them.

The scaling is that of Wang and Manning (2012, "Baselines and bigrams", naive Bayes features).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from guidance_agent.compliance.sentence_features import load_word_kinds
from guidance_agent.compliance.sentence_model import LinearModel

__all__ = ["fit_linear", "stored_linear"]

SMALLEST_WEIGHT = 0.02


def fit_linear(
    matrix: Any, names: Sequence[str], labels: np.ndarray, worth: np.ndarray, *, strength: float = 0.3
) -> LinearModel:
    """Fit a model; `worth` is the weight of each row, 0 for one that does not count."""
    counted = worth > 0
    matrix, labels, worth = matrix[counted], labels[counted].astype(float), worth[counted]
    yes = 1 + np.asarray(matrix.multiply((labels * worth)[:, None]).sum(axis=0)).ravel()
    no = 1 + np.asarray(matrix.multiply(((1 - labels) * worth)[:, None]).sum(axis=0)).ravel()
    ratio = np.log((yes / yes.sum()) / (no / no.sum()))
    model = LogisticRegression(C=strength, max_iter=1_000)
    model.fit(matrix @ sp.diags(ratio), labels, sample_weight=worth)
    weights = dict(zip(names, (model.coef_[0] * ratio).tolist(), strict=True))
    return LinearModel(float(model.intercept_[0]), weights, load_word_kinds())


def stored_linear(model: LinearModel, *, smallest: float = SMALLEST_WEIGHT) -> dict[str, Any]:
    """Return a model as it is written; weights that say little are left out."""
    weights = {name: round(weight, 3) for name, weight in model.weights.items() if abs(weight) >= smallest}
    return {"bias": round(model.bias, 3), "weights": weights}

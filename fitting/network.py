"""A small network over the same features: every feature has a short vector, their sum goes through one layer.

Trained with AdaGrad, one step size for each feature, and with a part of the features left out at random, so that no
single one decides. Several small networks, begun at random differently, are put side by side as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["Network", "Training", "fit_network", "scaled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How networks are trained."""

    networks: int = 3
    hidden: int = 8
    rounds: int = 12
    step: float = 0.12
    batch: int = 32
    left_out: float = 0.3
    decay: float = 1e-5


@dataclass(frozen=True, slots=True)
class Network:
    """`vectors` has a row for each feature; `score` takes rows that `scaled` has made."""

    vectors: np.ndarray
    hidden_bias: np.ndarray
    weights: np.ndarray
    bias: float

    def score(self, rows: Any) -> np.ndarray:
        hidden = np.maximum(rows @ self.vectors + self.hidden_bias, 0.0)
        return np.asarray(hidden @ self.weights + self.bias)


def scaled(matrix: Any) -> Any:
    """Return presence instead of counts, with rows of equal length."""
    present = matrix.copy()
    present.data[:] = 1.0
    features = np.maximum(1.0, np.asarray(present.sum(axis=1)).ravel())
    return (sp.diags(1.0 / np.sqrt(features)) @ present).tocsr().astype(np.float32) * np.float32(3.0)


def fit_network(rows: Any, labels: np.ndarray, worth: np.ndarray, training: Training) -> Network:
    """Fit the networks and put them side by side; their scores are averaged."""
    parts = [_fit_one(rows, labels, worth, training, seed) for seed in range(training.networks)]
    return Network(
        np.hstack([part.vectors for part in parts]),
        np.concatenate([part.hidden_bias for part in parts]),
        np.concatenate([part.weights for part in parts]) / len(parts),
        sum(part.bias for part in parts) / len(parts),
    )


def _fit_one(rows: Any, labels: np.ndarray, worth: np.ndarray, training: Training, seed: int) -> Network:
    random = np.random.RandomState(seed)
    count, features = rows.shape
    vectors = (random.randn(features, training.hidden) * 0.05).astype(np.float32)
    hidden_bias = np.zeros(training.hidden, np.float32)
    weights = (random.randn(training.hidden) * 0.3).astype(np.float32)
    bias = 0.0
    seen = np.full(features, 1e-3, np.float32)
    seen_bias = seen_weights = seen_end = 1e-3
    slow = training.step * 0.3
    for _ in range(training.rounds):
        order = random.permutation(count)
        for start in range(0, count, training.batch):
            chosen = order[start : start + training.batch]
            batch = rows[chosen]
            batch.data = batch.data * (random.rand(len(batch.data)) > training.left_out) / (1 - training.left_out)
            columns, places = np.unique(batch.indices, return_inverse=True)
            dense = sp.csr_matrix((batch.data, places, batch.indptr), shape=(len(chosen), len(columns)))
            before = dense @ vectors[columns] + hidden_bias
            hidden = np.maximum(before, 0.0)
            likelihood = 1 / (1 + np.exp(-(hidden @ weights + bias)))
            error = ((likelihood - labels[chosen]) * worth[chosen] / training.batch).astype(np.float32)
            to_weights, to_end = hidden.T @ error, float(error.sum())
            to_hidden = np.outer(error, weights) * (before > 0)
            to_bias = to_hidden.sum(axis=0)
            to_vectors = dense.T @ to_hidden + training.decay * vectors[columns]
            seen[columns] += (to_vectors**2).mean(axis=1)
            vectors[columns] -= training.step * to_vectors / np.sqrt(seen[columns])[:, None]
            seen_weights += float((to_weights**2).mean())
            weights -= slow * to_weights / np.sqrt(seen_weights)
            seen_bias += float((to_bias**2).mean())
            hidden_bias -= slow * to_bias / np.sqrt(seen_bias)
            seen_end += to_end**2
            bias -= slow * to_end / np.sqrt(seen_end)
    return Network(vectors, hidden_bias, weights, bias)

"""Features of sentences as a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer

from guidance_agent.compliance.sentence_features import load_word_kinds
from guidance_agent.compliance.sentence_model import count_features

__all__ = ["Design"]

LEAST_OCCURRENCES = 3


class Design:
    """One row for each sentence, one column for each feature that occurs in enough of them.

    Attributes:
        words: The sentences.
        matrix: How often each feature occurs.
        names: The features.
    """

    def __init__(self, sentences: Sequence[Sequence[str]]) -> None:
        kinds = load_word_kinds()
        self.words = sentences
        vectorizer = DictVectorizer(dtype=np.float32)
        counted = vectorizer.fit_transform([count_features(words, kinds) for words in sentences]).tocsr()
        kept = np.asarray((counted > 0).sum(axis=0)).ravel() >= LEAST_OCCURRENCES
        self.matrix: Any = counted[:, kept]
        self.names: list[str] = vectorizer.get_feature_names_out()[kept].tolist()

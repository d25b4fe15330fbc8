"""The offline embedder: weighted terms of a text, hashed into a vector of fixed length."""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from guidance_agent.retrieval.lexical import load_lexicon

if TYPE_CHECKING:
    from guidance_agent.retrieval.vectors import FloatArray

__all__ = ["HASHED_MODEL", "HashedEmbedder"]

HASHED_MODEL = "offline/hashed-terms-1"
"""Changes with the word list and the weights, because vectors of two versions do not compare."""

_INLINE_CHARACTERS = 8_000
"""Texts of this length together are embedded on the event loop; longer ones go to a thread."""


class HashedEmbedder:
    """Lexical vectors without a model, a network or a file written: equal in every process.

    Args:
        dimensions: Length of the vectors. Fewer save space and let more terms collide.
    """

    def __init__(self, dimensions: int = 1024) -> None:
        self.model = HASHED_MODEL
        self.dimensions = dimensions
        self._warm = False

    async def embed(self, texts: Sequence[str], *, shared: bool = False) -> FloatArray:
        """Return one L2-normalised row per text; a text without a meaningful word is a row of zeros."""
        if self._warm and sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self.vectors(texts)
        return await asyncio.to_thread(self.vectors, texts)

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The same as `embed`, at once and on the calling thread."""
        import numpy as np

        lexicon = load_lexicon()
        result = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            values: dict[int, float] = {}
            for term, weight in lexicon.terms(text).items():
                place = _place(term)
                index = (place >> 1) % self.dimensions
                values[index] = values.get(index, 0.0) + (weight if place & 1 else -weight)
            if length := math.sqrt(sum(value * value for value in values.values())):
                result[row, list(values)] = [value / length for value in values.values()]
        self._warm = True
        return result


@lru_cache(maxsize=50_000)
def _place(term: str) -> int:
    # CRC-32 rather than `hash`, which differs from process to process.
    return zlib.crc32(term.encode())

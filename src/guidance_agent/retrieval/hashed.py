"""The offline embedder: weighted terms of a text, hashed into a vector of fixed length."""

from __future__ import annotations

import asyncio
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
_TEXTS_AT_ONCE = 256


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
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            terms = [lexicon.terms(text) for text in texts[start : start + _TEXTS_AT_ONCE]]
            places = np.fromiter((_place(term) for some in terms for term in some), dtype=np.int64)
            weights = np.fromiter((weight for some in terms for weight in some.values()), dtype=np.float64)
            rows = np.repeat(np.arange(len(terms)), [len(some) for some in terms])
            # The lowest bit is the sign, so that terms which share a place cancel as often as they add up.
            signed = np.where(places & 1, weights, -weights)
            cells = rows * self.dimensions + (places >> 1) % self.dimensions
            sums = np.bincount(cells, weights=signed, minlength=len(terms) * self.dimensions)
            sums = sums.reshape(len(terms), self.dimensions)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            result[start : start + len(terms)] = sums / np.where(norms == 0, 1, norms)
        self._warm = True
        return result


@lru_cache(maxsize=50_000)
def _place(term: str) -> int:
    # CRC-32 rather than `hash`, which differs from process to process.
    return zlib.crc32(term.encode())

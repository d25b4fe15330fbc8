"""Vectors for texts: hashed words and pieces of words, so that texts with words in common lie close together."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from hashlib import blake2b

__all__ = ["embed_text"]

_WORD = re.compile(r"[^\W_]+")
_COMMON = frozenset(
    _WORD.findall("a an and are as at be by can do for from how i if in is it my of on or that the to was what")
)
_PIECE = 4


def _features(text: str) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for word in _WORD.findall(text.lower()):
        weight = 0.15 if word in _COMMON else 1.0
        found[f"w:{word}"] += weight
        padded = f"<{word}>"
        pieces = max(1, len(padded) - _PIECE + 1)
        for start in range(pieces):
            # The pieces of a word weigh together as much as the word, so that inflections stay near each other.
            found[f"p:{padded[start : start + _PIECE]}"] += weight / pieces
    return found


def embed_text(text: str, dimensions: int) -> list[float]:
    """A unit vector of `dimensions` numbers; equal texts give equal vectors on every machine."""
    vector = [0.0] * dimensions
    for feature, weight in _features(text).items():
        digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        # Frequent words count less than in proportion; the sign bit keeps collisions from adding up.
        vector[(number >> 1) % dimensions] += (1 if number & 1 else -1) * math.sqrt(weight)
    length = math.sqrt(sum(x * x for x in vector))
    if length == 0:
        vector[0] = 1.0
        return vector
    return [x / length for x in vector]

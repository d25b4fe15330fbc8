"""Numbers that look random and follow from a seed: cheap enough for every request of a large batch."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["draw"]

_RANGE = 1 << 64


def draw(seed: int, *parts: object) -> float:
    """A number from 0 up to but not including 1, always the same for the same seed and parts."""
    text = ":".join(map(str, (seed, *parts)))
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _RANGE

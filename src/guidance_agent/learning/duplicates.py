"""Rules that say the same: found by the words that carry meaning, without a model.

The threshold was measured on pairs written for it (`tests/unit/learning/data/pairs.yaml`): those that teach the same
have a cosine of 0.775 or more, those that teach something else one of 0.704 or less. A rule that forbids and one that
asks for the same have nearly the same words, so they are never taken for one. Two rules that are not found to be the
same stand beside each other, where a person sees them; a lesson that was lost in another would not be seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from guidance_agent.retrieval.hashed import HashedEmbedder

__all__ = ["SAME_FROM", "duplicate_of"]

SAME_FROM = 0.75
"""Cosine from which two rules count as one."""

_FORBIDDING = re.compile(r"\b(?:do not|don't|don’t|never|avoid|refrain|must not|should not)\b", re.IGNORECASE)


def duplicate_of(rule: str, others: Sequence[str]) -> int | None:
    """Return the place of the one of `others` that says the same as `rule`, the nearest; None where none does."""
    comparable = [place for place, other in enumerate(others) if _forbids(other) == _forbids(rule)]
    if not comparable:
        return None
    vectors = _embedder().vectors([rule, *(others[place] for place in comparable)])
    scores = vectors[1:] @ vectors[0]
    best = int(scores.argmax())
    return comparable[best] if float(scores[best]) >= SAME_FROM else None


def _forbids(rule: str) -> bool:
    return _FORBIDDING.search(rule) is not None


@cache
def _embedder() -> HashedEmbedder:
    return HashedEmbedder()

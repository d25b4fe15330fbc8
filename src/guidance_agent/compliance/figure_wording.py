"""The lists of words that say how a figure is given, read from the package's file once."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

from guidance_agent.core.shipped import read_shipped

__all__ = ["phrases", "word_list"]


@lru_cache(maxsize=1)
def _lists() -> dict[str, list[str]]:
    file = resources.files("guidance_agent.compliance") / "rules" / "figures" / "wording.yaml"
    return read_shipped(file, dict[str, list[str]])


def word_list(name: str) -> frozenset[str]:
    """Return the words of a list."""
    return frozenset(_lists()[name])


def phrases(name: str, then: str = "") -> re.Pattern[str]:
    """Return what finds any phrase of a list, where `then` holds after it, in words that are apart by a space."""
    return re.compile(rf"(?<!\S)(?:{'|'.join(_lists()[name])}){then}(?!\S)")

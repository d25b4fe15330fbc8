"""Figures in a model's words: digits and number words, in one form for each, so that two texts can be compared.

A model that puts many texts into few words makes figures up: it counts, rounds and adds. So a figure may stand only
where the texts that it speaks of have the same one, and nowhere at all where the program knows the figures itself.
"""

from __future__ import annotations

import re
import unicodedata

from guidance_agent.retrieval.lexical import words

__all__ = ["figures_in"]

_NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "hundreds": 100, "thousand": 1_000, "thousands": 1_000, "million": 1_000_000,
    "millions": 1_000_000, "couple": 2, "both": 2, "twice": 2, "dozen": 12, "dozens": 12,
}  # fmt: skip
_VALUES = {word: str(value) for word, value in _NUMBERS.items()}
_SHARES = frozenset({"half", "halves", "quarter", "quarters", "third", "thirds", "fifth", "fifths", "tenth", "tenths"})
_SHARES |= {"double", "doubled", "triple", "majority"}
_MONTHS = frozenset({"january", "february", "march", "april", "june", "july"})
_MONTHS |= {"august", "september", "october", "november", "december"}
"""Without May, which is a verb too."""
_PART = re.compile(r"-")


def figures_in(text: str) -> frozenset[str]:
    """Return the figures of a text: `£38k`, `38,000` and `£38,000` are one, and so are `three` and `3`."""
    found: set[str] = set()
    for word in words(_PART.sub(" ", unicodedata.normalize("NFKC", text))):
        if word[0].isdigit():
            found.add(word.rstrip("k") if "." in word else word.lstrip("0") or "0")
        elif word in _VALUES:
            found.add(_VALUES[word])
        elif word in _SHARES or word in _MONTHS:
            found.add(word)
    return frozenset(found)

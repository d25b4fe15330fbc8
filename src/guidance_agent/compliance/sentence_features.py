"""What a fitted model sees of a sentence: its words, what kinds of words they are, and which stand near which.

Features are strings, made by the same functions when a model is fitted and when it judges. Each belongs to one token
and to what stands before it, so that the score of a sentence is a sum that grows word by word and never looks ahead.
Kinds of words stand in `rules/words.yaml`; they carry what is learned of one word over to its neighbours in meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib import resources

from guidance_agent.compliance.language import Token
from guidance_agent.core.shipped import read_shipped

__all__ = [
    "BEGINNING",
    "BREAKS",
    "WINDOW",
    "WordKinds",
    "load_word_kinds",
    "opening_features",
    "pair_features",
    "shape_of",
    "spoken",
    "triple_features",
    "vicinity_features",
    "word_features",
]

BEGINNING = "<s>"
"""Stands before the first word of a sentence."""
BREAKS = frozenset((",", ";", ":", "–", "—", "(", ")", ".", "!", "\n"))
"""Marks between clauses."""
WINDOW = 6
"""How many words of a clause before a word are seen together with it."""

WordKinds = dict[str, tuple[str, ...]]
"""The kinds of each listed word, each with a leading `#`."""

_ENDING = re.compile(r"(?:ing|ies|ied|ed|es|s|ly|er|est)$")
_SHORTEST_STEM = 5
_CLOSING = {"“": "”", '"': '"', "„": "“", "«": "»", "‘": "’", "'": "'"}
_MARKS = frozenset("[]{}*•'’”»_")


@lru_cache(maxsize=1)
def load_word_kinds() -> WordKinds:
    """Return the kinds of words that the package ships."""
    file = resources.files("guidance_agent.compliance") / "rules" / "words.yaml"
    kinds: dict[str, set[str]] = {}
    for kind, words in read_shipped(file, dict[str, str]).items():
        for word in words.split():
            kinds.setdefault(word, set()).add(f"#{kind}")
    return {word: tuple(sorted(named)) for word, named in kinds.items()}


@lru_cache(maxsize=16_384)
def shape_of(token: str) -> str:
    """Return the word as which a token counts: numbers are alike, and so are the ends of sentences; "" for no word."""
    if token[0] in "£$€":
        return "<money>"
    if token[0].isdigit():
        return "<percent>" if token.endswith("%") else "<number>"
    if token[0] in ".!?…":
        return "?" if "?" in token else "!" if "!" in token else "."
    return "" if token in _MARKS else token


def spoken(tokens: Sequence[Token]) -> list[tuple[str, int]]:
    """Return the words of a sentence without what is quoted in it, each with the number of its token.

    Quotation marks that are never closed hide nothing.
    """
    words: list[tuple[str, int]] = []
    place = 0
    while place < len(tokens):
        text = tokens[place].text
        end = _end_of_quotation(tokens, place)
        if end is not None:
            words.append(("<quoted>", place))
            place = end + 1
            continue
        if text not in _CLOSING and (shape := shape_of(text)):
            words.append((shape, place))
        place += 1
    return words


def _end_of_quotation(tokens: Sequence[Token], place: int) -> int | None:
    """Return the number of the mark that closes the quotation that opens here; None where none does."""
    mark = tokens[place]
    closing = _CLOSING.get(mark.text)
    if closing is None or (mark.text == "'" and not _stands_before_word(tokens, place)):
        return None
    for number in range(place + 1, len(tokens)):
        if tokens[number].text == closing and not (closing == "'" and _stands_before_word(tokens, number)):
            return number
    return None


def _stands_before_word(tokens: Sequence[Token], place: int) -> bool:
    """Whether a straight mark has a space before it and none after it, as one that opens has."""
    has_space = place == 0 or tokens[place - 1].end < tokens[place].start
    return has_space and place + 1 < len(tokens) and tokens[place + 1].start == tokens[place].end


@lru_cache(maxsize=16_384)
def _stem(word: str) -> str:
    return _ENDING.sub("", word) if len(word) >= _SHORTEST_STEM else word


def word_features(word: str, kinds: WordKinds) -> Iterator[str]:
    """Yield what a word says by itself."""
    yield f"w {word}"
    if (stem := _stem(word)) != word:
        yield f"t {stem}"
    for kind in kinds.get(word, ()):
        yield f"c {kind}"


def pair_features(before: str, word: str, kinds: WordKinds) -> Iterator[str]:
    """Yield what two neighbours say together."""
    yield f"b {before} {word}"
    for first in kinds.get(before, ()) or (before,):
        for second in kinds.get(word, ()) or (word,):
            if first[0] == "#" or second[0] == "#":
                yield f"d {first} {second}"


def triple_features(first: str, second: str, third: str) -> Iterator[str]:
    """Yield what three neighbours say together."""
    yield f"3 {first} {second} {third}"


def vicinity_features(before: Iterable[str], now: Iterable[str]) -> Iterator[str]:
    """Yield what two kinds of words say that stand in one clause, two to `WINDOW` words apart."""
    for first in before:
        for second in now:
            yield f"k {first} {second}"


def opening_features(word: str, kinds: WordKinds, mark: str) -> Iterator[str]:
    """Yield what a word says as the first of a clause (mark `S`), or of a question (mark `Q`)."""
    yield f"{mark} {word}"
    for kind in kinds.get(word, ()):
        yield f"{mark} {kind}"

"""From text to weighted terms: words, stems, and what ordinary words mean in pension terms.

Customers say "when I'm gone" where a fact says "death benefits". The word list in `lexicon.yaml` names such concepts; a
phrase found in a text adds its concept as a term of its own beside the words, so that both sides meet. Every function
is pure: the same text gives the same terms in every process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from guidance_agent.core.shipped import read_shipped

__all__ = ["Lexicon", "PhraseMatcher", "load_lexicon", "stem", "words"]

CONCEPT_WEIGHT = 1.6
PAIR_WEIGHT = 0.5
FAINT_WEIGHT = 0.3
FRAGMENT_WEIGHT = 0.5
FRAGMENT_LENGTH = 4

_Model = TypeVar("_Model", bound=BaseModel)

_WORD = re.compile(r"\d[\d,]*(?:\.\d+)?k?|[^\W\d_]+(?:['’][^\W\d_]+)*")
_SUFFIXES = (
    "ations",
    "ation",
    "ments",
    "ment",
    "ings",
    "ing",
    "ies",
    "ied",
    "ers",
    "er",
    "ed",
    "es",
    "s",
    "ally",
    "ly",
    "e",
)
_VERB_ENDINGS = frozenset({"ing", "ings", "ed"})
_SHORTEST_STEM = 3
_LONGEST_OWN_DOUBLE = 5


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case; amounts lose their separators, so `£30k` and `£30,000` are one."""
    return [_plain(match) for match in _WORD.findall(text.lower())]


@lru_cache(maxsize=20_000)
def _plain(word: str) -> str:
    if word[0].isdigit():
        number = word.rstrip("k").replace(",", "")
        return number + "000" if word.endswith("k") and "." not in number else number
    return word.replace("’", "'").removesuffix("'s")


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Return `word` without its ending, so that forms of one word meet; not a word of the language."""
    if word[0].isdigit() or len(word) <= _SHORTEST_STEM:
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            return _stem_before(word, suffix)
    return word


def _stem_before(word: str, suffix: str) -> str:
    root = word[: -len(suffix)]
    if suffix in {"ies", "ied"}:
        return root + "y"
    if suffix == "s" and root.endswith(("s", "u", "i")):
        return word
    if suffix in _VERB_ENDINGS:
        # British spelling doubles the l of longer words (enrolled, cancelled); "call" keeps its own.
        doubled = len(root) > _SHORTEST_STEM and root[-1] == root[-2]
        if doubled and (root[-1] not in "lsz" or (root[-1] == "l" and len(root) > _LONGEST_OWN_DOUBLE)):
            root = root[:-1]
        if root.endswith("er") and len(root) - 2 >= _SHORTEST_STEM:
            root = root[:-2]
    return root


class PhraseMatcher:
    """Finds phrases in a text, whatever the endings of their words; each phrase stands for one or more names."""

    def __init__(self, phrases: Mapping[str, Iterable[str]]) -> None:
        self._by_first: dict[str, dict[tuple[str, ...], set[str]]] = {}
        for name, variants in phrases.items():
            for phrase in variants:
                stems = tuple(stem(word) for word in words(phrase))
                self._by_first.setdefault(stems[0], {}).setdefault(stems, set()).add(name)

    def find(self, stems: Sequence[str]) -> Iterator[str]:
        """Yield the name of every phrase in the stemmed words, once for each place where it stands."""
        for position, first in enumerate(stems):
            if (candidates := self._by_first.get(first)) is None:
                continue
            for phrase, names in candidates.items():
                if len(phrase) == 1 or tuple(stems[position : position + len(phrase)]) == phrase:
                    yield from names


class _LexiconFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    silent: str
    faint: str
    concepts: dict[str, tuple[str, ...]]


class Lexicon:
    """A word list: words that say nothing, words that say little, and the concepts that phrases stand for."""

    def __init__(self, *, silent: Iterable[str], faint: Iterable[str], concepts: Mapping[str, Iterable[str]]) -> None:
        self._silent = frozenset(silent)
        self._faint = frozenset(stem(word) for word in faint)
        self._concepts = PhraseMatcher(concepts)

    def terms(self, text: str) -> dict[str, float]:
        """Return the terms of `text` with their weights: concepts, stems, pairs of stems and fragments of words."""
        spoken = words(text)
        stems = [stem(word) for word in spoken]
        found: dict[str, float] = {}
        for concept in self._concepts.find(stems):
            _add(found, "=" + concept, CONCEPT_WEIGHT)
        before: str | None = None
        for word, root in zip(spoken, stems, strict=True):
            if word in self._silent:
                continue
            weight = FAINT_WEIGHT if root in self._faint or _is_small_number(word) else 1.0
            _add(found, root, weight)
            if before is not None:
                _add(found, before + " " + root, PAIR_WEIGHT * weight)
            before = root
            if fragments := _fragments(word):
                share = FRAGMENT_WEIGHT * weight / len(fragments)
                for fragment in fragments:
                    found[fragment] = found.get(fragment, 0.0) + share
        return found


def _is_small_number(word: str) -> bool:
    # Ages and counts; those that mean something for pensions are phrases of a concept.
    return len(word) <= 2 and word.isdigit()


def _add(terms: dict[str, float], term: str, weight: float) -> None:
    # A word said twice counts half as much more, not double: long questions repeat what is not their subject.
    seen = terms.get(term)
    terms[term] = weight if seen is None else seen + weight / 2


@lru_cache(maxsize=20_000)
def _fragments(word: str) -> tuple[str, ...]:
    if len(word) <= FRAGMENT_LENGTH or word[0].isdigit():
        return ()
    return tuple("~" + word[start : start + FRAGMENT_LENGTH] for start in range(len(word) - FRAGMENT_LENGTH + 1))


@lru_cache(maxsize=1)
def load_lexicon() -> Lexicon:
    """Return the word list of the package. Reading blocks for some milliseconds the first time."""
    content = read_shipped(Path(__file__).with_name("lexicon.yaml"), _LexiconFile)
    return Lexicon(silent=content.silent.split(), faint=content.faint.split(), concepts=content.concepts)

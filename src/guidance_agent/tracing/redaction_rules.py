"""What every rule of redaction shares: what it finds, and how it looks at what stands around it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import NamedTuple, TypeAlias

import yaml

from guidance_agent.tracing.redaction_views import Reading

__all__ = ["ALONE", "GAP", "Found", "Rule", "Words", "any_word", "cued", "digits_of", "listed", "words_of"]


class Found(NamedTuple):
    """Personal data between two places of a reading; `kind` stands in its mark, unless there is something `instead`."""

    start: int
    end: int
    kind: str
    instead: str = ""


Rule: TypeAlias = Callable[[Reading], Iterator[Found]]

GAP = r"[\s.\-]{0,3}"
"""What people put between the digits of a number."""
ALONE = r"(?<![0-9a-z].)(?<![0-9][.,].)"
"""After its first digit, where a number may begin: not inside a word, a hash or a decimal fraction.

It stands behind the first character because `re` skips quickly to a character, and not to an assertion.
"""

_NOT_DIGITS = re.compile("[^0-9]+")


def digits_of(text: str) -> str:
    """Return the digits of the text alone."""
    return _NOT_DIGITS.sub("", text)


def cued(cue: re.Pattern[str], lower: str, start: int, end: int, *, before: int = 60, after: int = 0) -> bool:
    """Whether the cue stands near what lies between `start` and `end`."""
    if cue.search(lower, max(0, start - before), start) is not None:
        return True
    return after > 0 and cue.search(lower, end, end + after) is not None


def listed(words: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(words.split())


class Words:
    """Words that are looked for together, each of them quickly: those that a reading does not hold cost nothing.

    Args:
        following: Patterns of what has to stand behind the words, by one or several words in letters alone.
        needing: Words of which a reading has to hold one, by words that are frequent without them.
    """

    def __init__(
        self,
        following: Mapping[str, str],
        *,
        needing: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._needing = {word: needed for words, needed in (needing or {}).items() for word in words.split()}
        self._patterns = {
            word: re.compile(rf"{word}(?<![a-z]{word})(?![a-z])(?={then})")
            for words, then in following.items()
            for word in words.split()
        }

    def found_in(self, reading: Reading) -> Iterator[re.Match[str]]:
        """Yield the words in the lower case of a reading, one word after the other."""
        for word in self._patterns.keys() & reading.words:
            needed = self._needing.get(word)
            if needed is None or not needed.isdisjoint(reading.words):
                yield from self._patterns[word].finditer(reading.lower)


def any_word(words: str) -> re.Pattern[str]:
    """Return a pattern that finds where one of the words begins a word; `start` is one before it.

    It begins with a class of characters and branches by first letter, both of which `re` does quickly.
    """
    by_letter: dict[str, list[str]] = {}
    for word in sorted(set(words.split())):
        by_letter.setdefault(word[0], []).append(re.escape(word[1:]))
    branches = "|".join(f"{re.escape(letter)}(?:{'|'.join(rest)})(?![a-z])" for letter, rest in by_letter.items())
    return re.compile(f"[^a-z](?:{branches})")


@functools.cache
def words_of(section: str) -> frozenset[str]:
    """Return a section of the lexicon, in lower case."""
    text = resources.files("guidance_agent.tracing").joinpath("redaction_lexicon.yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)[section]
    return listed(entries) if isinstance(entries, str) else frozenset(str(entry).lower() for entry in entries)

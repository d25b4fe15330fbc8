"""The language in which rules are written, and its translation to regular expressions.

A sentence is searched as a string of one character for each token: every word that any rule names has a character of
its own, so that a list of words is a class of characters and a long sentence a short string.

A pattern is a line of elements apart by spaces; each stands for one token unless it says otherwise:

    word           this word; `word*` any word that begins so; `a|b` either
    <name>         any entry of the lexicon's list `name`; entries may be of several words
    (a b | c)      either sequence
    element?       the element or nothing
    !element       not this element next
    ~3             up to three words, none of them punctuation
    ~~8            up to eight tokens, commas included, but no end of a sentence or semicolon
    ^              the beginning of a clause: of the sentence, or after a comma, colon, dash, bracket or conjunction
    ^^             the beginning of the sentence
    $              the end of the sentence
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from guidance_agent.errors import ConfigurationError

__all__ = ["Alphabet", "Lexicon", "PatternError", "elements_of", "literals", "needed_words", "translate_pattern"]

Lexicon = Mapping[str, Sequence[str]]

_ELEMENT = re.compile(r"\(|\)\??|[^\s()]+")
_OPENERS = (",", ";", ":", "–", "—", "(", "\n", '"', "“", "and", "but", "so", "then", "or", "please")
_ENDS = (".", "!", "?", "…")
_PUNCTUATION = (*_ENDS, ",", ";", ":", "(", ")", '"', "“", "”", "–", "—", "\n")
_HARD = (*_ENDS, ";", "\n")
_FIRST_CODE = 0x4E00
_OTHER, _NUMBER = "x", "0"


class PatternError(ConfigurationError):
    """Raised when a rule's pattern cannot be read."""


class Alphabet:
    """A character for every word that a rule names, one for numbers, and one for all other words.

    Args:
        entries: Words as patterns name them; one that ends in `*` stands for all words that begin so.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        named = dict.fromkeys((*_PUNCTUATION, *_OPENERS, *entries))
        self._codes = {entry: chr(_FIRST_CODE + number) for number, entry in enumerate(named)}
        self._words = [entry for entry in self._codes if not entry.endswith("*")]
        self._stems = sorted((entry[:-1] for entry in self._codes if entry.endswith("*")), key=len, reverse=True)
        self._known = {word: self._codes[word] for word in self._words}
        self._classes: dict[tuple[str, ...], str] = {}
        self._code = lru_cache(maxsize=16_384)(self._find_code)

    def encode(self, words: Iterable[str]) -> str:
        """Return the words as a string of one character each."""
        return "".join(map(self._code, words))

    def _find_code(self, word: str) -> str:
        return self._known.get(word) or self._guess(word)

    def _guess(self, word: str) -> str:
        if word[0] in ".!?…":
            return self._codes["?" if "?" in word else "."]
        for stem in self._stems:
            if word.startswith(stem):
                return self._codes[f"{stem}*"]
        return _NUMBER if word[0].isdigit() or word[0] in "£$€" else _OTHER

    def letters(self, entry: str) -> set[str]:
        """Return the characters of the words that `entry` stands for."""
        if not entry.endswith("*"):
            return {self._codes[entry]}
        stem = entry[:-1]
        words = {self._codes[word] for word in self._words if word.startswith(stem)}
        return words | {self._codes[f"{other}*"] for other in self._stems if other.startswith(stem)}

    def one_of(self, entries: Iterable[str], *, inverted: bool = False) -> str:
        """Return the class of characters that stand for `entries`, or for everything else."""
        key = tuple(entries)
        if key not in self._classes:
            self._classes[key] = "".join(sorted(set().union(*(self.letters(entry) for entry in key))))
        return f"[{'^' if inverted else ''}{self._classes[key]}]"


def elements_of(pattern: str) -> list[str]:
    """Return the elements of a pattern, its brackets among them."""
    return _ELEMENT.findall(pattern)


def literals(pattern: str) -> set[str]:
    """Return the words that the pattern names itself, not through lists."""
    found: set[str] = set()
    for element in _ELEMENT.findall(pattern):
        if element in ("(", ")", ")?", "|", "^", "^^", "$") or element.startswith("~"):
            continue
        element = element.removeprefix("!")
        if element.endswith("?") and len(element) > 1:
            element = element[:-1]
        found.update(each for each in element.split("|") if not each.startswith("<"))
    return found


def translate_pattern(pattern: str, lexicon: Lexicon, alphabet: Alphabet) -> str:
    """Return the regular expression, not compiled yet, that finds `pattern` in a sentence that `alphabet` has encoded.

    Raises:
        PatternError: an element cannot be read, or names a list that the lexicon lacks.
    """
    parts: list[str] = []
    depth = 0
    for element in _ELEMENT.findall(pattern):
        if element == "(":
            depth += 1
            parts.append("(?:")
        elif element.startswith(")"):
            depth -= 1
            parts.append(element)
        elif element == "|":
            parts.append("|")
        else:
            parts.append(_translated(element, lexicon, alphabet, pattern))
    if depth:
        raise PatternError(f"The brackets of the pattern {pattern!r} do not close. Correct the rules.")
    return "".join(parts)


def _translated(element: str, lexicon: Lexicon, alphabet: Alphabet, pattern: str) -> str:
    if element == "^":
        return rf"(?:\A|(?<={alphabet.one_of(_OPENERS)}))"
    if element == "^^":
        return rf"\A{alphabet.one_of(('–', '—', chr(34), '“'))}?"
    if element == "$":
        return rf"(?={alphabet.one_of((*_ENDS, ')', chr(34), '”'))}*\Z)"
    if element.startswith("~~"):
        return rf"{alphabet.one_of(_HARD, inverted=True)}{{0,{element[2:]}}}?"
    if element.startswith("~"):
        return rf"{alphabet.one_of(_PUNCTUATION, inverted=True)}{{0,{element[1:]}}}?"
    if element.startswith("!"):
        return rf"(?!{_translated(element[1:], lexicon, alphabet, pattern)})"
    optional = element.endswith("?") and len(element) > 1
    if optional:
        element = element[:-1]
    entries = [entry for each in element.split("|") for entry in _entries(each, lexicon, pattern)]
    single = [entry for entry in entries if " " not in entry]
    several = [
        "".join(alphabet.one_of([word]) for word in entry.split())
        for entry in sorted(entries, key=len, reverse=True)
        if " " in entry
    ]
    choices = "|".join([*several, *([alphabet.one_of(single)] if single else [])])
    return (f"(?:{choices})" if several else choices) + ("?" if optional else "")


def _entries(element: str, lexicon: Lexicon, pattern: str) -> Sequence[str]:
    if not element.startswith("<"):
        return (element,)
    name = element[1:-1]
    if name not in lexicon:
        raise PatternError(f"The pattern {pattern!r} names the list {name!r}, which the lexicon lacks.")
    return [" ".join(entry.split()) for entry in lexicon[name]]


# Which words a pattern cannot do without, so that it is tried only where they are.

_COMMON = frozenset(
    (
        *(
            "a",
            "an",
            "and",
            "are",
            "as",
            "at",
            "be",
            "but",
            "by",
            "do",
            "for",
            "have",
            "i",
            "if",
            "in",
            "is",
            "it",
            "of",
        ),
        *("on", "or", "that", "the", "this", "to", "was", "with", "you", "your", "'s", "'d", "not", "n't", ",", "?"),
    )
)


def needed_words(pattern: str, lexicon: Lexicon) -> tuple[frozenset[str], ...]:
    """Return sets of words of each of which every text that matches has at least one, the rarest first.

    Raises:
        PatternError: the pattern has no element with words of its own, so it would have to be tried everywhere.
    """
    choices = [words for words in _necessary(_ELEMENT.findall(pattern), lexicon, pattern) if words]
    if not choices:
        raise PatternError(f"The pattern {pattern!r} needs at least one word that must occur. Add one.")
    return tuple(sorted(dict.fromkeys(choices), key=lambda words: (len(words & _COMMON), len(words))))


def _necessary(elements: Sequence[str], lexicon: Lexicon, pattern: str) -> list[frozenset[str]]:
    found: list[frozenset[str]] = []
    place = 0
    while place < len(elements):
        element = elements[place]
        if element == "(":
            end = _closing(elements, place)
            if elements[end] == ")":
                branches = [_necessary(branch, lexicon, pattern) for branch in _branches(elements[place + 1 : end])]
                if all(branches):
                    best = [min(branch, key=lambda words: (len(words & _COMMON), len(words))) for branch in branches]
                    found.append(frozenset().union(*best))
            place = end
        elif (words := _words_of(element, lexicon, last=False)) is not None:
            found.append(words)
        place += 1
    return found


def _words_of(element: str, lexicon: Lexicon, *, last: bool) -> frozenset[str] | None:
    if element in ("^", "^^", "$") or element.startswith(("~", "!")) or (element.endswith("?") and len(element) > 1):
        return None
    words: set[str] = set()
    for each in element.split("|"):
        entries = lexicon.get(each[1:-1], ()) if each.startswith("<") else (each,)
        for entry in entries:
            if "*" in entry:
                return None
            words.add(entry.split()[-1 if last else 0])
    return frozenset(words)


def _branches(elements: Sequence[str]) -> list[list[str]]:
    branches: list[list[str]] = [[]]
    depth = 0
    for element in elements:
        depth += (element == "(") - element.startswith(")")
        if element == "|" and depth == 0:
            branches.append([])
        else:
            branches[-1].append(element)
    return branches


def _closing(elements: Sequence[str], start: int) -> int:
    depth = 0
    for place in range(start, len(elements)):
        depth += (elements[place] == "(") - elements[place].startswith(")")
        if depth == 0:
            return place
    raise PatternError(f"The brackets of {' '.join(elements)!r} do not close. Correct the rules.")


def _opening(elements: Sequence[str], end: int) -> int:
    depth = 0
    for place in range(end, -1, -1):
        depth += elements[place].startswith(")") - (elements[place] == "(")
        if depth == 0:
            return place
    raise PatternError(f"The brackets of {' '.join(elements)!r} do not open. Correct the rules.")

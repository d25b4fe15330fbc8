"""Words of a text as the rules see them: lower case, one spelling, nothing invisible.

Whatever a model, or somebody who tries to get past the rules, puts between and around the letters is removed here and
nowhere else: zero-width and direction marks, soft hyphens, accents, and letters of other alphabets that look Latin.
Offsets always point into the text as it was written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

__all__ = [
    "LONGEST_WORD",
    "Token",
    "Words",
    "tokens_of",
    "tokens_without_places",
    "vocabulary_of",
    "word_texts",
    "word_tokens",
]

LONGEST_WORD = 64
"""Characters after which a run of letters counts as a word, so that nothing waits for the end of an endless one."""

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
)
_MARKS = "\u0300-\u036f"
_INNER = rf"[\w{_INVISIBLE}{_MARKS}]|['’ʼ‐‑\-/](?=[{_INVISIBLE}]*\w)|(?<=\d)[.,](?=\d)"
_TOKEN = re.compile(
    rf"[£$€]?[{_INVISIBLE}]*\w(?:{_INNER}){{0,{LONGEST_WORD - 1}}}%?|[.!?…]+|[,;:()\[\]{{}}\"“”„«»—–‘’'•*\n]"
)
_RUN = re.compile(r"\S*\s|\S+")
"""No token goes on behind a space, so that a text may be cut there."""
_STRIP = re.compile(f"[{_INVISIBLE}{_MARKS}]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LOOKALIKES = str.maketrans(
    {
        **dict(zip("авекмнорстухіїјѕԁһӏԛԝґѵ", "abekmhopctyxiijsdhlqwrv", strict=True)),  # Cyrillic
        **dict(zip("αεικνορτυχβηγωςσ", "aeiknoptuxbnywss", strict=True)),  # Greek
        **dict(zip("ɡıʟſøłđ", "gilsold", strict=True)),
        **dict.fromkeys("‐‑‒", "-"),
    }
)
_CLITICS = re.compile(r"^(.+?)(n't|'d|'ll|'s|'ve|'re|'m)$")
_IRREGULAR = {"won't": ("will", "n't"), "can't": ("can", "n't"), "cannot": ("can", "not"), "shan't": ("shall", "n't")}


_new = tuple.__new__
"""What `Token(...)` comes to, without the call between."""


class Token(NamedTuple):
    """A word or mark of punctuation with its place in the text; a contraction gives two tokens at one place."""

    text: str
    start: int
    end: int


@lru_cache(maxsize=8192)
def _spelling(raw: str) -> tuple[str, ...]:
    word = raw.lower()
    if _NOT_ASCII.search(word):
        word = unicodedata.normalize("NFKD", _STRIP.sub("", word).replace("’", "'").replace("ʼ", "'"))
        word = _STRIP.sub("", word).translate(_LOOKALIKES)
    if not word:
        return ()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    found = _CLITICS.match(word)
    return (found[1], found[2]) if found else (word,)


def tokens_of(text: str, offset: int = 0) -> list[Token]:
    """Return the tokens of `text`; `offset` is the place of its first character."""
    tokens: list[Token] = []
    for run in _RUN.findall(text):
        # What is longer than any word is not worth keeping.
        known = word_tokens(run) if len(run) <= LONGEST_WORD else _tokens_in(run)
        for word, start, end in known:
            tokens.append(_new(Token, (word, start + offset, end + offset)))
        offset += len(run)
    return tokens


def tokens_without_places(text: str) -> list[Token]:
    """Return the tokens of `text` for those who do not ask where they stand; costs much less than `tokens_of`."""
    tokens: list[Token] = []
    for run in _RUN.findall(text):
        tokens += word_tokens(run)
    return tokens


def _tokens_in(run: str) -> tuple[Token, ...]:
    return tuple(
        Token(part, match.start(), match.end()) for match in _TOKEN.finditer(run) for part in _spelling(match[0])
    )


@lru_cache(maxsize=16_384)
def word_tokens(word: str) -> tuple[Token, ...]:
    """Return the tokens of a word with the space after it, their places counted from its first character."""
    return _tokens_in(word)


@lru_cache(maxsize=16_384)
def word_texts(word: str) -> tuple[str, ...]:
    """Return the texts of `word_tokens`."""
    return tuple([token.text for token in word_tokens(word)])


def vocabulary_of(text: str) -> frozenset[str]:
    """Return all tokens of `text` without their order."""
    return frozenset().union(*map(word_texts, _RUN.findall(text)))


class Words:
    """The tokens of a sentence."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.texts = [token.text for token in tokens]
        self.vocabulary = frozenset(self.texts)

    def stretch(self, first: int, end: int) -> tuple[int, int]:
        """Return where in the text the tokens from number `first` up to, not including, number `end` stand."""
        return self.tokens[first].start, self.tokens[max(first, end - 1)].end

    @cached_property
    def line(self) -> str:
        """All tokens as one string, each followed by a space."""
        return " ".join(self.texts) + " "

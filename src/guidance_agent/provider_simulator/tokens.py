"""An approximate tokeniser: deterministic, fast, and near enough to English for lengths, limits and cache positions."""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["TextMeasure", "count_tokens", "measure", "split_tokens"]

# A leading space belongs to the word, as in real vocabularies; words longer than ten letters split into pieces of about
# six, digits into groups of three.
_TOKEN = re.compile(
    r" ?[^\W\d_]{1,10}(?![^\W\d_])"
    r"| ?[^\W\d_]{1,6}"
    r"| ?\d{1,3}"
    r"| ?[^\w\s]{1,3}"
    r"|\s*\n\s*"
    r"|\s+(?=\s)|\s"
    r"|_+"
)

_MEMO_ENTRIES = 4_096
_MEMO_CHARACTERS = 24_000_000


@dataclass(frozen=True, slots=True)
class TextMeasure:
    """A text with its tokens: how many, a digest of its bytes, and where each token ends (in characters)."""

    text: str
    tokens: int
    digest: bytes
    ends: array[int]


class _Memo:
    """The most recent measures, bounded by number and by the characters that they stand for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, TextMeasure] = OrderedDict()
        self._characters = 0
        # Guards the two above: the batches are worked off in a thread of their own.
        self._lock = threading.Lock()

    def get(self, text: str) -> TextMeasure | None:
        with self._lock:
            found = self._kept.get(text)
            if found is not None:
                self._kept.move_to_end(text)
        return found

    def put(self, text: str, value: TextMeasure) -> None:
        with self._lock:
            if text not in self._kept:
                self._characters += len(text)
            self._kept[text] = value
            while len(self._kept) > _MEMO_ENTRIES or (self._characters > _MEMO_CHARACTERS and len(self._kept) > 1):
                dropped, _ = self._kept.popitem(last=False)
                self._characters -= len(dropped)


_memo = _Memo()


def measure(text: str) -> TextMeasure:
    """Count the tokens of `text`; repeated texts, such as the stable parts of a prompt, are counted once."""
    found = _memo.get(text)
    if found is None:
        ends = array("L", [match.end() for match in _TOKEN.finditer(text)])
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        found = TextMeasure(text, len(ends), digest, ends)
        _memo.put(text, found)
    return found


def count_tokens(text: str) -> int:
    return measure(text).tokens


def split_tokens(text: str) -> list[str]:
    """Cut `text` into its tokens; joined they give the text again."""
    pieces = []
    start = 0
    for end in measure(text).ends:
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        pieces.append(text[start:])
    return pieces

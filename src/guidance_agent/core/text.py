"""Text from outside, made storable: what UTF-8 or a database column cannot hold is replaced, never lost silently."""

from __future__ import annotations

import re

__all__ = ["TextCleaner", "is_storable"]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_REPLACEMENT = "\ufffd"


def is_storable(text: str) -> bool:
    """Whether UTF-8 and every database's text columns can hold the text as it is."""
    # Nearly all texts are known by a flag that they carry, without being read through.
    return (text.isascii() and "\x00" not in text) or _UNSTORABLE.search(text) is None


class TextCleaner:
    """Joins surrogate pairs that a provider split between two pieces, and replaces what is left of them.

    A function of the text, not of its pieces: a high surrogate at the end of a piece waits for the next one. NUL
    becomes U+FFFD too, because PostgreSQL's text columns refuse it.
    """

    def __init__(self) -> None:
        self._held = ""

    def clean(self, piece: str) -> str:
        """Return what can be said of the text so far, without what `clean` has returned before."""
        if not self._held and piece.isascii() and "\x00" not in piece:
            return piece
        text = self._held + piece
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        if _UNSTORABLE.search(text) is None:
            return text
        joined = _PAIR.sub(lambda pair: pair.group().encode("utf-16", "surrogatepass").decode("utf-16"), text)
        return _UNSTORABLE.sub(_REPLACEMENT, joined)

    def finish(self) -> str:
        """Return what was held at the end of the text."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""

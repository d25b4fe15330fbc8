"""Reasoning that a model writes into its text between tags, kept apart from what a customer may see.

The rule, as a function of the whole text:

- A tag is `<think>`, `<thinking>` or `<reasoning>`, in any case, attributes allowed, and its closing counterpart.
- An opening tag at the start of the answer or of a line begins reasoning. It lasts until the closing tag of the same
  name, or to the end of the answer when that never comes: private reasoning is not shown because a tag was forgotten.
  It is handed out as reasoning, so that no word is lost to the application, and `unclosed` says that it happened.
- An opening tag in the middle of a line is reasoning too when its closing tag follows; until that is known, the text
  from the tag on is held. When a finished answer ends first, the tag was only spoken of, and all of it is text. After
  `MIDLINE_LIMIT` characters, or when the answer was cut off, it counts as reasoning.
- A closing tag that closes nothing is dropped; the text around it stays text.
- White space before the first reasoning and after a closing tag is dropped while no text has been shown.
- Text without tags passes through unchanged and at once; only what may be the beginning of a tag waits, and white
  space at the very start until something follows it.

How the text was cut into pieces has no part in this rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Literal, NamedTuple

from guidance_agent.llm.messages import Delta

__all__ = ["MIDLINE_LIMIT", "DeltaFilter", "Piece", "ReasoningFilter", "separated"]

MIDLINE_LIMIT = 16_384
"""Characters after an opening tag in the middle of a line that are held for its closing tag."""

_NAMES = ("thinking", "reasoning")
_TAG = re.compile(r"<(/?)(thinking|think|reasoning)(?:\s[^<>]{0,64})?>", re.IGNORECASE)
_UNFINISHED_TAG = re.compile(r"</?(?:thinking|think|reasoning)\s[^<>]{0,64}", re.IGNORECASE)
_LONGEST_TAG = 80


class Piece(NamedTuple):
    """A piece of an answer and what it is."""

    kind: Literal["text", "reasoning"]
    content: str


class ReasoningFilter:
    """Separates reasoning from text, piece by piece. One filter serves one answer."""

    __slots__ = ("_blank_line", "_held", "_name", "_out", "_reasoned", "_searched", "_shown", "_space", "_spoken")

    def __init__(self) -> None:
        self._held = ""
        self._name: str | None = None
        # Length of the opening tag at the start of what is held, while it is open whether it is one; 0 otherwise.
        self._spoken = 0
        self._searched = 0
        self._blank_line = True
        self._shown = False
        self._reasoned = False
        self._space = ""
        self._out: list[Piece] = []

    @property
    def unclosed(self) -> bool:
        """Whether the text so far ends inside reasoning."""
        return self._name is not None and not self._spoken

    def feed(self, text: str) -> list[Piece]:
        """Return what `text` settles, in order; neighbouring pieces are of different kinds."""
        if self._shown and self._name is None and not self._held and "<" not in text:
            self._mark_line(text)
            return [Piece("text", text)] if text else []
        self._held += text
        self._scan()
        return self._taken()

    def finish(self, *, cut_off: bool = False) -> list[Piece]:
        """Return what was held, now that the answer has ended.

        Args:
            cut_off: The answer did not come to its own end: a limit, an error or a broken connection ended it.
        """
        while self._spoken:
            if cut_off:
                self._begin_reasoning(self._spoken)
            else:
                tag, self._held = self._held[: self._spoken], self._held[self._spoken :]
                self._name, self._spoken = None, 0
                self._text(tag)
            self._scan()
        held, self._held = self._held, ""
        if self._name is None:
            self._text(held)
        else:
            self._emit("reasoning", held)
        if not self._shown and not self._reasoned:
            self._emit("text", self._space)
        self._space = ""
        return self._taken()

    def _scan(self) -> None:
        position = 0
        while True:
            if self._spoken:
                settled = self._settle_spoken()
                if settled is None:
                    return
                position = settled
            held = self._held
            begin = held.find("<", position)
            self._plain(held[position:] if begin < 0 else held[position:begin])
            if begin < 0:
                self._held = ""
                return
            tag = _TAG.match(held, begin)
            if tag is None:
                if _may_become_tag(held, begin):
                    self._held = held[begin:]
                    return
                self._plain("<")
                position = begin + 1
                continue
            position = tag.end()
            closing, name = tag[1] == "/", tag[2].lower()
            if self._name is not None:
                if closing and name == self._name:
                    self._name = None
                else:
                    self._plain(tag[0])
            elif not closing:
                self._name = name
                self._held = held[begin:]
                position = 0
                if self._blank_line:
                    self._begin_reasoning(len(tag[0]))
                else:
                    self._spoken = self._searched = len(tag[0])

    def _settle_spoken(self) -> int | None:
        """Decide about an opening tag in the middle of a line; return where to go on, or None to wait."""
        held, begin = self._held, self._spoken
        for tag in _TAG.finditer(held, max(begin, self._searched - _LONGEST_TAG)):
            if tag[1] and tag[2].lower() == self._name:
                self._emit("reasoning", held[begin : tag.start()])
                self._name, self._spoken = None, 0
                return tag.end()
        self._searched = len(held)
        if len(held) - begin > MIDLINE_LIMIT:
            self._begin_reasoning(begin)
            return 0
        return None

    def _begin_reasoning(self, tag_length: int) -> None:
        self._held = self._held[tag_length:]
        self._spoken = 0
        self._reasoned = True

    def _plain(self, content: str) -> None:
        if self._name is None:
            self._text(content)
        else:
            self._emit("reasoning", content)

    def _text(self, content: str) -> None:
        if not content:
            return
        if not self._shown:
            content = self._space + content
            visible = content.lstrip()
            if not visible:
                self._space = content
                return
            if self._reasoned:
                content = visible
            self._space = ""
            self._shown = True
        self._mark_line(content)
        self._emit("text", content)

    def _mark_line(self, content: str) -> None:
        _, newline, line = content.rpartition("\n")
        self._blank_line = (bool(newline) or self._blank_line) and not line.strip()

    def _emit(self, kind: Literal["text", "reasoning"], content: str) -> None:
        if not content:
            return
        self._out.append(Piece(kind, content))

    def _taken(self) -> list[Piece]:
        out, self._out = self._out, []
        if len(out) < 2:
            return out
        return [
            Piece(kind, "".join(piece.content for piece in pieces))
            for kind, pieces in groupby(out, lambda piece: piece.kind)
        ]


class DeltaFilter:
    """Applies the rule to the deltas of one answer; what is not text passes through in its place."""

    __slots__ = ("_tags",)

    def __init__(self) -> None:
        self._tags = ReasoningFilter()

    @property
    def unclosed(self) -> bool:
        return self._tags.unclosed

    def feed(self, arrived: Sequence[Delta]) -> list[Delta]:
        """Return what `arrived` settles. A finish reason settles what was held, which comes before it."""
        deltas: list[Delta] = []
        for delta in arrived:
            rest = delta
            if delta.text:
                pieces = self._tags.feed(delta.text)
                if pieces == [("text", delta.text)] and delta.finish_reason is None:
                    deltas.append(delta)
                    continue
                if delta.reasoning:
                    deltas.append(Delta(reasoning=delta.reasoning))
                deltas += _deltas(pieces)
                rest = replace(delta, text="", reasoning="")
            if rest.finish_reason is not None:
                deltas += _deltas(self._tags.finish(cut_off=rest.finish_reason not in ("stop", "tool_calls")))
            if rest != _NOTHING:
                deltas.append(rest)
        return deltas

    def broken(self) -> list[Delta]:
        """Return what was held when the answer broke off."""
        return _deltas(self._tags.finish(cut_off=True))


_NOTHING = Delta()


def _deltas(pieces: Sequence[Piece]) -> list[Delta]:
    return [Delta(text=content) if kind == "text" else Delta(reasoning=content) for kind, content in pieces]


def _may_become_tag(text: str, begin: int) -> bool:
    if len(text) - begin > _LONGEST_TAG:
        return False
    name = text[begin + 1 :].lower().removeprefix("/")
    return any(known.startswith(name) for known in _NAMES) or _UNFINISHED_TAG.fullmatch(text, begin) is not None


def separated(text: str, *, cut_off: bool) -> tuple[str, str]:
    """Return the text and the reasoning of a whole answer; `cut_off` says that it did not come to its end."""
    if "<" not in text:
        return text, ""
    tags = ReasoningFilter()
    pieces = tags.feed(text) + tags.finish(cut_off=cut_off)
    shown = "".join(piece.content for piece in pieces if piece.kind == "text")
    return shown, "".join(piece.content for piece in pieces if piece.kind == "reasoning")

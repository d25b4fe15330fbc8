"""The gate through which every piece of an answer passes before it is journaled.

A gate is a function of the text and never of its pieces: what it has released after a prefix depends on that prefix
alone. `OpenGate` releases everything at once. `SentenceGate` lets text flow word by word while the sentence that it
belongs to carries no cue. A cue holds the sentence from the first word of the clause that holds it (or from what is not
out yet), to its end or for 1,000 characters; then the rules decide. What they call a breach is withheld and replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from guidance_agent.compliance.clauses import clause_start
from guidance_agent.compliance.judging_rules import SentenceRules
from guidance_agent.compliance.language import LONGEST_WORD, Token, Words, tokens_of
from guidance_agent.compliance.sentences import SentenceVerdict

__all__ = ["OpenGate", "Released", "SentenceGate", "TextGate", "Withholding"]

LONGEST_HOLD = 1_000
LONGEST_SENTENCE = 400
"""Tokens after which a sentence without an end is judged as it stands, so that the work stays linear."""


@dataclass(frozen=True, slots=True)
class Withholding:
    """A stretch of the model's text that is not shown, and the text that stands in its place."""

    check: str
    reason: str
    replacement: str
    withheld: str = ""


Released: TypeAlias = str | Withholding


class TextGate(Protocol):
    """What stands between the model's text and the journal. Called on the event loop; must not block."""

    def feed(self, text: str) -> Sequence[Released]:
        """Take the next piece of the model's text and return what may now be shown, in order."""

    def finish(self) -> Sequence[Released]:
        """Return what may be shown once the model's text has ended, whole or cut off."""


class OpenGate:
    """Releases every piece as it comes."""

    def feed(self, text: str) -> Sequence[Released]:
        return (text,)

    def finish(self) -> Sequence[Released]:
        return ()


Replace: TypeAlias = Callable[[SentenceVerdict, bool], str]
"""Makes the text that stands for a withheld stretch; the flag says that a part of its sentence is out already."""

_PIECE = re.compile(r"\S*\s")
_BOUNDARY = re.compile(r"[.!?…]+[\"'”’)\]*_]*\s|\n")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|etc|p\.a|p\.m|a\.m|vs|approx|no|mr|mrs|ms|dr|st|ltd|plc|inc|incl|cf|para|sec|art|[a-z])\.\s$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 10


class SentenceGate:
    """Holds a sentence when it carries a cue, and withholds it when the rules call it a breach.

    Args:
        rules: What is a cue, a breach, and an excuse.
        replace: Makes the text that stands for what is withheld.
        judged: Told the verdict on every sentence that was held, with the place of the sentence in the whole text.

    Attributes:
        sentences: Sentences that have ended.
        sentences_held: Those of them that were held.
    """

    def __init__(
        self, rules: SentenceRules, replace: Replace, judged: Callable[[int, SentenceVerdict], None] = lambda *_: None
    ) -> None:
        self._rules = rules
        self._replace = replace
        self._judged = judged
        self._text = ""
        """The sentence that is being read, released part included, and what has been fed after it."""
        self._read = 0
        """How much of it has been read as words."""
        self._free = 0
        """How much of it may be released."""
        self._out = 0
        """How much of it has been released."""
        self._held_from: int | None = None
        self._reader = rules.reader("")
        self._tokens: list[Token] = []
        self._last_check = ""
        self._before = 0
        """Characters of the text before the sentence that is being read."""
        self.sentences = 0
        self.sentences_held = 0

    @property
    def held(self) -> str:
        """What has been fed and not been released."""
        return self._text[self._out :]

    def feed(self, text: str) -> Sequence[Released]:
        self._text += text
        released: list[Released] = []
        while (end := self._next_piece()) is not None:
            self._read_piece(end, released)
        self._let_out(released)
        return released

    def finish(self) -> Sequence[Released]:
        released: list[Released] = []
        if self._read < len(self._text):
            self._read_piece(len(self._text), released)
        if self._text:
            self._end_sentence(len(self._text), released)
        return released

    def _next_piece(self) -> int | None:
        """Return where the next word ends with the one space after it; None while that is not known."""
        longest = self._read + LONGEST_WORD
        found = _PIECE.match(self._text, self._read, longest)
        if found is not None:
            return found.end()
        return longest if len(self._text) > longest else None

    def _read_piece(self, end: int, released: list[Released]) -> None:
        for token in tokens_of(self._text[self._read : end], self._read):
            self._tokens.append(token)
            if self._held_from is None and (place := self._reader.read(token)) is not None:
                self._held_from = max(self._free, self._tokens[clause_start(self._tokens, place)].start)
        began, self._read = self._read, end
        if self._held_from is None and not self._reader.waits:
            self._free = end
        if self._is_end(began, end) or len(self._tokens) >= LONGEST_SENTENCE or self._is_held_too_long(end):
            self._end_sentence(end, released)

    def _is_held_too_long(self, end: int) -> bool:
        return self._held_from is not None and end - self._held_from >= LONGEST_HOLD

    def _is_end(self, began: int, end: int) -> bool:
        found = _BOUNDARY.search(self._text, began, end)
        if found is None or found.end() != end:
            return False
        before = self._text[max(0, end - _LONGEST_ABBREVIATION) : end]
        return before.endswith("\n") or _ABBREVIATION.search(before) is None

    def _let_out(self, released: list[Released]) -> None:
        if self._free > self._out:
            released.append(self._text[self._out : self._free])
            self._out = self._free

    def _end_sentence(self, end: int, released: list[Released]) -> None:
        self._free = end if self._held_from is None else self._held_from
        self._let_out(released)
        if self._held_from is None:
            self._last_check = ""
        else:
            stretch = self._text[self._held_from : end]
            verdict = self._rules.judge(Words(self._tokens), self._text[:end], "")
            self.sentences_held += 1
            self._judged(self._before, verdict)
            released.append(self._decided(verdict, stretch))
        self.sentences += bool(self._tokens)
        self._before += end
        self._text = self._text[end:]
        self._read = self._free = self._out = 0
        self._held_from = None
        self._tokens = []
        self._reader = self._rules.reader("")

    def _decided(self, verdict: SentenceVerdict, stretch: str) -> Released:
        if verdict.decision != "breach":
            self._last_check = ""
            return stretch
        finding = max(verdict.findings, key=lambda finding: finding.score)
        space = stretch[len(stretch.rstrip()) :]
        is_repeated = finding.check == self._last_check and not self._out
        self._last_check = finding.check
        replacement = "" if is_repeated else self._replace(verdict, self._out > 0)
        return Withholding(finding.check, finding.rule, replacement + space, withheld=stretch)

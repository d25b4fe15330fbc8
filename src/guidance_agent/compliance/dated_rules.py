"""The rules of one day: what sentences say, and whether their figures agree with the facts of that day.

A figure is compared as soon as the word after it is read. A right one is released with that word and does not hold its
sentence; a wrong one is a cue like any other, and so is a word that makes a figure before it wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache

from guidance_agent.compliance.figure_growth import GrowingFigures
from guidance_agent.compliance.figures import FigureChecker, FigureFinding
from guidance_agent.compliance.judging_rules import CueReader, SentenceRules
from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.quantities import holds_number
from guidance_agent.compliance.rules_version import gate_rules_version
from guidance_agent.compliance.sentences import Finding, SentenceVerdict
from guidance_agent.compliance.standard_rules import sentence_rules
from guidance_agent.knowledge.loader import Knowledge

__all__ = ["DatedRules", "GateRules"]


SURE = 0.9
"""From this score on a figure is wrong without anybody being asked; below it what it belongs to is a guess."""


class GateRules:
    """All rules of the gate, built once for a knowledge base. Building reads files and takes a moment."""

    def __init__(self, knowledge: Knowledge, sentences: SentenceRules | None = None) -> None:
        self._sentences = sentence_rules() if sentences is None else sentences
        self._figures = FigureChecker(knowledge)
        self.version = gate_rules_version(self._sentences.version, knowledge)

    def on(self, day: date) -> DatedRules:
        """Return the rules of a day."""
        return DatedRules(self._sentences, self._figures, day, self.version)


class DatedRules:
    """`SentenceRules` to which a wrong figure is a breach of `figure_amount` or `figure_year`."""

    def __init__(self, sentences: SentenceRules, figures: FigureChecker, day: date, version: str) -> None:
        self._sentences = sentences
        self._figures = figures
        self._day = day
        self._version = version

    @property
    def version(self) -> str:
        return self._version

    def reader(self, before: str) -> CueReader:
        return _DatedReader(self._sentences.reader(before), self._figures, self._day, before)

    def passes(self, words: Sequence[str]) -> bool:
        if not self._figures.stating_words.isdisjoint(words):
            return False
        return not any(map(_is_number, words)) and self._sentences.passes(words)

    def judge(self, words: Words, text: str, before: str) -> SentenceVerdict:
        verdict = self._sentences.judge(words, text, before)
        if not self._figures.may_speak_of(words):
            return verdict
        wrong = self._figures.check(words, text, on=self._day, before=self._figures.context(before))
        if not wrong:
            return verdict
        is_sure = verdict.decision == "breach" or any(finding.score >= SURE for finding in wrong)
        return SentenceVerdict(
            decision="breach" if is_sure else "undecided",
            cued=True,
            score=max(verdict.score, *(finding.score for finding in wrong)),
            findings=tuple(sorted((*verdict.findings, *map(_finding, wrong)), key=lambda each: (each.start, each.end))),
        )


class _DatedReader:
    __slots__ = ("_calling", "_figures", "_growing", "_is_after_number", "_read", "_reader", "_tokens", "waits")

    def __init__(self, reader: CueReader, figures: FigureChecker, day: date, before: str) -> None:
        self._reader = reader
        self._read = reader.read
        self._figures = figures
        self._growing = GrowingFigures(figures, day, before)
        self._tokens = self._growing.tokens
        self._calling = figures.stating_words
        """Words at which it is worth looking; without a number there can only be a statement of another time."""
        self._is_after_number = False
        self.waits = False

    def read(self, token: Token, text: str) -> int | None:
        self._tokens.append(token)
        place = self._read(token, text)
        if place is not None:
            return place
        word = token[0]
        if _is_number(word):
            self._is_after_number = self.waits = True
            self._growing.holds_number()
            self._calling = self._figures.naming_words
            return None
        self.waits = self._reader.waits
        if self._is_after_number:
            self._is_after_number = False
        elif word not in self._calling:
            return None
        start = self._growing.wrong_from(text)
        if start is None:
            return None
        return next(number for number, token in enumerate(self._tokens) if token.end > start)


@lru_cache(maxsize=4_096)
def _is_number(word: str) -> bool:
    return holds_number(Words((Token(word, 0, len(word)),)))


def _finding(wrong: FigureFinding) -> Finding:
    return Finding(
        check=wrong.check,
        rule=f"{wrong.check}.{wrong.figure}",
        start=wrong.start,
        end=wrong.end,
        cue=wrong.said,
        score=wrong.score,
    )

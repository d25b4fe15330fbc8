"""Rules that a reader sees through: one word decides, so that tests of the gate do not depend on what rules know."""

from __future__ import annotations

from collections.abc import Sequence

from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.sentences import Finding, SentenceVerdict

BREACHES = {"steer": "advice_boundary", "certain": "false_guarantee", "hurry": "pressure"}
DOUBTS = {"maybe": "advice_boundary", "perhaps": "pressure"}
HARMLESS = "recommend"
OPENING = "if"


class _Reader:
    def __init__(self) -> None:
        self._number = -1
        self.waits = False

    def read(self, token: Token, text: str) -> int | None:
        self._number += 1
        self.waits = token.text == OPENING
        return self._number if token.text in {**BREACHES, **DOUBTS, HARMLESS: ""} else None


class WordRules:
    """`steer`, `certain` and `hurry` are breaches, `maybe` and `perhaps` are doubtful, `recommend` is looked at."""

    version = "words"

    def reader(self, before: str) -> _Reader:
        return _Reader()

    def passes(self, words: Sequence[str]) -> bool:
        return {*BREACHES, *DOUBTS, HARMLESS}.isdisjoint(words)

    def judge(self, words: Words, text: str, before: str) -> SentenceVerdict:
        known = {**DOUBTS, **BREACHES}
        findings = tuple(
            Finding(
                check=known[token.text],
                rule=f"word.{token.text}",
                start=token.start,
                end=token.end,
                cue=text[token.start : token.end],
                score=1.0 if token.text in BREACHES else 0.0,
            )
            for token in words.tokens
            if token.text in known
        )
        is_breach = any(finding.score for finding in findings)
        return SentenceVerdict(
            decision="breach" if is_breach else "undecided" if findings else "pass",
            cued=True,
            score=1.0 if is_breach else 0.0,
            findings=findings,
        )

"""The fitted models as the rules of the gate.

A sentence is held as soon as the sum of its words reaches the threshold of the cue. Held to its end, it is a breach
when what is said in it, quotations apart, reaches a second threshold; between that and a third one nobody can tell by
rule. The stretch that a finding names is the one whose words speak most strongly for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from guidance_agent.compliance.fitted_models import FittedModels
from guidance_agent.compliance.judging_rules import CueReader
from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.sentence_features import shape_of, spoken
from guidance_agent.compliance.sentence_model import RunningScore, slack
from guidance_agent.compliance.sentences import Finding, SentenceVerdict

__all__ = ["FittedRules"]

_NOTHING_FOUND = SentenceVerdict(decision="pass", cued=True, score=0.0, findings=())
OPENING_WORDS = 6
"""So many words at the beginning of a sentence wait for the next one when their sum comes near the cue."""
_NEAR = 1.0


class FittedRules:
    """Finds cues and judges sentences by fitted models."""

    def __init__(self, models: FittedModels) -> None:
        self._models = models

    @property
    def version(self) -> str:
        return self._models.version

    def reader(self, before: str) -> CueReader:
        return _FittedReader(self._models)

    def judge(self, words: Words, text: str, before: str) -> SentenceVerdict:
        models = self._models
        said = spoken(words.tokens)
        plain = [word for word, _ in said]
        score, shares = models.breach.score(plain)
        score += models.cue_share * models.cue.score(filter(None, map(shape_of, words.texts)))
        if score < models.doubt_from or not said:
            return _NOTHING_FOUND
        is_breach = score >= models.breach_from
        check = max(models.checks, key=lambda name: models.checks[name].score(plain))
        first, last = _strongest(shares)
        start, end = words.stretch(said[first][1], said[last][1] + 1)
        likelihood = round(1 / (1 + math.exp(-score)), 3)
        finding = Finding(
            check=check, rule=f"{check}.fitted", start=start, end=end, cue=text[start:end], score=likelihood
        )
        return SentenceVerdict(
            decision="breach" if is_breach else "undecided",
            cued=True,
            score=likelihood,
            findings=(finding,),
        )


class _FittedReader:
    def __init__(self, models: FittedModels) -> None:
        self._threshold = models.cue_from
        self._running = RunningScore(models.cue)
        self._tokens = 0
        self._words = 0

    @property
    def waits(self) -> bool:
        return 0 < self._words <= OPENING_WORDS and self._running.value >= self._threshold - _NEAR

    def read(self, token: Token) -> int | None:
        number = self._tokens
        self._tokens += 1
        word = shape_of(token.text)
        if not word:
            return None
        self._words += 1
        self._running.read(word)
        return number if self._running.value - slack(self._words, word) >= self._threshold else None


def _strongest(shares: Sequence[float]) -> tuple[int, int]:
    """Return the numbers of the first and the last word of the stretch with the greatest sum."""
    best, first, last = -math.inf, 0, 0
    total, began = 0.0, 0
    for place, share in enumerate(shares):
        if total <= 0:
            total, began = 0.0, place
        total += share
        if total > best:
            best, first, last = total, began, place
    return first, last

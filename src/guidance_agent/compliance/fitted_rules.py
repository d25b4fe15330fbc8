"""The fitted models as the rules of the gate.

A sentence is held as soon as the sum of its words reaches the threshold of the cue. Held to its end, it is a breach
when what is said in it, quotations apart, reaches a second threshold; between that and a third one nobody can tell by
rule, nor where most of it is no words that the models know. The stretch that a finding names is the one whose words
speak most strongly for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

from guidance_agent.compliance.clauses import CLAUSE_MARKS
from guidance_agent.compliance.fitted_models import FittedModels
from guidance_agent.compliance.judging_rules import CueReader
from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.sentence_features import shape_of, spoken
from guidance_agent.compliance.sentence_model import RunningSum, slack
from guidance_agent.compliance.sentences import Finding, SentenceVerdict
from guidance_agent.core.shipped import read_shipped

__all__ = ["FittedRules"]

_LONGEST_OPENING = 40
"""Characters of a clause that are compared with the openings."""
_FEWEST_KNOWN = 4
_LEAST_KNOWN = 0.6
"""How many words of a sentence must be known, and which share of them, for the models to decide it."""
_NOTHING_FOUND = SentenceVerdict(decision="pass", cued=True, score=0.0, findings=())


class FittedRules:
    """Finds cues and judges sentences by fitted models."""

    def __init__(self, models: FittedModels) -> None:
        self._models = models

    @property
    def version(self) -> str:
        return self._models.version

    def reader(self, before: str) -> CueReader:
        return _FittedReader(self._models)

    def passes(self, words: Sequence[str]) -> bool:
        threshold = self._models.cue_from
        running = RunningSum(self._models.cue)
        read = running.read
        number = 0
        for shape in map(shape_of, words):
            if shape:
                number += 1
                read(shape)
                value = running.value
                if value >= threshold and value - slack(number, shape) >= threshold:
                    return False
        return True

    def judge(self, words: Words, text: str, before: str) -> SentenceVerdict:
        models = self._models
        said = spoken(words.tokens)
        by_word = models.features.by_word([word for word, _ in said])
        reading = models.breach.read(by_word)
        score = reading.score + models.cue_share * models.cue.score(filter(None, map(shape_of, words.texts)))
        if score < models.doubt_from or not said:
            return _NOTHING_FOUND
        is_breach = score >= models.breach_from and self._are_words([word for word, _ in said])
        check = models.checks.check_of(by_word)
        first, last = _strongest(reading.shares())
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

    def _are_words(self, said: Sequence[str]) -> bool:
        """Whether enough of a sentence is known for a score to mean anything: markup, code and names are not."""
        words = [word for word in said if word[0].isalpha()]
        known = sum(map(self._models.knows, words))
        return known >= _FEWEST_KNOWN and known >= len(words) * _LEAST_KNOWN


class _FittedReader:
    __slots__ = ("_clause", "_opening_at", "_openings", "_running", "_threshold", "_tokens", "_words", "waits")

    def __init__(self, models: FittedModels) -> None:
        self._threshold = models.cue_from
        self._running = RunningSum(models.cue)
        self._openings = load_openings()
        self._tokens = 0
        self._words = 0
        self._clause = ""
        self._opening_at = 0
        self.waits = False

    def read(self, token: Token, text: str) -> int | None:
        written = token[0]
        number = self._tokens
        self._tokens = number + 1
        was_opening, opening_at = self.waits, self._opening_at
        if was_opening or not self._clause:
            self._follow(written, number)
        elif written in CLAUSE_MARKS:
            # What has once left the openings is none of them before the next clause.
            self._clause = ""
        word = shape_of(written)
        if not word:
            return None
        self._words = words = self._words + 1
        running = self._running
        running.read(word)
        value = running.value
        if value < self._threshold or value - slack(words, word) < self._threshold:
            return None
        return opening_at if was_opening else number

    def _follow(self, text: str, number: int) -> None:
        """Keep the clause while it is how one may begin that steers; the comma after an opening belongs to it."""
        if not self._clause:
            self._opening_at = number
        longer = f"{self._clause} {text}" if self._clause else text
        if text in CLAUSE_MARKS and longer not in self._openings:
            self._clause = ""
        elif len(self._clause) < _LONGEST_OPENING:
            self._clause = longer
        self.waits = self._clause in self._openings


@lru_cache(maxsize=1)
def load_openings() -> frozenset[str]:
    """Return all openings and their beginnings; behind a comma they go on with what the speaker would do."""
    listed = read_shipped(resources.files("guidance_agent.compliance") / "rules" / "openings.yaml", list[str])
    longer = [f"{opening} i {would}" for opening in listed if opening.endswith(",") for would in ("would", "'d")]
    openings = [opening.split() for opening in (*listed, *longer)]
    return frozenset(" ".join(words[:end]) for words in openings for end in range(1, len(words) + 1))


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

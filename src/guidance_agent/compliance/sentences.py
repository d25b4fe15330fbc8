"""One sentence judged by the rules: what it says, what excuses it, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from guidance_agent.compliance.language import Words
from guidance_agent.compliance.rulebook import Match, RuleBook

__all__ = ["Finding", "SentenceVerdict", "judge_sentence"]

SentenceDecision = Literal["pass", "undecided", "breach"]

DECISIVE = 1.0
"""Sum of weights from which a sentence is a breach without anybody being asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found. `start` and `end` are offsets into the text that was judged; `cue` is what stands there."""

    check: str
    rule: str
    start: int
    end: int
    cue: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceVerdict:
    """`pass` without a cue, or when everything that was found is excused; `undecided` when a cue is left over."""

    decision: SentenceDecision
    cued: bool
    score: float
    findings: tuple[Finding, ...]


def judge_sentence(words: Words, rules: RuleBook, text: str) -> SentenceVerdict:
    """Judge one sentence by the rules; `text` is the text into which the offsets of its tokens point."""
    matches = rules.matches(words)
    permits = [match for match in matches if match.rule.kind == "permit"]
    found = [match for match in matches if match.rule.kind != "permit"]
    quotes = tuple(_quoted(words.texts))
    counting = [match for match in found if not _is_excused(match, permits, quotes)]
    breaches = [match for match in counting if match.rule.kind == "breach"]
    score = sum({match.rule.id.rpartition(".")[0]: match.rule.weight for match in breaches}.values())
    decision: SentenceDecision = "breach" if score >= DECISIVE else "undecided" if counting else "pass"
    return SentenceVerdict(
        decision=decision,
        cued=bool(found),
        score=round(min(score, 1.0), 3),
        findings=tuple(_finding(match, words, text) for match in counting),
    )


def _is_excused(match: Match, permits: Sequence[Match], quotes: Sequence[tuple[int, int]]) -> bool:
    if any(start <= match.start and match.end <= end for start, end in quotes):
        return True
    return any(
        permit.rule.family == match.rule.family
        and (permit.rule.scope == "sentence" or (permit.start < match.end and match.start < permit.end))
        for permit in permits
    )


_CLOSING = {"“": "”", "«": "»", "„": "“", '"': '"', "‘": "’"}


def _quoted(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the stretches between quotation marks; one that is never closed ends with the sentence."""
    opened: tuple[int, str] | None = None
    for place, text in enumerate(texts):
        if opened is None:
            if text in _CLOSING:
                opened = (place, _CLOSING[text])
        elif text == opened[1]:
            yield opened[0], place + 1
            opened = None
    if opened is not None:
        yield opened[0], len(texts)


def _finding(match: Match, words: Words, text: str) -> Finding:
    start, end = words.stretch(match.start, match.end)
    return Finding(
        check=match.rule.check,
        rule=match.rule.id,
        start=start,
        end=end,
        cue=text[start:end],
        score=match.rule.weight if match.rule.kind == "breach" else 0.0,
    )

"""What is found in a sentence, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "SentenceVerdict"]

SentenceDecision = Literal["pass", "undecided", "breach"]


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

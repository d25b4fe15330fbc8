"""What corrects a delivered text that failed: reviewed wording, addressed to the words that failed.

The words of a correction are a file that people have reviewed (`corrections.yaml`); nothing is written by a model. A
failed check corrects the words that the verdict quotes. Where it quotes none, something that was left out is added at
the end, and anything else takes the place of the whole text.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, model_validator

from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Severity, Verdict
from guidance_agent.core.shipped import read_shipped
from guidance_agent.core.verdicts import NewCorrection

__all__ = ["CorrectionWording", "correction_wording", "corrections_for"]

_RANK: dict[Severity | None, int] = {"critical": 0, "high": 1, "medium": 2, "low": 3, None: 4}


class CorrectionWording(BaseModel):
    """The reviewed wording of one check.

    Attributes:
        instead: Stands for the words that failed.
        whole: Stands for the whole text.
        added: Stands at the end of the text; a check has this or `whole`.
        reason: Why there is a correction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instead: str
    whole: str | None = None
    added: str | None = None
    reason: str

    @model_validator(mode="after")
    def _has_one_place(self) -> CorrectionWording:
        if (self.whole is None) == (self.added is None):
            raise ValueError("a check needs wording for the whole text or for its end, and not for both")
        return self


@lru_cache(maxsize=1)
def correction_wording() -> dict[CheckName, CorrectionWording]:
    """Return the reviewed wording of every check."""
    file = resources.files("guidance_agent.compliance") / "corrections.yaml"
    wording = read_shipped(file, dict[CheckName, CorrectionWording])
    return {check: wording[check] for check in CHECKS}


def corrections_for(verdict: Verdict, *, length: int) -> tuple[NewCorrection, ...]:
    """Return the corrections that a verdict asks for, in the order of the text; none for one that passed.

    Of corrections that would overlap the one of the graver check stays. One that replaces the whole text leaves no
    others but what is added at its end.

    Args:
        verdict: The verdict.
        length: Length of the judged text, in code points.
    """
    wording = correction_wording()
    spans: list[NewCorrection] = []
    whole: NewCorrection | None = None
    added: dict[CheckName, NewCorrection] = {}
    for failure in sorted(verdict.failures, key=_gravity):
        words = wording[failure.check]
        if failure.start is not None and failure.end is not None and failure.start < failure.end <= length:
            span = NewCorrection(failure.start, failure.end, words.instead, words.reason)
            if all(span.end <= other.start or other.end <= span.start for other in spans):
                spans.append(span)
        elif words.added is not None:
            added.setdefault(failure.check, NewCorrection(length, length, words.added, words.reason))
        elif whole is None and words.whole is not None:
            whole = NewCorrection(0, length, words.whole, words.reason)
    kept = sorted(spans) if whole is None else [whole]
    return (*kept, *added.values())


def _gravity(failure: CheckResult) -> tuple[int, int]:
    return _RANK[failure.severity], failure.start or 0

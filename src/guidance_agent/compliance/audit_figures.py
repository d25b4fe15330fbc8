"""The figures of audits: who passed what, how often, and how far two of them agree. Pure counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from guidance_agent.compliance.verdict import CHECKS, CheckName, Severity, Verdict

__all__ = [
    "GATE_CHECKS",
    "SEVERITIES",
    "Agreement",
    "CheckFigures",
    "Figures",
    "Said",
    "count_checks",
    "failing",
    "say_of",
    "week_of",
]

Said = Literal["passed", "failed", "unreadable"]

SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low")
"""The gravest first."""

GATE_CHECKS: frozenset[CheckName] = frozenset(
    {"advice_boundary", "clear_not_misleading", "scam", "db_transfer", "figures"}
)
"""The checks that the gate has something to say about while an answer streams."""

_UK = ZoneInfo("Europe/London")


@dataclass(slots=True)
class Figures:
    """How many answers were audited, and what became of them."""

    audited: int = 0
    passed: int = 0
    failed: int = 0
    unreadable: int = 0

    def add(self, said: Said) -> None:
        self.audited += 1
        setattr(self, said, getattr(self, said) + 1)

    @property
    def share_passed(self) -> float | None:
        return self.passed / self.audited if self.audited else None


@dataclass(slots=True)
class CheckFigures:
    """In how many answers a check passed, failed, did not apply, or has no answer because none could be read."""

    passed: int = 0
    failed: int = 0
    not_applicable: int = 0
    not_answered: int = 0
    severities: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Agreement:
    """Two judges of the same answers: how often both passed one, neither did, or only one of them.

    Cohen's kappa is the agreement beyond that of two who pass as often as these do, but by chance: (observed -
    expected) / (1 - expected). 1 is full agreement, 0 is chance. It is None where nothing was judged by both, and where
    both said one and the same of everything, because chance would agree as well.
    """

    first: str
    second: str
    both_passed: int = 0
    only_first_passed: int = 0
    only_second_passed: int = 0
    neither_passed: int = 0

    def add(self, *, first: bool, second: bool) -> None:
        """Count an answer; `first` and `second` are whether they passed it."""
        if first and second:
            self.both_passed += 1
        elif first:
            self.only_first_passed += 1
        elif second:
            self.only_second_passed += 1
        else:
            self.neither_passed += 1

    @property
    def answers(self) -> int:
        return self.both_passed + self.only_first_passed + self.only_second_passed + self.neither_passed

    @property
    def observed(self) -> float | None:
        """The share of answers about which they agree."""
        return (self.both_passed + self.neither_passed) / self.answers if self.answers else None

    @property
    def expected(self) -> float | None:
        """The share about which they would agree by chance."""
        if not self.answers:
            return None
        first = (self.both_passed + self.only_first_passed) / self.answers
        second = (self.both_passed + self.only_second_passed) / self.answers
        return first * second + (1 - first) * (1 - second)

    @property
    def kappa(self) -> float | None:
        observed, expected = self.observed, self.expected
        if observed is None or expected is None or expected >= 1.0:
            return None
        return (observed - expected) / (1 - expected)


def say_of(verdict: Verdict) -> Said:
    """Return a verdict in one word."""
    if verdict.unreadable is not None:
        return "unreadable"
    return "passed" if verdict.passed else "failed"


def failing(verdict: Verdict) -> frozenset[CheckName]:
    """Return the checks that failed."""
    return frozenset(result.check for result in verdict.failures)


def count_checks(counts: Mapping[CheckName, CheckFigures], verdict: Verdict) -> None:
    """Add what a verdict says of each check; the gravest result of a check counts for it."""
    for check in CHECKS:
        results = [result for result in verdict.checks if result.check == check]
        failed = [result for result in results if result.status == "fail"]
        figures = counts[check]
        if failed:
            figures.failed += 1
            graves = {result.severity or "medium" for result in failed}
            figures.severities[next(each for each in SEVERITIES if each in graves)] += 1
        elif not results:
            figures.not_answered += 1
        elif any(result.status == "pass" for result in results):
            figures.passed += 1
        else:
            figures.not_applicable += 1


def week_of(moment: datetime) -> str:
    """Return the ISO week of a moment in the United Kingdom, such as `2026-W47`."""
    year, week, _ = moment.astimezone(_UK).isocalendar()
    return f"{year}-W{week:02}"

"""What a run of a job did, in figures: per kind of work and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = ["JobName", "JobOutcome", "JobReport", "Money", "WorkReport"]

JobName = Literal["nightly", "afternoon"]
JobOutcome = Literal["done", "needs_person", "try_later", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What items cost, by the batch price and what was read from and written to caches.

    Attributes:
        cost_usd: What was paid; None where usage is known and no price of it.
        interactive_usd: What the same tokens would have cost outside a batch.
        unpriced: Items with usage of models that have no price; they are in no sum.
        input_tokens: Of the items' last attempts, cache reads and writes included.
        cache_read_tokens: Those of them that were read from a cache.
        simulated: Whether the simulator answered any of it.
    """

    cost_usd: float | None = 0.0
    interactive_usd: float | None = 0.0
    unpriced: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    simulated: bool = False

    @property
    def saved_usd(self) -> float | None:
        if self.cost_usd is None or self.interactive_usd is None:
            return None
        return self.interactive_usd - self.cost_usd

    @property
    def saved_share(self) -> float | None:
        """The saving as a share of the interactive price; None where there is none."""
        saved = self.saved_usd
        return None if saved is None or not self.interactive_usd else saved / self.interactive_usd

    @property
    def cache_read_share(self) -> float | None:
        """Which share of the input was read from a cache; None where nothing was sent."""
        return self.cache_read_tokens / self.input_tokens if self.input_tokens else None

    def plus(self, other: Money) -> Money:
        """Return both together; what is not known of one is left out, and where nothing is known there is no sum."""
        interactive, unpriced = _sum(self.interactive_usd, other.interactive_usd), self.unpriced + other.unpriced
        known = bool(interactive) or not unpriced
        return Money(
            cost_usd=_sum(self.cost_usd, other.cost_usd) if known else None,
            interactive_usd=interactive if known else None,
            unpriced=unpriced,
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            simulated=self.simulated or other.simulated,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "cost_usd": self.cost_usd,
            "interactive_usd": self.interactive_usd,
            "saved_usd": self.saved_usd,
            "saved_share": self.saved_share,
            "unpriced": self.unpriced,
            "input_tokens": self.input_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_read_share": self.cache_read_share,
            "simulated": self.simulated,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkReport:
    """What a run did for one kind of work, and how that stands now.

    Attributes:
        opened: New subjects.
        submitted: Items that left for a provider, those that went again included.
        answered: Items whose result came.
        applied: Items that were carried over into the records, failures included.
        failed: Those of them that have no usable answer.
        waiting: Subjects that go on, by stage.
        ended: Subjects that have ended, by outcome; of all runs.
        needs_person: What only a person can clear up.
        delayed: What waits for a provider that could not be used, and why.
        error: What went wrong inside the work; the others went on.
    """

    name: str
    opened: int = 0
    submitted: int = 0
    answered: int = 0
    applied: int = 0
    failed: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    money: Money = Money()
    needs_person: Sequence[str] = ()
    delayed: Sequence[str] = ()
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "opened": self.opened,
            "submitted": self.submitted,
            "answered": self.answered,
            "applied": self.applied,
            "failed": self.failed,
            "waiting": dict(self.waiting),
            "ended": dict(self.ended),
            "money": self.money.as_json(),
            "needs_person": list(self.needs_person),
            "delayed": list(self.delayed),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a run of a job did.

    Attributes:
        rounds: How often everything was moved on, until nothing moved any more.
        seconds: How long it took.
        works: One report for each kind of work.
    """

    run_id: str
    job: JobName
    started_at: datetime
    seconds: float
    rounds: int
    works: Sequence[WorkReport]

    @property
    def outcome(self) -> JobOutcome:
        """`needs_person` before `try_later`: the one that waiting does not cure."""
        if any(work.needs_person or work.error for work in self.works):
            return "needs_person"
        return "try_later" if any(work.delayed for work in self.works) else "done"

    @property
    def money(self) -> Money:
        total = Money()
        for work in self.works:
            total = total.plus(work.money)
        return total

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do, and nothing waits."""
        done = any(work.opened or work.submitted or work.answered or work.applied for work in self.works)
        return not done and not any(sum(work.waiting.values()) for work in self.works)

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "job": self.job,
            "outcome": self.outcome,
            "started_at": self.started_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "rounds": self.rounds,
            "money": self.money.as_json(),
            "works": [work.as_json() for work in self.works],
        }


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other

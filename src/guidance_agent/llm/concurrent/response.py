"""What comes back from a concurrent batch: results in the order of the requests, and the totals over all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from guidance_agent.llm.batch_request import BatchResult
from guidance_agent.llm.concurrent.config import BatchProgress
from guidance_agent.llm.messages import Usage

__all__ = ["BatchResponse", "Totals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResponse:
    """The results of a concurrent batch.

    Attributes:
        results: In the order of the requests; without the failures where these are skipped.
        total: How many requests there were.
        succeeded: How many have an answer.
        failed: How many were tried and have none, skipped ones included.
        failures: Why, by id, also where the results leave them out.
        usage: Tokens of all calls.
        cost: US dollars of all calls, as far as prices are known.
        unpriced: Results whose cost is not known.
        elapsed: Seconds.
    """

    results: tuple[BatchResult, ...]
    total: int
    succeeded: int
    failed: int
    failures: Mapping[str, str] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    unpriced: int = 0
    elapsed: float = 0.0

    @property
    def unfinished(self) -> int:
        """How many requests were cancelled or never begun, because the batch ended early."""
        return self.total - self.succeeded - self.failed

    def by_id(self) -> dict[str, BatchResult]:
        """Return the results by their ids."""
        return {result.custom_id: result for result in self.results}


class Totals:
    """Counts that grow with each result."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.succeeded = 0
        self.failed = 0
        self.usage = Usage()
        self.cost = 0.0
        self.unpriced = 0
        self._began = time.monotonic()

    def add(self, result: BatchResult) -> None:
        if result.success:
            self.succeeded += 1
        else:
            self.failed += 1
        if result.usage is not None:
            self.usage += result.usage
            if result.cost is None:
                self.unpriced += 1
        self.cost += result.cost or 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def progress(self) -> BatchProgress:
        return BatchProgress(
            total=self.total,
            succeeded=self.succeeded,
            failed=self.failed,
            usage=self.usage,
            cost=self.cost,
            unpriced=self.unpriced,
            elapsed=self.elapsed,
        )

    def response(self, results: tuple[BatchResult, ...], failures: Mapping[str, str]) -> BatchResponse:
        """Return the response with these results."""
        done = self.succeeded + self.failed
        return BatchResponse(
            results=results,
            total=done if self.total is None else self.total,
            succeeded=self.succeeded,
            failed=self.failed,
            failures=failures,
            usage=self.usage,
            cost=self.cost,
            unpriced=self.unpriced,
            elapsed=self.elapsed,
        )

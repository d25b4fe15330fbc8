"""One run's way through all kinds of work: collect, move on, submit, until nothing moves any more.

A kind of work that fails does not keep the others from going on: what went wrong stands in its report.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.batch_work import BatchWork, WorkStanding
from guidance_agent.core.batches.states import TEXT
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.jobs.figures import (
    Figures,
    OpenBatch,
    answered_of,
    figures_of,
    jobs_of,
    open_batches,
    preparing_jobs,
)
from guidance_agent.core.jobs.reports import WorkReport
from guidance_agent.errors import StorageError

__all__ = ["OTHER", "JobProgress", "Rounds"]

T = TypeVar("T")

OTHER = "other"
"""What reports call the jobs that belong to no kind of work."""

_MOST_ROUNDS = 100
_LEAST_PAUSE = 0.02

_logger = logging.getLogger("guidance_agent.batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a run is: of the items that it knows, how many have their results; and what it does or waits for."""

    answered: int
    items: int
    doing: str


class Rounds:
    """The rounds of one run, and what they did.

    Args:
        database: The records.
        clock: Wall clock.
        processor: Knows the kinds of all works.
        works: In the order in which they are moved on.
        progress: Told how far the run is.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        processor: BatchProcessor,
        works: Sequence[BatchWork],
        progress: Callable[[JobProgress], None] | None = None,
    ) -> None:
        self.count = 0
        self._database = database
        self._clock = clock
        self._processor = processor
        self._works = works
        self._progress = progress
        self._work_of = {kind.name: work.name for work in works for kind in work.kinds}
        self._kinds = (*self._work_of, TEXT.name)
        self._done_before: frozenset[str] = frozenset()
        self._before: Mapping[str, Figures] = {}
        self._opened: dict[str, int] = {}
        self._opening_errors: dict[str, str] = {}
        self._errors: dict[str, str] = {}

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of jobs that are looked after."""
        return self._kinds

    async def begin(self) -> None:
        """Take down how things stand, so that the report can say what was added."""
        jobs = await jobs_of(self._database, self._kinds)
        self._done_before = frozenset(job.id for job in jobs if job.done)
        self._before = await self._figures()

    async def open_new(self, *, limit: int) -> None:
        """Have each work note what is new."""
        await self._tell("looking for new work")
        for work in self._works:
            count = await self._guarded(self._opening_errors, work.name, partial(work.open_new, limit=limit))
            self._opened[work.name] = count or 0

    async def settle(self) -> None:
        """Collect, move on and submit, until nothing moves any more."""
        before = None
        for _ in range(_MOST_ROUNDS):
            self.count += 1
            self._errors = {}
            await self._tell("collecting what has ended")
            await self._collect()
            moved = 0
            for work in self._works:
                await self._tell(f"moving on: {work.name}")
                moved += await self._guarded(self._errors, work.name, partial(work.advance, self._processor)) or 0
            after = await self._footprint()
            if not moved and after == before:
                return
            before = after
        _logger.warning("after %d rounds something still moves; the next run goes on", _MOST_ROUNDS)

    async def _collect(self) -> None:
        try:
            await self._processor.resume()
            return
        except StorageError:
            raise
        except Exception as error:
            _logger.warning("batches are worked on job by job: %s: %s", type(error).__name__, error)
        for job in await jobs_of(self._database, self._kinds):
            if not job.done:
                name = self._work_of.get(job.kind, OTHER)
                await self._guarded(self._errors, name, partial(self._processor.resume, job.id))

    async def _guarded(self, errors: dict[str, str], name: str, step: Callable[[], Awaitable[T]]) -> T | None:
        """Do a step of a work; where it fails, note why and return None."""
        try:
            return await step()
        except StorageError:
            # Nothing can be done without the records, by no work.
            raise
        except Exception as error:
            _logger.exception("a step of %s failed", name)
            errors[name] = f"{type(error).__name__}: {error}"
            return None

    async def _footprint(self) -> object:
        """Return what is different after anything has moved."""
        batches = [(batch.id, batch.state) for batch in await self.open_batches()]
        standings = []
        for work in self._works:
            standing = await self._standing(work)
            standings.append((work.name, dict(standing.waiting), dict(standing.ended)))
        return batches, standings

    async def _standing(self, work: BatchWork) -> WorkStanding:
        return await self._guarded(self._errors, work.name, work.standing) or WorkStanding()

    async def open_batches(self) -> Sequence[OpenBatch]:
        """Return the batches that are not applied."""
        return await open_batches(self._database, self._kinds, self._clock.now().timestamp())

    async def pause(self, longest: float) -> float | None:
        """Return for how many seconds there is nothing to do; None where nothing goes on by itself any more."""
        now = self._clock.now().timestamp()
        going = [
            batch
            for batch in await self.open_batches()
            if not batch.needs_person and self._work_of.get(batch.kind, OTHER) not in self._errors
        ]
        if not going and not await preparing_jobs(self._database, self._kinds, now):
            return None
        await self._tell(f"waiting for {len(going)} batches")
        soonest = min((batch.not_before for batch in going if not batch.taken), default=now + longest)
        return max(_LEAST_PAUSE, min(longest, soonest - now))

    async def reports(self) -> Sequence[WorkReport]:
        """Return what was done since `begin`, and how each work stands."""
        figures = await self._figures()
        added = {kind: now.since(self._before.get(kind, Figures())) for kind, now in figures.items()}
        return await self.reports_of(added)

    async def reports_of(self, figures: Mapping[str, Figures]) -> Sequence[WorkReport]:
        """Return a report of each work with these figures by kind."""
        batches = await self.open_batches()
        made = []
        for work in self._works:
            names = [kind.name for kind in work.kinds]
            made.append(self._report(work.name, names, await self._standing(work), figures, batches))
        other = self._report(OTHER, [TEXT.name], WorkStanding(), figures, batches)
        if other != WorkReport(name=OTHER):
            made.append(other)
        return made

    def _report(
        self,
        name: str,
        kinds: Sequence[str],
        standing: WorkStanding,
        figures: Mapping[str, Figures],
        batches: Sequence[OpenBatch],
    ) -> WorkReport:
        sums = Figures()
        for kind in kinds:
            sums = sums.plus(figures.get(kind, Figures()))
        mine = [batch for batch in batches if batch.kind in kinds]
        return WorkReport(
            name=name,
            opened=self._opened.get(name, 0),
            submitted=sums.submitted,
            answered=sums.answered,
            applied=sums.applied,
            failed=sums.failed,
            waiting={stage: count for stage, count in standing.waiting.items() if count},
            ended={outcome: count for outcome, count in standing.ended.items() if count},
            money=sums.money,
            needs_person=(*standing.needs_person, *(batch.told for batch in mine if batch.needs_person)),
            delayed=tuple(batch.told for batch in mine if batch.delayed),
            error=self._opening_errors.get(name) or self._errors.get(name),
        )

    async def _figures(self) -> Mapping[str, Figures]:
        return await figures_of(self._database, await self._added())

    async def _added(self) -> Sequence[str]:
        """Return the jobs that this run may change: all but those that had ended before."""
        jobs = await jobs_of(self._database, self._kinds)
        return [job.id for job in jobs if job.id not in self._done_before]

    async def _tell(self, doing: str) -> None:
        if self._progress is None:
            return
        answered, items = await answered_of(self._database, await self._added())
        self._progress(JobProgress(answered=answered, items=items, doing=doing))

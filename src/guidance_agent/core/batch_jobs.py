"""The jobs that run twice a day: collect what has ended, move everything on, submit what is ready.

    jobs = BatchJobs(database, clock, processor, works)
    report = await jobs.nightly()       # opens new work too
    report = await jobs.afternoon()
    report = await jobs.nightly(wait=True)

A run repeats its round until nothing moves any more. It may be run twice, late, after a crash, and beside another one:
what is due stands in the records, a batch has a lease, and a subject is claimed once. `specs/jobs.md` says what each
run does and what its outcome means.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.batch_work import BatchWork
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.jobs.figures import OpenBatch, figures_of, jobs_of
from guidance_agent.core.jobs.lock import LOCK_SECONDS, JobLock, LockHolder
from guidance_agent.core.jobs.reports import JobName, JobReport, Money, WorkReport
from guidance_agent.core.jobs.rounds import JobProgress, Rounds
from guidance_agent.core.jobs.runs import JobRun, JobRuns
from guidance_agent.errors import JobLockedError, StorageError

__all__ = ["BatchJobs", "JobProgress", "JobReport", "JobsStatus", "Money", "WorkReport"]

_FIGURES_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsStatus:
    """How everything stands, as far as the records know.

    Attributes:
        running: The run that is at work.
        works: Each kind of work, with the figures of its jobs of the last thirty days.
        batches: What is not applied.
        runs: The last runs, the newest first.
    """

    running: LockHolder | None
    works: Sequence[WorkReport]
    batches: Sequence[OpenBatch]
    runs: Sequence[JobRun]

    @property
    def needs_person(self) -> bool:
        return any(work.needs_person or work.error for work in self.works)

    def as_json(self) -> dict[str, Any]:
        running = None if self.running is None else self.running.as_json()
        return {
            "running": running,
            "works": [work.as_json() for work in self.works],
            "batches": [batch.as_json() for batch in self.batches],
            "runs": [run.as_json() for run in self.runs],
        }


class BatchJobs:
    """The nightly and the afternoon job.

    Args:
        database: The records; open.
        clock: Wall clock and ids.
        processor: Knows the kinds of all works.
        works: In the order in which they are moved on.
        limit: How many new subjects a nightly run opens at most, of each work.
        poll: Seconds between two looks of a run that waits, at most.
        lock_seconds: After so long without a sign of life, the lock of a run is free.
        progress: Told how far a run is.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        processor: BatchProcessor,
        works: Sequence[BatchWork],
        *,
        limit: int = 1_000,
        poll: float = 60.0,
        lock_seconds: float = LOCK_SECONDS,
        progress: Callable[[JobProgress], None] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._processor = processor
        self._works = tuple(works)
        self._limit = limit
        self._poll = poll
        self._progress = progress
        self._holder = f"{socket.gethostname()}, process {os.getpid()}"
        self._lock = JobLock(database, clock, holder=self._holder, lease=lock_seconds)
        self._runs = JobRuns(database, clock)

    async def nightly(self, *, wait: bool = False) -> JobReport:
        """Open new work, collect, move on and submit. `wait` goes on until no batch is on its way any more.

        Raises:
            JobLockedError: another run is at work.
            StorageError: the records cannot be used.
        """
        return await self._run("nightly", wait=wait)

    async def afternoon(self, *, wait: bool = False) -> JobReport:
        """Collect, move on and submit. `wait` goes on until no batch is on its way any more.

        Raises:
            JobLockedError: another run is at work.
            StorageError: the records cannot be used.
        """
        return await self._run("afternoon", wait=wait)

    async def status(self, *, runs: int = 5) -> JobsStatus:
        """Return how everything stands; asks no provider, and takes no lock."""
        rounds = self._rounds()
        since = self._clock.now() - timedelta(days=_FIGURES_DAYS)
        known = await jobs_of(self._database, rounds.kinds, created_after=since)
        figures = await figures_of(self._database, [job.id for job in known])
        held = await self._lock.holder()
        return JobsStatus(
            running=held,
            works=await rounds.reports_of(figures),
            batches=await rounds.open_batches(),
            runs=await self._runs.last(limit=runs, running=None if held is None else held.run_id),
        )

    async def last_done(self, job: JobName) -> datetime | None:
        """Return when the last run of a job began that came to its end; None where none did."""
        return await self._runs.last_done(job)

    async def cancel(self) -> Sequence[str]:
        """Ask for every open job to be ended, and return their keys; what is answered already is kept and paid for."""
        keys = [job.id for job in await jobs_of(self._database, self._rounds().kinds) if not job.done]
        for key in keys:
            await self._processor.cancel(key)
        return keys

    async def _run(self, job: JobName, *, wait: bool) -> JobReport:
        run_id, started, began = self._clock.new_id("run"), self._clock.now(), self._clock.monotonic()
        rounds = self._rounds()

        async def told() -> JobReport:
            return JobReport(
                run_id=run_id,
                job=job,
                started_at=started,
                seconds=self._clock.monotonic() - began,
                rounds=rounds.count,
                works=await rounds.reports(),
            )

        begun = False
        try:
            async with self._lock.held(run_id):
                await self._runs.begin(run_id, job, self._holder)
                begun = True
                await rounds.begin()
                if job == "nightly":
                    await rounds.open_new(limit=self._limit)
                await rounds.settle()
            if wait:
                await self._wait(run_id, rounds, told)
            report = await told()
        except asyncio.CancelledError:
            await self._runs.note(run_id, "interrupted", {})
            raise
        except Exception as error:
            if begun:
                # Where the records are what failed, this fails too, and the first failure is the one to tell.
                with contextlib.suppress(StorageError):
                    await self._runs.note(run_id, "failed", {"error": f"{type(error).__name__}: {error}"})
            raise
        await self._runs.note(run_id, report.outcome, report.as_json())
        return report

    async def _wait(self, run_id: str, rounds: Rounds, told: Callable[[], Awaitable[JobReport]]) -> None:
        """Go on with rounds until nothing is on its way any more; between them the lock is free for others."""
        settled = True
        while True:
            pause = await rounds.pause(self._poll)
            if pause is None and settled:
                return
            await self._runs.note(run_id, "waiting", (await told()).as_json())
            await asyncio.sleep(self._poll if pause is None else pause)
            try:
                async with self._lock.held(run_id):
                    await rounds.settle()
                    settled = True
            except JobLockedError:
                # Whoever has it moves everything on; what it leaves when it dies is looked after here.
                settled = False

    def _rounds(self) -> Rounds:
        return Rounds(self._database, self._clock, self._processor, self._works, self._progress)

"""The jobs of batches as a runtime has them: every kind of work, a processor that knows them, and the two jobs.

A worker runs the jobs at their times: each time is a key, `job:nightly:2026-11-21T02:00:00+00:00`, of durable work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, get_args

from guidance_agent.core.batch_jobs import BatchJobs, JobProgress
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.core.batch_work import BatchWork
from guidance_agent.core.durable import Perform, Schedule
from guidance_agent.core.jobs.reports import JobName
from guidance_agent.errors import JobLockedError
from guidance_agent.settings import Settings

if TYPE_CHECKING:
    from guidance_agent.runtime import Runtime

__all__ = ["JOB_OPTIONS", "batch_processor", "batch_works", "open_batch_jobs", "performing_jobs", "schedules_of"]

JOB_OPTIONS = replace(BatchOptions(), poll=60.0)
"""A batch takes hours: it is looked at once in a minute at most."""

_JOB = "job:"
_LOCKED_SECONDS = 15.0

_logger = logging.getLogger("guidance_agent.background")


def batch_works(runtime: Runtime) -> Sequence[BatchWork]:
    """Return every kind of work that goes through batches, in the order in which it is moved on."""
    return (runtime.reflection_rounds(), runtime.audit_rounds(), runtime.consolidation(), runtime.insight_rounds())


def batch_processor(
    runtime: Runtime, works: Sequence[BatchWork], *, options: BatchOptions = JOB_OPTIONS
) -> BatchProcessor:
    """Return a processor that knows the kinds of these works; it has to be closed."""
    return BatchProcessor(
        runtime.database,
        runtime.gateway,
        kinds=[kind for work in works for kind in work.kinds],
        options=options,
        clock=runtime.clock,
        tracing=runtime.tracing,
    )


@contextlib.asynccontextmanager
async def open_batch_jobs(
    runtime: Runtime,
    *,
    limit: int | None = None,
    options: BatchOptions = JOB_OPTIONS,
    progress: Callable[[JobProgress], None] | None = None,
) -> AsyncIterator[BatchJobs]:
    """Open the nightly and the afternoon job of a runtime.

    Args:
        runtime: An open one.
        limit: New subjects of each work in a nightly run; None is what the settings say.
        options: How batches are worked on.
        progress: Told how far a run is.
    """
    works = batch_works(runtime)
    async with batch_processor(runtime, works, options=options) as processor:
        yield BatchJobs(
            runtime.database,
            runtime.clock,
            processor,
            works,
            limit=runtime.settings.jobs.limit if limit is None else limit,
            poll=options.poll,
            lock_seconds=options.lease,
            progress=progress,
        )


def schedules_of(settings: Settings) -> Sequence[Schedule]:
    """Return when a worker runs which job; empty where it runs none."""
    jobs = settings.jobs
    if not jobs.schedule:
        return ()
    times = {"nightly": jobs.nightly, "afternoon": jobs.afternoon}
    return [Schedule(f"{_JOB}{name}", times[name], jobs.time_zone) for name in get_args(JobName)]


def performing_jobs(runtime: Runtime, perform: Perform) -> Perform:
    """Return what does the work of jobs' keys itself, and leaves that of others to `perform`."""

    async def work(key: str) -> None:
        if not key.startswith(_JOB):
            await perform(key)
            return
        name, _, at = key.removeprefix(_JOB).partition(":")
        job = next((each for each in get_args(JobName) if each == name), None)
        if job is None:
            # Left by a version that had such a job: no version without it can run it.
            _logger.error("there is no %r job: %r is counted as done and nothing was run", name, key)
            return
        await _run_at(runtime, job, datetime.fromisoformat(at))

    return work


async def _run_at(runtime: Runtime, job: JobName, at: datetime) -> None:
    """Run a job whose time has come, unless a run of it has ended since then."""
    async with open_batch_jobs(runtime) as jobs:
        while (last := await jobs.last_done(job)) is None or last < at:
            try:
                report = await (jobs.nightly() if job == "nightly" else jobs.afternoon())
            except JobLockedError as error:
                _logger.info("the %s job waits: %s", job, error)
                await asyncio.sleep(_LOCKED_SECONDS)
            else:
                _logger.info("the %s job has run: %s", job, report.outcome)
                return

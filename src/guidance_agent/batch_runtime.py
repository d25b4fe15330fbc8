"""The jobs of batches as a runtime has them: every kind of work, a processor that knows them, and the two jobs.

async with Runtime(settings) as runtime, open_batch_jobs(runtime) as jobs:
    report = await jobs.nightly()
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from guidance_agent.core.batch_jobs import BatchJobs, JobProgress
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.core.batch_work import BatchWork

if TYPE_CHECKING:
    from guidance_agent.runtime import Runtime

__all__ = ["JOB_OPTIONS", "batch_processor", "batch_works", "open_batch_jobs"]

JOB_OPTIONS = replace(BatchOptions(), poll=60.0)
"""A batch takes hours: it is looked at once in a minute at most."""


def batch_works(runtime: Runtime) -> Sequence[BatchWork]:
    """Return every kind of work that goes through batches, in the order in which it is moved on."""
    return (runtime.reflection_rounds(), runtime.audit_rounds())


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

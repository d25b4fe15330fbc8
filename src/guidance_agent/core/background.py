"""Work that waits for nobody: jobs that run at intervals, or as soon as somebody says that there is something to do.

What is to be done stands in the records (a state, a missing value), never only in a queue of this process: a job that
finds nothing does nothing, and one that dies is done by the next process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence, Sized
from dataclasses import dataclass

from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.tracer import NEW_TRACE, NO_TRACING, Tracing

__all__ = ["BackgroundJob", "BackgroundWorker"]

_logger = logging.getLogger("guidance_agent.background")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundJob:
    """A job: `run` does what is due and returns. `interval` is in seconds, counted from its end.

    `at_start` runs it as soon as the worker is entered; `wakes` is whether `BackgroundWorker.wake` reaches it.
    """

    name: str
    interval: float
    run: Callable[[], Awaitable[object]]
    at_start: bool = False
    wakes: bool = True


class BackgroundWorker:
    """Runs jobs while it is entered; an async context manager that owns their tasks.

    A job that raises is logged and tried again after its interval. Leaving cancels what runs. A run that did something
    has a span of its own: one that asked a model, that returned a number other than 0, or that failed.
    """

    def __init__(self, jobs: Sequence[BackgroundJob], tracing: Tracing = NO_TRACING) -> None:
        self._tracing = tracing
        self._jobs = tuple(jobs)
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> BackgroundWorker:
        for job in self._jobs:
            wake = asyncio.Event()
            if job.wakes:
                self._wakes[job.name] = wake
            self._tasks.add(asyncio.create_task(self._repeat(job, wake), name=f"background {job.name}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def wake(self, name: str | None = None) -> None:
        """Have the job of this name look now; None is every job that wakes."""
        for of_job, wake in self._wakes.items():
            if name in (None, of_job):
                wake.set()

    async def _repeat(self, job: BackgroundJob, wake: asyncio.Event) -> None:
        if job.at_start:
            wake.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(job.interval):
                    await wake.wait()
            wake.clear()
            try:
                await self._traced(job)
            except Exception as error:
                _logger.warning("background job failed: job=%s error=%s: %s", job.name, type(error).__name__, error)

    async def _traced(self, job: BackgroundJob) -> None:
        span = self._tracing.span(f"job.{job.name}", "CHAIN", parent=NEW_TRACE, attributes={names.JOB_NAME: job.name})
        try:
            with self._tracing.current(span):
                done = await job.run()
        except Exception as error:
            span.fail(error)
            span.end(outcome="failed")
            raise
        count = len(done) if isinstance(done, Sized) else done if isinstance(done, int) else None
        if count or span.parented:
            span.set({names.JOB_DONE: count})
            span.end(outcome="completed")

"""The results of a concurrent batch as they come: an async iterator that owns what runs.

Leaving `async with`, `aclose`, a cancelled reader and the garbage collector all cancel what still runs. The workers do
not know the stream: what the caller drops is collected at once.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeAlias

from guidance_agent.errors import BatchFailedError
from guidance_agent.llm.batch_request import BatchResult
from guidance_agent.llm.concurrent.config import BatchConfig, BatchErrorStrategy, BatchProgress, ResultOrder
from guidance_agent.llm.concurrent.item import GivenRequest, ItemRunner, Tried
from guidance_agent.llm.concurrent.progress import ProgressBar
from guidance_agent.llm.concurrent.response import BatchResponse, Totals
from guidance_agent.llm.concurrent.workers import Done, Workers
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.span import NO_SPAN, Outcome, Span

__all__ = ["BatchStream", "GivenRequests"]

GivenRequests: TypeAlias = "Iterable[GivenRequest] | AsyncIterable[GivenRequest]"


class BatchStream:
    """Yields results; `async with` it, or read it to its end.

    Args:
        requests: What to ask, read as places become free.
        opened: What opens the runner of requests, and closes it after the last.
        config: How the batch runs.
        order: Whether results come in the order of the requests or as they are finished.
        total: How many requests there are, where that is known.
        keeps: Whether results that were handed out are kept for `response`; their number is then not bounded.
    """

    def __init__(
        self,
        requests: GivenRequests,
        opened: AbstractAsyncContextManager[ItemRunner],
        *,
        config: BatchConfig,
        order: ResultOrder,
        total: int | None,
        keeps: bool = False,
    ) -> None:
        self._requests = requests
        self._opened = opened
        self._config = config
        self._order: ResultOrder = order
        self._totals = Totals(total)
        self._kept: list[tuple[int, BatchResult]] = []
        self._keeps = keeps
        self._failures: dict[str, str] = {}
        self._bar: ProgressBar | None = ProgressBar() if config.show_progress else None
        self._workers: Workers[GivenRequest, Tried] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._span: Span = NO_SPAN
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        """Return the next result.

        Raises:
            BatchFailedError: a request failed, and the strategy is to fail fast.
        """
        while not self._over:
            try:
                workers = self._workers or await self._begin()
                done = await workers.next()
                if done is None and workers.stopped_by is not None:
                    raise self._failed(workers, workers.stopped_by)
                if done is not None:
                    self._note(done)
            except BaseException:
                await self.aclose()
                raise
            if done is None:
                await self.aclose()
            elif done.result.error is None or self._config.error_strategy is not BatchErrorStrategy.SKIP:
                return done.result.result
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what still runs. May be called at any time and more than once."""
        self._over = True
        workers, self._workers = self._workers, None
        if workers is None:
            return
        if self._finalizer is not None:
            self._finalizer.detach()
        await _close(workers, self._opened, self._bar, self._span, self._totals)

    @property
    def progress(self) -> BatchProgress:
        """How far the batch is; failures that are skipped are counted."""
        return self._totals.progress()

    def response(self) -> BatchResponse:
        """Return the results that were handed out and kept, in the order of the requests, with the totals over all."""
        results = tuple(result for _, result in sorted(self._kept, key=lambda pair: pair[0]))
        return self._totals.response(results, dict(self._failures))

    async def _begin(self) -> Workers[GivenRequest, Tried]:
        runner = await self._opened.__aenter__()
        fails_fast = self._config.error_strategy is BatchErrorStrategy.FAIL_FAST
        self._workers = Workers(
            self._requests,
            runner.run,
            width=self._config.width,
            ordered=self._order == "input",
            stops=_failed if fails_fast else lambda _: False,
        )
        self._span = runner.tracing.span("batch.concurrent", "CHAIN")
        with runner.tracing.current(self._span):
            # The tasks of the workers inherit the span, so that calls of models stand below it.
            self._workers.begin()
        self._finalizer = weakref.finalize(
            self,
            _abandon,
            asyncio.get_running_loop(),
            self._workers,
            self._opened,
            self._bar,
            self._span,
            self._totals,
        )
        self._finalizer.atexit = False
        return self._workers

    def _note(self, done: Done[Tried]) -> None:
        result, error = done.result
        self._totals.add(result)
        if error is not None and self._keeps:
            self._failures[result.custom_id] = result.error or ""
        if self._keeps and (error is None or self._config.error_strategy is not BatchErrorStrategy.SKIP):
            self._kept.append((done.place, result))
        if self._bar is not None:
            self._bar.update(self._totals.progress())
        if self._config.on_progress is not None:
            self._config.on_progress(self._totals.progress())

    def _failed(self, workers: Workers[GivenRequest, Tried], by: Done[Tried]) -> BatchFailedError:
        """Return the error that ends the batch; what is done and was not read yet is kept on it."""
        self._keeps = True
        for done in workers.waiting():
            self._note(done)
        response = self.response()
        failed = BatchFailedError(
            f"The request {by.result.result.custom_id!r} failed, and the rest was cancelled: {by.result.result.error} "
            f"{response.succeeded} answers are on the error's `response`.",
            response=response,
        )
        failed.__cause__ = by.result.error
        return failed


def _failed(tried: Tried) -> bool:
    return tried.error is not None


async def _close(
    workers: Workers[Any, Any],
    opened: AbstractAsyncContextManager[ItemRunner],
    bar: ProgressBar | None,
    span: Span,
    totals: Totals,
) -> None:
    ended: Outcome = "completed" if workers.has_ended else "closed_early"
    try:
        await workers.aclose()
    finally:
        span.set(
            {
                names.BATCH_ITEMS: totals.total,
                names.BATCH_OUTCOMES: [f"{totals.succeeded} succeeded", f"{totals.failed} failed"],
                names.COST_USD: totals.cost,
            }
        )
        span.end(outcome="failed" if workers.stopped_by is not None else ended)
        if bar is not None:
            bar.stop()
        await opened.__aexit__(None, None, None)


# Closings of streams that nobody holds any more; a task that nobody holds might be collected, too.
_closings: set[asyncio.Task[None]] = set()


def _abandon(loop: asyncio.AbstractEventLoop, *parts: Any) -> None:
    # The collector runs on any thread and in the middle of anything; only the loop may touch its tasks.
    def close() -> None:
        task = loop.create_task(_close(*parts))
        _closings.add(task)
        task.add_done_callback(_closings.discard)

    if not loop.is_closed():
        loop.call_soon_threadsafe(close)

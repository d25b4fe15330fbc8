"""A processor of batches for code without an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from guidance_agent.core.batches.preparing import Requests
from guidance_agent.core.batches.states import TEXT, BatchHandle, BatchStatus
from guidance_agent.core.loop_thread import LoopThread
from guidance_agent.llm.batch_request import BatchResult

if TYPE_CHECKING:
    from guidance_agent.core.batch_processing import BatchProcessor

__all__ = ["SyncBatchProcessor"]


class SyncBatchProcessor:
    """A processor for code without an event loop; `with processor.sync as batches: ...`.

    The gateway and the database behind it are used on the loop of the block, and on no other meanwhile.
    """

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        self._thread = LoopThread()
        self._thread.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.call(self._processor.release())
            thread.__exit__(kind, error, trace)

    def submit(
        self,
        requests: Requests,
        *,
        job_key: str | None = None,
        kind: str = TEXT.name,
        model: str | None = None,
        deadline: datetime | None = None,
        online_after_deadline: bool = False,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> BatchHandle:
        """Do what `BatchProcessor.submit` does."""
        return self._loop.call(
            self._processor.submit(
                requests,
                job_key=job_key,
                kind=kind,
                model=model,
                deadline=deadline,
                online_after_deadline=online_after_deadline,
                metadata=metadata,
                traceparent=traceparent,
            )
        )

    def resume(self, job_key: str | None = None) -> None:
        """Do what `BatchProcessor.resume` does."""
        self._loop.call(self._processor.resume(job_key))

    def status(self, job_key: str) -> BatchStatus:
        """Do what `BatchProcessor.status` does."""
        return self._loop.call(self._processor.status(job_key))

    def list(self, *, limit: int = 100) -> Sequence[BatchStatus]:
        """Do what `BatchProcessor.list` does."""
        return self._loop.call(self._processor.list(limit=limit))

    def wait(self, job_key: str, *, timeout: float | None = None) -> BatchStatus:
        """Do what `BatchProcessor.wait` does."""
        return self._loop.call(self._processor.wait(job_key, timeout=timeout))

    def resubmit(self, job_key: str, *, deadline: datetime | None = None) -> int:
        """Do what `BatchProcessor.resubmit` does."""
        return self._loop.call(self._processor.resubmit(job_key, deadline=deadline))

    def cancel(self, job_key: str) -> BatchStatus:
        """Do what `BatchProcessor.cancel` does."""
        return self._loop.call(self._processor.cancel(job_key))

    def results(self, job_key: str) -> Iterator[BatchResult]:
        """Do what `BatchProcessor.results` does."""
        results = self._processor.results(job_key)
        while (result := self._loop.call(_next(results))) is not None:
            yield result

    @property
    def _loop(self) -> LoopThread:
        if self._thread is None:
            raise RuntimeError("The processor is not open. Use it inside `with processor.sync as batches:`.")
        return self._thread


async def _next(results: AsyncIterator[BatchResult]) -> BatchResult | None:
    return await anext(results, None)

"""An async stream read from code that has no event loop.

The loop runs in a thread of its own for as long as the stream is read. What the stream needs to live (an advisor, a
gateway) is opened and closed on the same loop, because connections belong to the loop that made them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["LoopThread", "iterate_in_thread"]

T = TypeVar("T")

_END: Any = object()


def iterate_in_thread(
    owner: AbstractAsyncContextManager[Any], open_stream: Callable[[], AsyncIterable[T]]
) -> Iterator[T]:
    """Yield what the stream yields, running it and its owner on an event loop in a thread of their own.

    A piece is asked of the stream when it is asked for here, and not before: what the stream has handed out is what the
    caller has received. Errors of the stream are raised here. Leaving the iterator early closes the stream and its
    owner before returning.
    """
    with LoopThread() as loop:
        loop.call(owner.__aenter__())
        try:
            stream = open_stream()
            items = aiter(stream)
            try:
                while (item := loop.call(_next(items))) is not _END:
                    yield item
            finally:
                loop.call(_close(stream, items, loop))
        finally:
            loop.call(_leave(owner))


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items, _END)


async def _close(stream: AsyncIterable[Any], items: AsyncIterator[Any], loop: LoopThread) -> None:
    # An interrupt may have come while a piece was awaited: that call is cancelled and ends first.
    await loop.others_end()
    for part in (items,) if items is stream else (items, stream):
        close = getattr(part, "aclose", None)
        if close is not None:
            await close()


async def _leave(owner: AbstractAsyncContextManager[Any]) -> None:
    await owner.__aexit__(None, None, None)


class LoopThread:
    """An event loop that runs in a thread while the block is entered."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._main, name="guidance-agent-sync", daemon=True)

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return its result; an interrupt of the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(self._noted(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def others_end(self) -> None:
        """Wait until no other call runs."""
        others = self._calls - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    async def _noted(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._calls.add(task)
        try:
            return await work
        finally:
            self._calls.discard(task)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

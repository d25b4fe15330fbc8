"""A fixed number of workers over a source of any length: as many tasks and as much memory for a million as for ten.

Each worker takes a place, pulls the next item, works on it and hands over what came of it. A place is given back when
the reader has taken the result, so a slow reader slows the workers, and results that wait for an earlier one are
bounded too. The source is pulled by one worker at a time, and read no further than there are places.

The tasks belong to this object; `aclose` cancels them and waits for their end.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Done", "Workers"]

T = TypeVar("T")
R = TypeVar("R")

_PLACES_PER_WORKER = 4


class Done(NamedTuple, Generic[R]):
    """What came of the item at a place in the source."""

    place: int
    result: R


class Workers(Generic[T, R]):
    """Works on all items of a source, a fixed number at a time.

    Args:
        source: The items, read as they are needed.
        work: Makes a result of an item and its place; what it raises ends everything.
        width: How many items are worked on at once.
        ordered: Whether results are handed out in the order of the source; otherwise as they are finished.
        stops: Whether nothing more is to be worked on after a result: the rest is cancelled at once.
    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterable[T],
        work: Callable[[int, T], Awaitable[R]],
        *,
        width: int,
        ordered: bool,
        stops: Callable[[R], bool] = lambda _: False,
    ) -> None:
        self.stopped_by: Done[R] | None = None
        self._source = source
        self._work = work
        self._width = width
        self._ordered = ordered
        self._stops = stops
        self._items: Iterator[T] | AsyncIterator[T] | None = None
        self._places = asyncio.Semaphore(width * _PLACES_PER_WORKER)
        # Holds the source: no iterator can be asked for its next item twice at a time.
        self._pulling = asyncio.Lock()
        self._pulled = 0
        self._handed = 0
        self._exhausted = False
        self._cancelled = False
        self._ready: deque[Done[R]] = deque()
        self._early: dict[int, Done[R]] = {}
        self._error: BaseException | None = None
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = False
        self._context = contextvars.copy_context()

    async def next(self) -> Done[R] | None:
        """Return the next result, waiting for it; None after the last.

        Raises:
            Exception: what the source or the work raised, once the results before it were handed out.
        """
        self.begin()
        while True:
            if self.stopped_by is not None:
                return None
            if self._ready:
                self._handed += 1
                self._places.release()
                return self._ready.popleft()
            if not self._tasks:
                if self._error is not None:
                    raise self._error
                return None
            self._wake.clear()
            await self._wake.wait()

    @property
    def has_ended(self) -> bool:
        """Whether all of the source was worked on."""
        return self._begun and not self._tasks and self._error is None and self.stopped_by is None

    def waiting(self) -> list[Done[R]]:
        """Return the results that are there and were not handed out, in the order of the source."""
        return sorted([*self._ready, *self._early.values()], key=lambda done: done.place)

    def cancel(self) -> None:
        """Cancel what runs; nothing more is begun."""
        self._exhausted = True
        self._cancelled = True
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Cancel what runs, and return when it has ended."""
        self.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()

    def begin(self) -> None:
        """Begin to work, if that has not begun; the tasks have the context of whoever calls it."""
        if self._begun:
            return
        self._begun = True
        self._context = contextvars.copy_context()
        self._add_worker()

    def _add_worker(self) -> None:
        task = asyncio.create_task(self._run(), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # Cancelled from within its work: what it worked on has no result, and that must not look like an end.
            if not self._cancelled:
                self._error = self._error or asyncio.CancelledError()
                self.cancel()
        elif (error := task.exception()) is not None:
            self._error = self._error or error
            self.cancel()
        self._wake.set()

    async def _run(self) -> None:
        while not self._exhausted:
            await self._places.acquire()
            async with self._pulling:
                found = await self._pull()
            if found is None:
                self._places.release()
                return
            # One after the other, as there are items: a width of a billion needs no billion tasks.
            if len(self._tasks) < self._width and not self._exhausted:
                self._add_worker()
            self._finished(Done(found.place, await self._work(found.place, found.result)))

    async def _pull(self) -> Done[T] | None:
        """Return the next item with its place; None after the last."""
        if self._exhausted:
            return None
        try:
            if self._items is None:
                self._items = aiter(self._source) if isinstance(self._source, AsyncIterable) else iter(self._source)
            item = await anext(self._items) if isinstance(self._items, AsyncIterator) else next(self._items)
        except (StopIteration, StopAsyncIteration):
            self._exhausted = True
            return None
        except Exception as error:
            # What was pulled before is still worked on; then whoever reads gets the error.
            self._exhausted = True
            self._error = error
            return None
        self._pulled += 1
        return Done(self._pulled - 1, item)

    def _finished(self, done: Done[R]) -> None:
        if self.stopped_by is not None:
            return
        if self._ordered:
            self._early[done.place] = done
            while (following := self._early.pop(self._handed + len(self._ready), None)) is not None:
                self._ready.append(following)
        else:
            self._ready.append(done)
        if self._stops(done.result):
            self.stopped_by = done
            self.cancel()
        self._wake.set()

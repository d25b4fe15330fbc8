"""A stream that tells what passes through it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Generic, Self, TypeVar

from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.llm.streaming.progress import Progress, ProgressMeter
from guidance_agent.llm.streaming.sources import AnyStream, StreamBase, StreamItem, close_stream

__all__ = ["ObservedStream", "with_callbacks"]

T = TypeVar("T", bound=StreamItem)


class ObservedStream(StreamBase, Generic[T]):
    """The items of another stream, unchanged. Leaving it early, in whatever way, closes that stream."""

    def __init__(self, source: AnyStream, items: AsyncGenerator[T, None]) -> None:
        super().__init__(source)
        self._items = items

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._items.__anext__()

    async def aclose(self) -> None:
        await close_stream(self._items)
        await super().aclose()


def with_callbacks(
    stream: AsyncIterable[T],
    *,
    on_chunk: Callable[[T], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    interval: float = 0.1,
    clock: Clock | None = None,
) -> ObservedStream[T]:
    """Return `stream` with functions that are called as it is read; they may be async, and are then awaited.

    A function that raises closes the stream, and its error is what the reader gets.

    Args:
        stream: Text, a model's deltas or a turn's events.
        on_chunk: Gets each item before the reader does.
        on_progress: Gets the progress at the first content, then at most every `interval`, and once at the end, with
            the provider's own count of the tokens if there is one. Not called when the stream fails or is left.
        interval: Seconds between two calls of `on_progress`; 0 calls it for every item.
        clock: Where the times come from.
    """
    return ObservedStream(stream, _observed(stream, on_chunk, on_progress, interval, clock or SystemClock()))


async def _observed(
    stream: AsyncIterable[T],
    on_chunk: Callable[[T], object] | None,
    on_progress: Callable[[Progress], object] | None,
    interval: float,
    clock: Clock,
) -> AsyncGenerator[T, None]:
    meter = ProgressMeter(clock.monotonic())
    due = float("-inf")
    try:
        async for item in stream:
            if on_chunk is not None:
                await _told(on_chunk(item))
            if on_progress is not None:
                now = clock.monotonic()
                meter.add(item, now)
                if meter.has_begun and now >= due:
                    due = now + interval
                    await _told(on_progress(meter.progress(now)))
            yield item
        if on_progress is not None:
            await _told(on_progress(meter.finished(stream, clock.monotonic())))
    finally:
        await close_stream(stream)


async def _told(result: object) -> None:
    if inspect.isawaitable(result):
        await result

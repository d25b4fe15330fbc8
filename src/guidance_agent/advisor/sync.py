"""An async stream read from a thread that has no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

__all__ = ["iterate_in_thread"]

_Item: TypeAlias = tuple[str | None, BaseException | None]

_AHEAD = 64
"""Pieces that may wait for the reader before the stream is no longer asked."""


def iterate_in_thread(
    owner: AbstractAsyncContextManager[Any], open_stream: Callable[[], AsyncGenerator[str, None]]
) -> Iterator[str]:
    """Yield what the stream yields, running it and its owner on an event loop in a thread of their own.

    Errors of the stream are raised here. Leaving the iterator early closes the stream and its owner before returning.
    """
    items: queue.Queue[_Item] = queue.Queue()
    room = threading.Semaphore(_AHEAD)
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
    started = threading.Event()

    async def run() -> None:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        started.set()
        async with owner, contextlib.aclosing(open_stream()) as stream:
            async for text in stream:
                items.put((text, None))
                if not room.acquire(blocking=False):
                    await asyncio.to_thread(room.acquire)

    def main() -> None:
        try:
            asyncio.run(run())
            items.put((None, None))
        except asyncio.CancelledError:
            items.put((None, None))
        except BaseException as error:
            items.put((None, error))
        finally:
            started.set()

    thread = threading.Thread(target=main, name="guidance-agent-sync", daemon=True)
    thread.start()
    try:
        while True:
            text, error = items.get()
            room.release()
            if error is not None:
                raise error
            if text is None:
                return
            yield text
    finally:
        started.wait()
        for loop, task in running:
            # The loop may have closed by itself between the last item and now.
            with contextlib.suppress(RuntimeError):
                if task is not None:
                    loop.call_soon_threadsafe(task.cancel)
        room.release(_AHEAD)
        thread.join()

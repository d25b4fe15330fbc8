"""A stream read by a task of its own, so that waiting for it can be given up without disturbing it.

An item is read when one is asked for, never ahead. All of the stream runs in the one task, because time-outs and trace
contexts inside it belong to the task that entered them.
"""

from __future__ import annotations

import asyncio
import inspect

from guidance_agent.llm.streaming.sources import AnyStream, StreamItem, close_stream

__all__ = ["Pump"]


class Pump:
    """Reads `source` item by item. Whoever makes one calls `aclose`, which ends the task and closes the source.

    Attributes:
        ended: Whether the stream has ended, for better or worse, and everything of it was returned.
    """

    def __init__(self, source: AnyStream) -> None:
        self.ended = False
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._reading = False
        self._asked = asyncio.Event()
        self._arrived = asyncio.Event()
        self._item: StreamItem | None = None
        self._error: BaseException | None = None

    async def next(self, timeout: float | None) -> StreamItem | None:
        """Return the next item; None when the stream has ended, or `timeout` seconds have passed.

        An item that did not come in time is returned by a later call. Raises what the stream ends with.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read(), name="stream-pump")
        if not self._reading:
            self._reading = True
            self._asked.set()
        if timeout is None:
            await self._arrived.wait()
        elif not self._arrived.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        if self._item is None:
            self.ended = True
            if self._error is not None:
                raise self._error
            return None
        item, self._item = self._item, None
        self._reading = False
        self._arrived.clear()
        return item

    def unread(self) -> StreamItem | None:
        """Return, once, the item that arrived and that nobody waited for any more."""
        item, self._item = self._item, None
        return item

    async def aclose(self) -> None:
        """End the task and close the source; what arrived until then is `unread`."""
        try:
            if not inspect.isasyncgen(self._source):
                # Closed before its reader is cancelled: a stream that keeps a record was left, not cancelled.
                await close_stream(self._source)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
        await close_stream(self._source)

    async def _read(self) -> None:
        try:
            items = aiter(self._source)
            while True:
                await self._asked.wait()
                self._asked.clear()
                self._item = await anext(items)
                self._arrived.set()
        except StopAsyncIteration:
            pass
        except Exception as error:  # it is raised where the next item is waited for
            self._error = error
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._arrived.set()

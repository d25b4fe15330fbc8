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
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._reading = False
        self._over = False
        self._item: StreamItem | None = None
        self._error: BaseException | None = None
        # What the reader and the task wait for, each while it waits.
        self._arrival: asyncio.Future[None] | None = None
        self._request: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, due: float | None) -> StreamItem | None:
        """Return the next item; None when the stream has ended, or when the loop's clock has come to `due`.

        An item that did not come in time is returned by a later call. Raises what the stream ends with.
        """
        self._ask()
        if self._item is None and not self._over:
            self._set_timer(due)
            self._arrival = self._loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        if self._item is not None:
            self._reading = False
            return self.unread()
        if self._over:
            self.ended = True
            if self._error is not None:
                raise self._error
        return None

    def unread(self) -> StreamItem | None:
        """Return, once, the item that has arrived and was not returned."""
        item, self._item = self._item, None
        return item

    async def aclose(self) -> None:
        """End the task and close the source; what arrived until then is `unread`."""
        self._set_timer(None)
        try:
            if not inspect.isasyncgen(self._source):
                # Closed before its reader is cancelled: a stream that keeps a record was left, not cancelled.
                await close_stream(self._source)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
        await close_stream(self._source)

    def _ask(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._read(), name="stream-pump")
        if not self._reading:
            self._reading = True
            _wake(self._request)

    def _set_timer(self, due: float | None) -> None:
        if self._timer is not None:
            if self._timer.when() == due and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        _wake(self._arrival)

    async def _read(self) -> None:
        try:
            items = aiter(self._source)
            while True:
                while not self._reading or self._item is not None:
                    self._request = self._loop.create_future()
                    await self._request
                self._item = await anext(items)
                _wake(self._arrival)
        except StopAsyncIteration:
            pass
        except Exception as error:  # it is raised where the next item is waited for
            self._error = error
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._over = True
            _wake(self._arrival)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

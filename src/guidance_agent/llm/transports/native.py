"""An open answer over aiohttp: bytes become deltas, and every ending becomes the right error.

What happens when, for both wire formats:

- Everything that has arrived is parsed in one go; `read` waits only when nothing has.
- The terminal event ends the answer at once. The connection goes back to the pool as soon as the body ends too, for
  which it is given a moment in the background; a body that goes on is closed and not listened to.
- Any other ending closes the socket at once, before the error reaches the caller.
- An answer that is dropped without `aclose` is closed by the garbage collector, on the loop that it belongs to.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import aiohttp

from guidance_agent.errors import ModelError
from guidance_agent.llm.messages import Delta
from guidance_agent.llm.transports.batch import DeltaBatch
from guidance_agent.llm.transports.failures import Origin, malformed
from guidance_agent.llm.transports.http import connection_lost, lower_case, raise_timeout, take_buffered
from guidance_agent.llm.transports.sse import EventTooLong, SseReader, looks_like_events
from guidance_agent.llm.transports.watchdog import Watchdog
from guidance_agent.settings import TimeoutSettings

__all__ = ["NativeStream", "WireReader"]


class WireReader(Protocol):
    """Understands the events of one wire format.

    `read` adds what the events say to `batch`, sets `ended` at the terminal event and raises `ModelError`s; what it
    added before an error stays in the batch. `end_of_body` is told that no more comes, and raises `StreamTruncated`
    unless the answer is complete without the terminal event.
    """

    batch: DeltaBatch
    ended: bool

    def read(self, payloads: Sequence[str]) -> None: ...

    def end_of_body(self) -> None: ...


class NativeStream:
    """One streamed answer of a provider. See `TransportStream` for what it promises."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        origin: Origin,
        reader: WireReader,
        timeouts: TimeoutSettings,
        *,
        first_event: float,
        linger: Callable[[aiohttp.ClientResponse], None],
    ) -> None:
        self.headers: Mapping[str, str] = lower_case(response)
        self.request_id = origin.request_id
        self._response = response
        self._content = response.content
        self._origin = origin
        self._reader = reader
        self._timeouts = timeouts
        self._sse = SseReader()
        self._begun = False
        self._head = b""
        self._failure: ModelError | None = None
        self._over = False
        loop = asyncio.get_running_loop()
        self._linger = linger
        self._watchdog = Watchdog(loop, timeouts, first_event=first_event, abort=response.close)
        self._finalizer = weakref.finalize(self, _close_on_loop, loop, response, self._watchdog)
        self._finalizer.atexit = False

    async def read(self) -> Sequence[Delta] | None:
        """Return what has arrived, at least one delta; None after the end. Errors as in `TransportStream`."""
        while not self._over:
            data = take_buffered(self._content)
            if not data and not self._content.at_eof():
                data = await self._wait()
                if self._over:
                    break
            deltas = self._parsed(data) if data else self._last_deltas()
            if deltas:
                self._watchdog.content_arrived()
                return deltas
        if self._failure is not None:
            raise self._failure
        return None

    async def aclose(self) -> None:
        """Close the socket unless the answer was read to its end. Does not suspend, so that no cancel can stop it."""
        self._over = True
        self._watchdog.stop()
        if self._finalizer.detach() is not None:
            self._response.close()

    async def _wait(self) -> bytes:
        watchdog = self._watchdog
        watchdog.wait_begins()
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # An answer that was closed while it was waited for has ended, not failed.
            if not self._over:
                self._fail(self._why(error))
            return b""
        except asyncio.CancelledError:
            await self.aclose()
            raise
        finally:
            watchdog.wait_ends()

    def _why(self, error: Exception) -> ModelError:
        phase = self._watchdog.expired
        if phase is None:
            return connection_lost(self._origin, error)
        try:
            raise_timeout(self._origin, phase, getattr(self._timeouts, phase), None)
        except ModelError as timeout:
            return timeout

    def _begin(self, data: bytes) -> bytes:
        """Return what there is to parse, once enough has arrived to tell that the body is an event stream.

        One whose content type is missing or wrong is known by how it begins; anything else is a failure.
        """
        self._watchdog.first_arrived()
        self._head += data
        kind = self._response.content_type
        found = kind == "text/event-stream" or looks_like_events(self._head)
        if found is False:
            self._fail(
                malformed(self._origin, f"is {kind!r}, not an event stream, and begins with {self._head[:200]!r}")
            )
        if not found:
            return b""
        self._begun = True
        return self._head

    def _parsed(self, data: bytes) -> list[Delta]:
        if not self._begun:
            data = self._begin(data)
            if not data:
                return []
        reader = self._reader
        try:
            reader.read(self._sse.feed(data))
        except EventTooLong as error:
            self._fail(malformed(self._origin, f"has an endless event ({error})"))
        except ModelError as error:
            self._fail(error)
        if reader.ended:
            self._finish()
        return reader.batch.take(last=self._over)

    def _last_deltas(self) -> list[Delta]:
        try:
            self._reader.read(self._sse.finish())
            if not self._reader.ended:
                self._reader.end_of_body()
            self._finish()
        except ModelError as error:
            self._fail(error)
        return self._reader.batch.take(last=True)

    def _fail(self, error: ModelError) -> None:
        self._failure = error
        self._over = True
        self._watchdog.stop()
        if self._finalizer.detach() is not None:
            self._response.close()

    def _finish(self) -> None:
        self._over = True
        self._watchdog.stop()
        if self._finalizer.detach() is not None and not self._response.closed:
            self._linger(self._response)


def _close_on_loop(loop: asyncio.AbstractEventLoop, response: aiohttp.ClientResponse, watchdog: Watchdog) -> None:
    # The collector runs on any thread and in the middle of anything; only the loop may touch its sockets.
    if not loop.is_closed():
        loop.call_soon_threadsafe(_abandon, response, watchdog)


def _abandon(response: aiohttp.ClientResponse, watchdog: Watchdog) -> None:
    watchdog.stop()
    response.close()

"""A model's answer while it is being read.

Two objects, because of how it may end. The caller holds a `ModelStream`; everything that must outlive it (socket,
figures, the record that is still owed) is in the stream's core. Leaving `async with`, `aclose`, a cancelled task and
the garbage collector all close the core, and only the first of them decides the outcome. The core never refers to the
stream: what the caller drops is collected at once.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from guidance_agent.errors import MidStreamError, ModelError
from guidance_agent.llm.attempts import Door, try_call
from guidance_agent.llm.call_record import CallRecorder
from guidance_agent.llm.messages import Delta, FinishReason, ModelCall, ModelRequest, Timing, Usage
from guidance_agent.llm.reasoning_filter import DeltaFilter
from guidance_agent.llm.transports.base import PreparedCall, Transport, TransportStream
from guidance_agent.tracing.span import Span

if TYPE_CHECKING:
    from guidance_agent.llm.response_cache import CacheableCall

__all__ = ["ModelStream", "StreamCore", "StreamDoor"]


class StreamDoor(Door, Protocol):
    """What a stream needs of the gateway."""

    def own(self, work: Awaitable[object]) -> asyncio.Task[object]:
        """Run `work` as a task that the gateway waits for when it closes."""

    prices_read: bool

    async def prices_ready(self) -> None:
        """Return when prices can be read without blocking."""

    def warm_prices(self) -> None:
        """Begin to read the prices: once an answer has begun, that delays no first token."""

    def opened(self, core: StreamCore) -> None: ...

    def closed(self, core: StreamCore) -> None: ...


class ModelStream:
    """An answer, read in batches with `read` or delta by delta with `async for`.

    Nothing is sent before the first read. Reasoning that a model writes into its text arrives as reasoning.
    """

    def __init__(self, core: StreamCore) -> None:
        self._core = core
        self._pending: deque[Delta] = deque()
        self._finalizer: weakref.finalize[..., ModelStream] | None = None

    async def read(self) -> Sequence[Delta] | None:
        """Return what has arrived, at least one delta, waiting for it if need be; None after the end.

        Raises:
            ModelError: the call failed; before the first token only after retries and fallbacks.
            ConfigurationError: the model cannot be called as things are set up.
        """
        if self._finalizer is None:
            self._finalizer = weakref.finalize(self, _abandon, asyncio.get_running_loop(), self._core)
            self._finalizer.atexit = False
        deltas = await self._core.read()
        if self._core.over:
            self._finalizer.detach()
        return deltas

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while not self._pending:
            deltas = await self.read()
            if deltas is None:
                raise StopAsyncIteration
            self._pending.extend(deltas)
        return self._pending.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pending.clear()
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        await self._core.leave("cancelled" if cancelled else "closed_early")

    async def aclose(self) -> None:
        """Close the socket and settle the record. May be called at any time and more than once."""
        self._pending.clear()
        await self._core.leave("closed_early")

    @property
    def model(self) -> str:
        """The model that answers: the requested one or a fallback."""
        return self._core.recorder.model

    @property
    def simulated(self) -> bool:
        """Whether the provider simulator answers."""
        return self._core.recorder.simulated

    @property
    def request_id(self) -> str | None:
        return self._core.recorder.request_id

    @property
    def usage(self) -> Usage | None:
        """What the provider has reported so far; after the end the usage of the call."""
        return self._core.recorder.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        return self._core.recorder.finish_reason

    @property
    def timing(self) -> Timing:
        call = self._core.recorder.call
        return self._core.recorder.timing if call is None else call.timing

    @property
    def text_length(self) -> int:
        """Characters of text so far."""
        return self._core.recorder.text_length

    @property
    def unclosed_reasoning(self) -> bool:
        """Whether the answer so far ends inside tagged reasoning that was not closed."""
        return self._core.unclosed_reasoning

    @property
    def span(self) -> Span:
        """The span of the call; it has ended when the call's record is there."""
        return self._core.recorder.trace.span

    @property
    def call(self) -> ModelCall | None:
        """The record of the call, once it is over."""
        return self._core.recorder.call


class StreamCore:
    """Everything of a stream but the caller's hold on it."""

    def __init__(
        self, door: StreamDoor, request: ModelRequest, recorder: CallRecorder, cacheable: CacheableCall | None = None
    ) -> None:
        self.recorder = recorder
        self.over = False
        self._door = door
        self._request = request
        self._cacheable = cacheable
        self._stream: TransportStream | None = None
        self._filter = DeltaFilter()
        self._error: BaseException | None = None
        self._started = False
        self._opening: asyncio.Timeout | None = None
        self._settling: asyncio.Task[object] | None = None

    @property
    def unclosed_reasoning(self) -> bool:
        return self._filter.unclosed

    async def read(self) -> Sequence[Delta] | None:
        if self.over:
            return self._nothing_more()
        try:
            if self._stream is None:
                return await self._begin()
            return await self._more(self._stream)
        except asyncio.CancelledError:
            if not self.over:
                # Whoever cancels a single read and goes on must not take the end of the stream for that of the answer.
                self._error = MidStreamError(
                    f"A read was cancelled while {self.recorder.model!r} was answering, which closes the stream. "
                    "Ask again, and put a time limit around the whole stream instead of one read.",
                    model=self.recorder.model,
                    retryable=False,
                )
            self._end("cancelled")
            raise
        except Exception as error:
            self._error = error
            self._end(f"error:{type(error).__name__}", error)
            await self._settled()
            raise

    def _nothing_more(self) -> Sequence[Delta] | None:
        if self._error is not None:
            raise self._error
        return None

    async def leave(self, outcome: str) -> None:
        """End the stream because its reader has had enough: for them it is over."""
        if self._started:
            self._end(outcome)
            await self._settled()
        self.over = True

    async def aclose(self, outcome: str) -> None:
        """End the stream under its reader: what they read next is an error, never the end of the answer."""
        if not self.over:
            self._error = MidStreamError(
                f"The gateway was closed while {self.recorder.model!r} was answering. Close what reads from models "
                "before the gateway.",
                model=self.recorder.model,
                retryable=False,
            )
        await self.leave(outcome)

    def _end(self, outcome: str, error: BaseException | None = None) -> None:
        if not self.over:
            self.over = True
            if self._opening is not None:
                # Another task waits for the answer to begin; nobody wants it any more.
                self._opening.reschedule(0.0)
            self._settling = self._door.own(self._settle(outcome, error))

    async def _settle(self, outcome: str, error: BaseException | None) -> None:
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            await self._door.prices_ready()
            self.recorder.finish(outcome, error)
            self._door.closed(self)

    async def _settled(self) -> None:
        # Shielded: a second cancel must not keep the socket open or lose the record.
        if self._settling is not None:
            await asyncio.shield(self._settling)

    async def _begin(self) -> Sequence[Delta] | None:
        self._started = True
        self._door.opened(self)
        try:
            async with asyncio.timeout(None) as self._opening:
                stream, deltas = await self._opened()
        except TimeoutError:
            if self.over:
                return self._nothing_more()
            raise
        finally:
            self._opening = None
        if self.over:
            await stream.aclose()
            return self._nothing_more()
        self._stream = stream
        self._door.warm_prices()
        if deltas is None:
            await self._finished()
        return deltas

    async def _opened(self) -> tuple[TransportStream, Sequence[Delta] | None]:
        found = None if self._cacheable is None else await self._cacheable.find()
        if found is None:
            return await try_call(self._door, self._request, self.recorder, self._once)
        self.recorder.replayed(found.call)
        return await self._up_to_first(found.answer)

    async def _once(self, call: PreparedCall, transport: Transport) -> tuple[TransportStream, Sequence[Delta] | None]:
        """Open the answer and read up to its first token, so that what fails before it can be tried again."""
        stream = await transport.open(call)
        return await self._up_to_first(stream if self._cacheable is None else self._cacheable.recorded(call, stream))

    async def _up_to_first(self, stream: TransportStream) -> tuple[TransportStream, Sequence[Delta] | None]:
        self.recorder.answered(stream.headers, stream.request_id)
        self._filter = DeltaFilter()
        deltas: list[Delta] = []
        try:
            while True:
                arrived = await stream.read()
                if arrived is None:
                    return stream, deltas or None
                self.recorder.saw(arrived)
                deltas += self._filter.feed(arrived)
                if self.recorder.released(deltas):
                    return stream, deltas
        except BaseException:
            await stream.aclose()
            raise

    async def _more(self, stream: TransportStream) -> Sequence[Delta] | None:
        while True:
            try:
                arrived = await stream.read()
            except ModelError as error:
                rest = self._filter.broken()
                if not rest:
                    raise
                # What the filter held is the customer's; the error follows with the next read.
                self.recorder.released(rest)
                self._stream = _Broken(stream, error)
                return rest
            if arrived is None:
                await self._finished()
                return self._nothing_more()
            self.recorder.saw(arrived)
            deltas = self._filter.feed(arrived)
            if deltas:
                self.recorder.released(deltas)
                return deltas

    async def _finished(self) -> None:
        if self._stream is None or self.over or not self._door.prices_read:
            self._end("completed")
            await self._settled()
            return
        # Nothing is left to wait for, and a task for it would be most of the cost of ending.
        self.over = True
        self.recorder.finish("completed")
        self._door.closed(self)
        await self._stream.aclose()


class _Broken:
    """A stream of which only its error is left."""

    def __init__(self, stream: TransportStream, error: ModelError) -> None:
        self.headers = stream.headers
        self.request_id = stream.request_id
        self._stream = stream
        self._error = error

    async def read(self) -> Sequence[Delta] | None:
        raise self._error

    async def aclose(self) -> None:
        await self._stream.aclose()


def _abandon(loop: asyncio.AbstractEventLoop, core: StreamCore) -> None:
    # The collector runs on any thread and in the middle of anything; only the loop may touch its sockets.
    if loop.is_closed():
        core.recorder.finish("closed_early")
    else:
        loop.call_soon_threadsafe(_close, core)


def _close(core: StreamCore) -> None:
    core._end("closed_early")

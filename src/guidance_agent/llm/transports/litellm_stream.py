"""An open answer through LiteLLM: its chunks become deltas, and every ending becomes the right error.

LiteLLM calls a stream complete whenever its body ends, invents the usage of one that did not report any, and leaves the
socket open when its iterator is closed. So the end, the usage and the errors of an answer in a wire format of ours are
what `litellm_wire` read; of other answers, usage that was not reported is marked estimated. The response below LiteLLM
is closed by us.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from guidance_agent.errors import ModelError
from guidance_agent.llm.messages import Delta, FinishReason, ToolCallDelta, Usage
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batch import DeltaBatch, mend
from guidance_agent.llm.transports.failures import Origin
from guidance_agent.llm.transports.http import connection_lost, raise_timeout
from guidance_agent.llm.transports.litellm_answer import RefusalWatch, WireBody, usage_of
from guidance_agent.llm.transports.litellm_errors import error_in_stream, truncated
from guidance_agent.llm.transports.litellm_wire import StreamWatch
from guidance_agent.llm.transports.openai_reader import openai_finish_reason
from guidance_agent.llm.transports.watchdog import Watchdog
from guidance_agent.settings import TimeoutSettings

__all__ = ["LiteLLMStream"]

_LONGEST_TURN = 0.005


class LiteLLMStream:
    """One streamed answer. See `TransportStream` for what it promises.

    Args:
        wrapper: LiteLLM's `CustomStreamWrapper`.
        origin: The call, for error messages.
        call: The prepared call.
        sdk: Whether the answer comes through the OpenAI SDK.
        body: The tapped response body; None where LiteLLM used a client of its own.
        headers: The response's headers with lower-case names.
        first_event: What is left of the time for the first event, in seconds.
    """

    def __init__(
        self,
        wrapper: Any,
        origin: Origin,
        call: PreparedCall,
        *,
        sdk: bool,
        body: WireBody | None,
        headers: Mapping[str, str],
        first_event: float,
    ) -> None:
        self.headers = headers
        self.request_id = origin.request_id
        self._wrapper = wrapper
        self._watched: RefusalWatch | None = None
        if sdk:
            self._watched = wrapper.completion_stream = RefusalWatch(wrapper.completion_stream)
        # `aclose` of the wrapper forgets its inner stream, and does not close Anthropic's.
        self._inner = getattr(getattr(wrapper, "completion_stream", None), "streaming_response", None)
        self._origin = origin
        self._timeouts = call.timeouts
        self._body = body
        self._watch = None if body is None else body.watch
        self._batch = DeltaBatch()
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None
        self._failure: ModelError | None = None
        self._over = False
        self._closing: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._wait = _Wait(loop, call.timeouts, first_event)
        self._watchdog = self._wait.watchdog
        if body is not None:
            body.on_bytes = self._wait.note_bytes
        self._finalizer = weakref.finalize(self, _close_on_loop, loop, body or self._inner, self._watchdog)
        self._finalizer.atexit = False

    async def read(self) -> Sequence[Delta] | None:
        """Return what has arrived, at least one delta; None after the end. Errors as in `TransportStream`."""
        while not self._over:
            chunk = await self._next()
            if chunk is not None:
                self._add(chunk)
            deltas = self._batch.take(last=self._over)
            if deltas:
                self._watchdog.content_arrived()
                return deltas
        if self._failure is not None:
            raise self._failure
        return None

    async def aclose(self) -> None:
        """Close the socket unless the answer was read to its end. A cancel does not stop the closing."""
        if self._closing is None:
            self._over = True
            self._watchdog.stop()
            self._finalizer.detach()
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # Each may fail because another task still waits in it; the next one is then what closes the socket.
        for part in (self._body, self._wrapper, self._inner):
            await _close_quietly(part)

    async def _next(self) -> Any | None:
        """Return the next chunk, or None when the answer is over, for better or worse."""
        watchdog = self._watchdog
        failure: ModelError | None = None
        try:
            await self._wait.give_way()
            watchdog.wait_begins()
            async with self._wait.scope():
                chunk = await self._wrapper.__anext__()
            self._wait.note_arrival()
            return chunk
        except StopAsyncIteration:
            failure = self._incomplete()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except Exception as error:
            failure = self._why(error)
        finally:
            watchdog.wait_ends()
        if self._over:
            return None
        self._over = True
        self._failure = failure
        if failure is None:
            self._batch.add(self._end())
        await self.aclose()
        return None

    def _why(self, error: Exception) -> ModelError:
        phase = self._watchdog.expired
        if phase is not None:
            try:
                raise_timeout(self._origin, phase, getattr(self._timeouts, phase), None)
            except ModelError as timeout:
                return timeout
        if self._watch is not None and self._watch.failure is not None:
            return self._watch.failure
        if self._body is not None and self._body.broken is not None:
            return connection_lost(self._origin, self._body.broken)
        return error_in_stream(error, self._origin, self._body.tail if self._body is not None else b"")

    def _incomplete(self) -> ModelError | None:
        """Return why the answer is not complete although LiteLLM says so; None when it is."""
        body = self._body
        if self._watch is not None and (self._watch.failure is not None or self._watch.ended):
            return self._watch.failure
        if body is not None and body.broken is not None:
            return connection_lost(self._origin, body.broken)
        if self._watch is not None or not self._said_why(body):
            return truncated(self._origin)
        return None

    def _said_why(self, body: WireBody | None) -> bool:
        if body is not None and body.ended is not None:
            return body.ended
        wrapper = self._wrapper
        return wrapper.received_finish_reason is not None or wrapper.intermittent_finish_reason is not None

    def _add(self, chunk: Any) -> None:
        if self._watch is not None:
            self._note_usage(self._watch)
        elif (usage := getattr(chunk, "usage", None)) is not None:
            self._usage = usage_of(usage)
        for choice in chunk.choices or ():
            delta = choice.delta
            if choice.finish_reason:
                self._finish = openai_finish_reason(choice.finish_reason)
            if delta is None:
                continue
            if (choice.index or 0) == 0:
                self._add_text(delta)
            for call in delta.tool_calls or ():
                function = call.function
                self._batch.add(
                    Delta(
                        tool_call=ToolCallDelta(
                            call.index,
                            id=call.id or None,
                            name=(function.name or None) if function else None,
                            arguments=mend((function.arguments or "") if function else ""),
                        )
                    )
                )

    def _add_text(self, delta: Any) -> None:
        if delta.content:
            self._batch.add_text(delta.content)
        elif reasoning := getattr(delta, "reasoning_content", None):
            self._batch.add_reasoning(reasoning)

    def _note_usage(self, watch: StreamWatch) -> None:
        # What is known before the end counts after an early stop; the final figures come with the end.
        if watch.usage is not None and self._usage is None:
            self._usage = replace(watch.usage, estimated=True)
            self._batch.add(Delta(usage=self._usage, pieces=0))

    def _end(self) -> Delta:
        if self._watch is not None:
            return Delta(finish_reason=self._watch.finish_reason, usage=self._watch.usage, pieces=0)
        refused = self._watched is not None and self._watched.refused
        return Delta(finish_reason="refusal" if refused else self._finish or "other", usage=self._reported(), pieces=0)

    def _reported(self) -> Usage | None:
        reported = any(getattr(chunk, "usage", None) is not None for chunk in self._wrapper.chunks)
        return self._usage if self._usage is None or reported else replace(self._usage, estimated=True)


class _Wait:
    """The wait for the next chunk, which bytes prolong and the watchdog ends.

    It does not know the stream, so that nothing keeps a stream alive that its caller dropped.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: TimeoutSettings, first_event: float) -> None:
        self.watchdog = Watchdog(loop, timeouts, first_event=first_event, abort=self._abort)
        self._scope: asyncio.Timeout | None = None
        self._begun = False
        self._loop = loop
        self._turn_began = loop.time()

    def scope(self) -> asyncio.Timeout:
        self._scope = asyncio.timeout(None)
        return self._scope

    async def give_way(self) -> None:
        """Let other tasks run from time to time: chunks that have all arrived come without a wait between them."""
        if self._loop.time() - self._turn_began > _LONGEST_TURN:
            await asyncio.sleep(0)
            self._turn_began = self._loop.time()

    def note_arrival(self) -> None:
        if not self._begun:
            self._begun = True
            self.watchdog.first_arrived()

    def note_bytes(self) -> None:
        self.watchdog.wait_ends()
        self.note_arrival()
        self.watchdog.wait_begins()

    def _abort(self) -> None:
        if self._scope is not None:
            self._scope.reschedule(0.0)


def _close_on_loop(loop: asyncio.AbstractEventLoop, body: Any, watchdog: Watchdog) -> None:
    # The collector runs on any thread and in the middle of anything; only the loop may touch its sockets.
    if not loop.is_closed():
        loop.call_soon_threadsafe(_abandon, loop, body, watchdog)


# The loop holds tasks weakly; these close answers that nobody owns any more.
_abandoned: set[asyncio.Task[None]] = set()


def _abandon(loop: asyncio.AbstractEventLoop, body: Any, watchdog: Watchdog) -> None:
    watchdog.stop()
    task = loop.create_task(_close_quietly(body))
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)


async def _close_quietly(part: Any) -> None:
    close = getattr(part, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):
            await close()

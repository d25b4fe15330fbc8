"""Whole answers kept for equal requests: what may be kept, how it is found again, and how it is played back.

The rules:

- Only operations that the settings name are looked up and kept; everything else passes as if there were no cache.
- Only a whole answer is kept: `stop` or `tool_calls`, with content, read up to the provider's terminal event. What a
  fallback said is not kept, because the requested model would have said something else.
- An answer of the simulator is kept only where the whole configuration is simulated, and no other answer is kept there.
- Two equal calls at the same time are two calls: to wait for a stranger's answer would delay the first token, and its
  failure would be everybody's. The later one is kept.
- The cache never fails a call and never holds one up for long: an error or a slow store is a miss; the log tells
  the first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from guidance_agent.llm.call_record import SIMULATOR_HEADER
from guidance_agent.llm.messages import Delta, FinishReason, ModelRequest, ToolCall, ToolCallDelta
from guidance_agent.llm.response_key import response_key
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion, TransportStream
from guidance_agent.llm.transports.tool_pieces import ToolCallAssembler

__all__ = ["CacheDoor", "CacheableCall", "FoundAnswer", "ResponseCache", "ResponseStore"]

LONGEST_KEPT = 1_048_576
"""Characters of text and reasoning of an answer that is still kept; a longer one is not worth its memory."""

_LOOK_UP_SECONDS = 0.5
_REPLAYED_AT_ONCE = 4_096
_logger = logging.getLogger("guidance_agent.llm")


class ResponseStore(Protocol):
    """Where answers are kept. `get` never returns what is older than the store's time to live."""

    async def get(self, key: str) -> str | None:
        """Return what was put under `key`; None when there is nothing, or it has expired."""

    async def put(self, key: str, content: str, *, operation: str, model: str, simulated: bool) -> None:
        """Keep `content` under `key`, in the place of what is there."""


class CacheDoor(Protocol):
    """What the cache needs of the gateway."""

    async def routed(self, request: ModelRequest) -> tuple[PreparedCall, str]:
        """Return the prepared call and the name of its transport, without opening that."""

    def own(self, work: Awaitable[object]) -> asyncio.Task[object]:
        """Run `work` as a task that the gateway waits for when it closes."""


class _Run(NamedTuple):
    kind: Literal["text", "reasoning"]
    content: str


class _KeptAnswer(BaseModel):
    """An answer as it is stored: what the transport read, before reasoning in tags was separated."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    finish_reason: Literal["stop", "tool_calls"]
    simulated: bool
    runs: tuple[_Run, ...]
    tool_calls: tuple[ToolCall, ...] = ()


class ResponseCache:
    """The rules above, in front of a store.

    Args:
        store: Where answers are kept.
        operations: Operations whose calls are looked up and kept.
        release: Version of the package, part of every key.
        simulated: Whether every provider of this configuration is the simulator.
    """

    def __init__(self, store: ResponseStore, *, operations: Collection[str], release: str, simulated: bool) -> None:
        self.release = release
        self.simulated = simulated
        self._store = store
        self._operations = frozenset(operations)
        self._writing: dict[str, str] = {}
        self._warned = False

    def call(self, door: CacheDoor, request: ModelRequest) -> CacheableCall | None:
        """Return what the cache does for a call of `request`; None when it is none of its business."""
        return CacheableCall(door, self, request) if request.operation in self._operations else None

    async def find(self, key: str) -> _KeptAnswer | None:
        content = self._writing.get(key)
        try:
            if content is None:
                async with asyncio.timeout(_LOOK_UP_SECONDS):
                    content = await self._store.get(key)
            kept = None if content is None else _KeptAnswer.model_validate_json(content)
        except Exception as error:  # whatever is wrong with a cache, the provider can still be asked
            self._warn("read", error)
            return None
        return kept if kept is None or kept.simulated == self.simulated else None

    def keep(self, door: CacheDoor, key: str, kept: _KeptAnswer, *, operation: str, model: str) -> None:
        """Store the answer in the background; until that is done it is found in memory."""
        try:
            content = kept.model_dump_json()
        except ValueError as error:  # such as half a surrogate pair, which JSON cannot hold
            self._warn("written", error)
            return
        self._writing[key] = content
        door.own(self._write(key, content, operation=operation, model=model, simulated=kept.simulated))

    async def _write(self, key: str, content: str, *, operation: str, model: str, simulated: bool) -> None:
        try:
            await self._store.put(key, content, operation=operation, model=model, simulated=simulated)
        except Exception as error:  # the answer has been delivered; that it was not kept must not fail anybody
            self._warn("written", error)
        finally:
            if self._writing.get(key) is content:
                del self._writing[key]

    def _warn(self, what: str, error: Exception) -> None:
        _logger.log(
            logging.DEBUG if self._warned else logging.WARNING,
            "The response cache cannot be %s (%s: %s). Calls go to the provider as if there were none; this is "
            "told once.",
            what,
            type(error).__name__,
            error,
        )
        self._warned = True


class FoundAnswer(NamedTuple):
    """A kept answer, and the call that would have been sent without it."""

    call: PreparedCall
    kept: _KeptAnswer

    @property
    def answer(self) -> TransportStream:
        """The answer in the form of an open one."""
        return _Replay(self.kept)

    @property
    def whole(self) -> RawCompletion:
        """The answer as if it had come without streaming."""
        content = {"text": "", "reasoning": ""}
        for kind, piece in self.kept.runs:
            content[kind] += piece
        return RawCompletion(
            text=content["text"],
            reasoning=content["reasoning"],
            finish_reason=self.kept.finish_reason,
            usage=None,
            tool_calls=self.kept.tool_calls,
            headers=_headers(self.kept),
        )


class CacheableCall:
    """One call that the cache covers: looked up before it is sent, kept when its answer is whole."""

    def __init__(self, door: CacheDoor, cache: ResponseCache, request: ModelRequest) -> None:
        self._door = door
        self._cache = cache
        self._request = request
        self._key: str | None = None
        self._model = request.model

    async def find(self) -> FoundAnswer | None:
        """Return the kept answer to this call.

        Raises:
            ConfigurationError: the model cannot be called as things are set up.
        """
        call, transport = await self._door.routed(self._request)
        self._model = call.request.model
        try:
            self._key = response_key(
                call, transport=transport, release=self._cache.release, simulated=self._cache.simulated
            )
        except (TypeError, ValueError):
            # The transport will say what is wrong with such a request, in words that fit it.
            return None
        kept = await self._cache.find(self._key)
        return None if kept is None else FoundAnswer(call, kept)

    def recorded(self, call: PreparedCall, stream: TransportStream) -> TransportStream:
        """Return a stream that reads `stream` and keeps the answer once it was read to its end."""
        return stream if self._key is None or call.request.model != self._model else _Recording(self, stream)

    def keep_whole(self, call: PreparedCall, raw: RawCompletion) -> None:
        """Keep an answer that was not streamed, if it is one to keep."""
        if call.request.model == self._model and len(raw.text) + len(raw.reasoning) <= LONGEST_KEPT:
            runs = (_Run("reasoning", raw.reasoning), _Run("text", raw.text))
            self.keep(raw.headers, raw.finish_reason, [run for run in runs if run.content], raw.tool_calls)

    def keep(
        self,
        headers: Mapping[str, str],
        finish_reason: FinishReason | None,
        runs: Sequence[_Run],
        tool_calls: tuple[ToolCall, ...],
    ) -> None:
        simulated = SIMULATOR_HEADER in headers
        if self._key is None or simulated != self._cache.simulated or not (runs or tool_calls):
            return
        if finish_reason == "stop" or finish_reason == "tool_calls":
            kept = _KeptAnswer(
                finish_reason=finish_reason, simulated=simulated, runs=tuple(runs), tool_calls=tool_calls
            )
            self._cache.keep(self._door, self._key, kept, operation=self._request.operation, model=self._model)


class _Recording:
    """An open answer that remembers what was read from it."""

    def __init__(self, call: CacheableCall, stream: TransportStream) -> None:
        self.headers = stream.headers
        self.request_id = stream.request_id
        self._call = call
        self._stream = stream
        self._kind: Literal["text", "reasoning"] = "text"
        self._pieces: list[str] = []
        self._runs: list[_Run] = []
        self._tools = ToolCallAssembler()
        self._finish_reason: FinishReason | None = None
        self._length = 0
        self._over = False

    async def read(self) -> Sequence[Delta] | None:
        deltas = await self._stream.read()
        if deltas is not None:
            if self._length <= LONGEST_KEPT:
                self._note(deltas)
        elif not self._over:
            self._over = True
            self._end_run()
            self._call.keep(self.headers, self._finish_reason, self._runs, self._tools.calls())
        return deltas

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _note(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self._add("reasoning", delta.reasoning)
            self._add("text", delta.text)
            if delta.tool_call is not None:
                self._length += len(delta.tool_call.arguments)
                self._tools.add(delta.tool_call)
            if delta.finish_reason is not None:
                self._finish_reason = delta.finish_reason
        if self._length > LONGEST_KEPT:
            self._pieces, self._runs, self._tools = [], [], ToolCallAssembler()

    def _add(self, kind: Literal["text", "reasoning"], content: str) -> None:
        if not content:
            return
        if kind != self._kind:
            self._end_run()
            self._kind = kind
        self._pieces.append(content)
        self._length += len(content)

    def _end_run(self) -> None:
        if self._pieces:
            self._runs.append(_Run(self._kind, "".join(self._pieces)))
            self._pieces = []


class _Replay:
    """A kept answer in the form of an open one."""

    def __init__(self, kept: _KeptAnswer) -> None:
        self.headers = _headers(kept)
        self.request_id: str | None = None
        self._deltas = deque(_deltas(kept))

    async def read(self) -> Sequence[Delta] | None:
        return (self._deltas.popleft(),) if self._deltas else None

    async def aclose(self) -> None:
        self._deltas.clear()


def _headers(kept: _KeptAnswer) -> Mapping[str, str]:
    return {SIMULATOR_HEADER: "replayed"} if kept.simulated else {}


def _deltas(kept: _KeptAnswer) -> Iterator[Delta]:
    for kind, content in kept.runs:
        for start in range(0, len(content), _REPLAYED_AT_ONCE):
            piece = content[start : start + _REPLAYED_AT_ONCE]
            yield Delta(text=piece) if kind == "text" else Delta(reasoning=piece)
    for index, call in enumerate(kept.tool_calls):
        yield Delta(tool_call=ToolCallDelta(index, call.id, call.name, call.arguments))
    yield Delta(finish_reason=kept.finish_reason, pieces=0)

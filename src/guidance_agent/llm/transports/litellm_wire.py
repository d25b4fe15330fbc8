"""What an answer in a wire format of ours says, read before LiteLLM reads it.

LiteLLM calls an answer complete whenever its body ends, invents usage and finish reasons, waits for the rest of what it
cannot parse, and splits lines where JSON does not end. So the readers of the native transports read such an answer
first: errors, usage, finish reason and completeness are what they say, and LiteLLM gets the events they understood, one
line each, in ASCII, with usage that it can count. The words and tool calls of a stream are LiteLLM's; an answer that is
not streamed is what was read here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

from guidance_agent.errors import ModelError
from guidance_agent.llm.messages import FinishReason, Usage
from guidance_agent.llm.transports.anthropic import anthropic_completion
from guidance_agent.llm.transports.anthropic_reader import AnthropicReader
from guidance_agent.llm.transports.base import RawCompletion, RawEmbeddings
from guidance_agent.llm.transports.batch import count, load_object
from guidance_agent.llm.transports.failures import Origin, malformed
from guidance_agent.llm.transports.native import WireReader
from guidance_agent.llm.transports.openai import openai_completion, openai_embeddings
from guidance_agent.llm.transports.openai_reader import OpenAIReader
from guidance_agent.llm.transports.sse import EventTooLong, SseReader, looks_like_events

__all__ = ["ReadWhole", "StreamWatch", "Whole", "WireName", "read_completion", "read_embeddings", "unpacker"]

WireName = Literal["anthropic", "openai"]
Whole = RawCompletion | RawEmbeddings

_READERS: Mapping[WireName, Callable[[Origin], WireReader]] = {"anthropic": AnthropicReader, "openai": OpenAIReader}
_COMPLETIONS = {"anthropic": anthropic_completion, "openai": openai_completion}
_COUNTS: Mapping[WireName, tuple[str, ...]] = {
    "anthropic": ("input_tokens", "output_tokens"),
    "openai": ("prompt_tokens", "completion_tokens", "total_tokens"),
}
_KNOWN_EVENTS = frozenset(
    {
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_start",
        "message_stop",
    }
)
_KNOWN_DELTAS = frozenset({"text_delta", "thinking_delta", "input_json_delta", "signature_delta"})
_UNPACKED_AT_ONCE = 1 << 20


class StreamWatch:
    """Reads a stream's bytes and writes them anew for LiteLLM.

    Attributes:
        failure: What the answer failed with, once it has.
        ended: Whether the answer is complete.
        usage: What the provider has reported so far.
        finish_reason: Why the answer ended.
    """

    def __init__(self, wire: WireName, origin: Origin, content_type: str) -> None:
        self.failure: ModelError | None = None
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self._wire = wire
        self._origin = origin
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._begun = self._content_type == "text/event-stream"
        self._head = b""
        self._reader = _READERS[wire](origin)
        self._sse = SseReader()

    @property
    def ended(self) -> bool:
        return self._reader.ended

    def feed(self, data: bytes) -> bytes:
        """Return what LiteLLM is to be given of `data`: the events up to a failure or the end."""
        if not self._begun:
            self._head += data
            found = looks_like_events(self._head)
            if found is False:
                what = f"is {self._content_type!r}, not an event stream, and begins with {self._head[:200]!r}"
                self.failure = malformed(self._origin, what)
            if not found:
                return b""
            self._begun, data = True, self._head
        try:
            payloads = self._sse.feed(data)
        except EventTooLong as error:
            self.failure = malformed(self._origin, f"has an endless event ({error})")
            return b""
        return b"".join(self._passed_on(payloads))

    def finish(self) -> bytes:
        """Return what LiteLLM is to be given now that the body has ended; what is missing is then a failure."""
        rest = b"".join(self._passed_on(self._sse.finish()))
        if self.failure is None and not self.ended:
            try:
                self._reader.end_of_body()
            except ModelError as error:
                self.failure = error
            self._note()
        return rest

    def _passed_on(self, payloads: list[str]) -> Iterator[bytes]:
        for payload in payloads:
            if self.ended:
                return
            try:
                self._reader.read([payload])
            except ModelError as error:
                self.failure = error
            self._note()
            if self.failure is not None:
                return
            written = _written(payload, self._wire)
            if written is not None:
                yield b"data: " + written.encode("ascii") + b"\n\n"

    def _note(self) -> None:
        for delta in self._reader.batch.take():
            self.usage = delta.usage or self.usage
            self.finish_reason = delta.finish_reason or self.finish_reason


def _written(payload: str, wire: WireName) -> str | None:
    """Return an event as LiteLLM can read it; None for one that says nothing that it knows."""
    if payload.strip() == "[DONE]":
        return "[DONE]"
    try:
        event = load_object(payload)
    except ValueError:
        # Blank data, which the reader has passed over.
        return None
    if wire == "anthropic":
        return _anthropic_event(event)
    return _openai_chunk(event)


def _anthropic_event(event: dict[str, Any]) -> str | None:
    kind = event.get("type")
    if kind not in _KNOWN_EVENTS:
        return None
    if kind == "content_block_delta" and event["delta"]["type"] not in _KNOWN_DELTAS:
        return None
    if kind == "message_start":
        event["message"]["usage"] = _countable(event["message"].get("usage"), "anthropic")
    elif kind == "message_delta":
        event["usage"] = _countable(event.get("usage"), "anthropic")
    if "index" in event:
        event["index"] = count(event["index"]) or 0
    return json.dumps(event)


def _openai_chunk(chunk: dict[str, Any]) -> str | None:
    if chunk.get("usage") is not None:
        chunk["usage"] = _countable(chunk["usage"], "openai")
    elif not chunk.get("choices"):
        return None
    for choice in chunk.get("choices") or ():
        choice["index"] = count(choice.get("index")) or 0
    return json.dumps(chunk)


def _countable(usage: object, wire: WireName) -> dict[str, int]:
    found = usage if isinstance(usage, dict) else {}
    return {name: count(found.get(name)) or 0 for name in _COUNTS[wire]}


class ReadWhole(Protocol):
    """Reads the body of an answer that is not streamed.

    It returns what the body says and the body that LiteLLM is to be given, and raises the `ModelError` that a body
    which says nothing means.
    """

    def __call__(self, body: bytes, headers: Mapping[str, str], origin: Origin) -> tuple[Whole, bytes]: ...


def read_completion(
    body: bytes, headers: Mapping[str, str], origin: Origin, *, wire: WireName
) -> tuple[RawCompletion, bytes]:
    """Read a whole answer. See `ReadWhole`."""
    answer = _object(body, origin)
    said = _COMPLETIONS[wire](answer, headers, origin)
    answer["usage"] = _countable(answer.get("usage"), wire)
    return said, json.dumps(answer).encode("ascii")


def read_embeddings(
    body: bytes, headers: Mapping[str, str], origin: Origin, *, expected: int
) -> tuple[RawEmbeddings, bytes]:
    """Read OpenAI's vectors for so many texts. See `ReadWhole`."""
    answer = _object(body, origin)
    said = openai_embeddings(answer, headers, origin, expected)
    answer["usage"] = _countable(answer.get("usage"), "openai")
    return said, json.dumps(answer).encode("ascii")


def _object(body: bytes, origin: Origin) -> dict[str, Any]:
    try:
        return load_object(body)
    except ValueError as error:
        raise malformed(origin, f"begins with {body[:200]!r} ({error})") from error


def unpacker(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """Return what unpacks a body of this content encoding, piece by piece; None for an encoding that is not known.

    What it returns raises `zlib.error` at a body that is not packed that way.
    """
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    packed = zlib.decompressobj(wbits=47)

    def unpack(piece: bytes) -> Iterator[bytes]:
        while piece:
            yield packed.decompress(piece, _UNPACKED_AT_ONCE)
            piece = packed.unconsumed_tail

    return unpack

"""The two wire formats, written independently of what reads them: one answer, said in each provider's own words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from guidance_agent.llm.messages import FinishReason, Usage
from tests.conformance.subjects import Wire

__all__ = ["USAGE", "WIRES", "Event", "Said", "SaidTool", "WireFormat", "body_of", "text_of"]

USAGE = Usage(
    input_tokens=21,
    cache_read_tokens=4_012,
    cache_write_5m_tokens=300,
    output_tokens=77,
    reasoning_tokens=11,
)
"""What every answer here costs unless it says otherwise, in the package's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidTool:
    """A tool call, its arguments in the pieces in which they are sent."""

    id: str
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model says.

    `finish` and `usage` are the provider's own word and object; None is the ordinary end and `USAGE`, and an empty
    usage object leaves the usage out.
    """

    text: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()
    tools: tuple[SaidTool, ...] = ()
    finish: str | None = None
    usage: Mapping[str, Any] | None = None


class Event(NamedTuple):
    """One event as it is sent, the text in it, and whether a body that ends cleanly after it is a whole answer."""

    data: bytes
    text: str = ""
    complete: bool = False


class WireFormat(Protocol):
    """What a test needs to know of a wire format.

    Attributes:
        finish_reasons: Every word for the end of an answer, and what it means.
        ping: A sign of life without content.
        unknown: Events that no version of the format knows yet.
        usage: The usage object that means `USAGE`; `usage_fields` name its two totals.
    """

    name: Wire
    finish_reasons: Mapping[str, FinishReason]
    ping: bytes
    unknown: bytes
    usage: Mapping[str, Any]
    usage_fields: tuple[str, str]

    def events(self, said: Said) -> list[Event]: ...

    def whole(self, said: Said) -> dict[str, Any]: ...

    def error(self, kind: str, message: str) -> dict[str, Any]: ...

    def error_event(self, kind: str, message: str) -> bytes: ...


def body_of(events: Sequence[Event]) -> bytes:
    return b"".join(event.data for event in events)


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class _Anthropic:
    name: Wire = "anthropic"
    finish_reasons: Mapping[str, FinishReason] = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal",
        "pause_turn": "pause",
        "a_reason_of_tomorrow": "other",
    }
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    unknown = (
        b'event: message_note\ndata: {"type":"message_note","note":{"text":"x"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"scent_delta"}}\n\n'
    )
    usage: Mapping[str, Any] = {
        "input_tokens": 21,
        "cache_read_input_tokens": 4_012,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 77,
        "output_tokens_details": {"thinking_tokens": 11},
    }
    usage_fields = ("input_tokens", "output_tokens")

    def events(self, said: Said) -> list[Event]:
        usage = self.usage if said.usage is None else said.usage
        found = [self._start(usage)]
        index = 0
        for pieces, kind in ((said.thinking, "thinking"), (said.text + said.refusal, "text")):
            if pieces:
                found += self._block(index, kind, pieces)
                index += 1
        for tool in said.tools:
            found += self._tool(index, tool)
            index += 1
        found.insert(2, Event(self.ping))
        end: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": _finish(said, self.name)}}
        if usage:
            end["usage"] = {name: value for name, value in usage.items() if name != "cache_creation"}
        return [*found, self._event(end), self._event({"type": "message_stop"}, complete=True)]

    def _start(self, usage: Mapping[str, Any]) -> Event:
        message: dict[str, Any] = {"id": "msg_01ABC", "type": "message", "role": "assistant", "content": []}
        message |= {"model": "claude-haiku-5-5", "stop_reason": None, "stop_sequence": None}
        if usage:
            first = {name: value for name, value in usage.items() if not name.startswith("output_tokens")}
            message["usage"] = first | ({"output_tokens": 1} if "output_tokens" in usage else {})
        return self._event({"type": "message_start", "message": message})

    def _block(self, index: int, kind: str, pieces: Sequence[str]) -> list[Event]:
        start: dict[str, Any] = {"type": kind, kind: ""}
        found = [self._event({"type": "content_block_start", "index": index, "content_block": start})]
        for piece in pieces:
            delta = {"type": f"{kind}_delta", kind: piece}
            event = {"type": "content_block_delta", "index": index, "delta": delta}
            found.append(self._event(event, text=piece if kind == "text" else ""))
        if kind == "thinking":
            delta = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
            found.append(self._event({"type": "content_block_delta", "index": index, "delta": delta}))
        return [*found, self._event({"type": "content_block_stop", "index": index})]

    def _tool(self, index: int, tool: SaidTool) -> list[Event]:
        block = {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
        found = [self._event({"type": "content_block_start", "index": index, "content_block": block})]
        for piece in tool.arguments:
            delta = {"type": "input_json_delta", "partial_json": piece}
            found.append(self._event({"type": "content_block_delta", "index": index, "delta": delta}))
        return [*found, self._event({"type": "content_block_stop", "index": index})]

    def _event(self, body: Mapping[str, Any], *, text: str = "", complete: bool = False) -> Event:
        # Real events are padded with spaces before their last brace.
        data = f"event: {body['type']}\ndata: {_json(body)[:-1]}   }}\n\n".encode()
        return Event(data, text, complete)

    def whole(self, said: Said) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if said.thinking:
            content.append({"type": "thinking", "thinking": "".join(said.thinking), "signature": "c2lnbmF0dXJl"})
        if said.text or said.refusal:
            content.append({"type": "text", "text": "".join(said.text + said.refusal)})
        content += [
            {"type": "tool_use", "id": tool.id, "name": tool.name, "input": json.loads("".join(tool.arguments) or "{}")}
            for tool in said.tools
        ]
        body: dict[str, Any] = {"id": "msg_01ABC", "type": "message", "role": "assistant", "model": "claude-haiku-5-5"}
        body |= {"content": content, "stop_reason": _finish(said, self.name), "stop_sequence": None}
        usage = self.usage if said.usage is None else said.usage
        return body | ({"usage": dict(usage)} if usage else {})

    def error(self, kind: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011ABC"}

    def error_event(self, kind: str, message: str) -> bytes:
        return f"event: error\ndata: {_json(self.error(kind, message))}\n\n".encode()


class _OpenAI:
    name: Wire = "openai"
    finish_reasons: Mapping[str, FinishReason] = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "content_filter",
        "a_reason_of_tomorrow": "other",
    }
    ping = b": keep-alive\n\n"
    unknown = (
        b'event: note\ndata: {"object":"chat.note","choices":[],"note":"x"}\n\n'
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-6-luna",'
        b'"choices":[{"index":0,"delta":{"scent":"x"},"finish_reason":null}],"obfuscation":"xyz"}\n\n'
    )
    usage: Mapping[str, Any] = {
        "prompt_tokens": 4_333,
        "completion_tokens": 77,
        "total_tokens": 4_410,
        "prompt_tokens_details": {"cached_tokens": 4_012, "cache_write_tokens": 300, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 11, "audio_tokens": 0},
    }
    usage_fields = ("prompt_tokens", "completion_tokens")

    def events(self, said: Said) -> list[Event]:
        found = [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        found += [self._chunk({"reasoning_content": piece}) for piece in said.thinking]
        found += [self._chunk({"content": piece}, text=piece) for piece in said.text]
        found += [self._chunk({"refusal": piece}, text=piece) for piece in said.refusal]
        for number, tool in enumerate(said.tools):
            function = {"name": tool.name, "arguments": ""}
            opening = {"index": number, "id": tool.id, "type": "function", "function": function}
            found.append(self._chunk({"tool_calls": [opening]}))
            for piece in tool.arguments:
                found.append(self._chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}))
        found.append(self._chunk({}, finish=_finish(said, self.name)))
        usage = self.usage if said.usage is None else said.usage
        if usage:
            body = self._envelope() | {"choices": [], "usage": dict(usage)}
            found.append(Event(f"data: {_json(body)}\n\n".encode(), complete=True))
        return [*found, Event(b"data: [DONE]\n\n", complete=True)]

    def _envelope(self) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-6-luna"}

    def _chunk(self, delta: Mapping[str, Any], *, finish: str | None = None, text: str = "") -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        body = self._envelope() | {"choices": [choice], "usage": None, "obfuscation": "x8Z"}
        return Event(f"data: {_json(body)}\n\n".encode(), text, complete=finish is not None)

    def whole(self, said: Said) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.text) or None}
        message["refusal"] = "".join(said.refusal) or None
        if said.thinking:
            message["reasoning_content"] = "".join(said.thinking)
        if said.tools:
            message["tool_calls"] = [
                {
                    "id": tool.id,
                    "type": "function",
                    "function": {"name": tool.name, "arguments": "".join(tool.arguments)},
                }
                for tool in said.tools
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(said, self.name)}
        body = self._envelope() | {"object": "chat.completion", "choices": [choice]}
        usage = self.usage if said.usage is None else said.usage
        return body | ({"usage": dict(usage)} if usage else {})

    def error(self, kind: str, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}

    def error_event(self, kind: str, message: str) -> bytes:
        return f"data: {_json(self.error(kind, message))}\n\n".encode()


def _finish(said: Said, wire: Wire) -> str:
    if said.finish is not None:
        return said.finish
    if said.tools:
        return "tool_use" if wire == "anthropic" else "tool_calls"
    if said.refusal:
        return "refusal" if wire == "anthropic" else "stop"
    return "end_turn" if wire == "anthropic" else "stop"


WIRES: Mapping[Wire, WireFormat] = {"anthropic": _Anthropic(), "openai": _OpenAI()}

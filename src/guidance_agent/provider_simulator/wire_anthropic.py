"""Renders an answer as the Messages API does, streamed and whole."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.answer import Answer
from guidance_agent.provider_simulator.frames import Frame
from guidance_agent.provider_simulator.pacing import Pace
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.tokens import split_tokens
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["error_event", "message_body", "message_frames", "message_start_event"]

_STOPS = {
    "end": "end_turn",
    "length": "max_tokens",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "tool": "tool_use",
}
_REFUSAL_DETAILS = {
    "type": "refusal",
    "category": None,
    "explanation": "This request was declined by the simulated model.",
}
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_PING_RATE = 0.92
_THINKING_CHUNK = 12


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _event(kind: str, value: Mapping[str, Any], rng: random.Random) -> bytes:
    # The provider pads some events with spaces before the closing brace.
    padding = " " * rng.randint(1, 15) if rng.random() < 0.7 else ""
    return f"event: {kind}\ndata: {_json(value)[:-1]}{padding}}}\n\n".encode()


def _input_usage(use: CacheUse) -> dict[str, Any]:
    return {
        "input_tokens": use.uncached,
        "cache_creation_input_tokens": use.written,
        "cache_read_input_tokens": use.read,
    }


def _split(use: CacheUse) -> dict[str, int]:
    return {"ephemeral_5m_input_tokens": use.written_5m, "ephemeral_1h_input_tokens": use.written_1h}


def _start_message(prompt: Prompt, use: CacheUse, message_id: str, first_tokens: int) -> dict[str, Any]:
    return {
        "model": prompt.model.name,
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            **_input_usage(use),
            "cache_creation": _split(use),
            "output_tokens": first_tokens,
            "service_tier": "standard",
            "inference_geo": "global",
        },
    }


def message_start_event(prompt: Prompt, use: CacheUse, message_id: str, rng: random.Random) -> bytes:
    message = _start_message(prompt, use, message_id, 1)
    return _event("message_start", {"type": "message_start", "message": message}, rng)


def error_event(error: ProviderError, request_id: str) -> bytes:
    """The event that tells of a failure inside a stream that began well."""
    body = {
        "type": "error",
        "error": {"details": None, "type": error.kind, "message": error.message},
        "request_id": request_id,
    }
    return f"event: error\ndata: {_json(body)}\n\n".encode()


def _stop_fields(answer: Answer) -> dict[str, Any]:
    fields: dict[str, Any] = {"stop_reason": _STOPS[answer.stop], "stop_sequence": answer.stop_sequence}
    if answer.stop == "refusal":
        fields["stop_details"] = _REFUSAL_DETAILS
    return fields


def _signature(text: str, rng: random.Random) -> str:
    return b64encode(rng.randbytes(72 + len(text) % 30)).decode()


def message_frames(
    prompt: Prompt,
    answer: Answer,
    use: CacheUse,
    pace: Pace,
    *,
    message_id: str,
    rng: random.Random,
    extra_ping_rate: float,
) -> Iterator[Frame]:
    """The events of a streamed message in the provider's order, each with the moment at which it is due."""
    due = pace.first
    yield Frame("head", message_start_event(prompt, use, message_id, rng), due)
    pings = rng.random() < _PING_RATE
    index = 0
    for data in _thinking_events(answer, rng):
        yield Frame("head", data, due)
        index = 1
        if pings:
            yield Frame("head", _PING, due)
            pings = False
        due += pace.step(_THINKING_CHUNK)
    if answer.pieces:
        start = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        yield Frame("head", _event("content_block_start", start, rng), due)
        if pings:
            yield Frame("head", _PING, due)
        prefix = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
            '"delta":{"type":"text_delta","text":'
        )
        for number, piece in enumerate(answer.pieces):
            if number:
                due += pace.step_for(piece)
            ping = _PING if extra_ping_rate and rng.random() < extra_ping_rate else b""
            padding = " " * rng.randint(1, 15) if rng.random() < 0.7 else ""
            data = f"{prefix}{json.dumps(piece, ensure_ascii=False)}}}{padding}}}\n\n".encode()
            yield Frame("text", ping + data, due)
        yield Frame("tail", _event("content_block_stop", {"type": "content_block_stop", "index": index}, rng), due)
        index += 1
    elif pings:
        yield Frame("head", _PING, due)
    for data in _tool_events(answer, index, rng):
        yield Frame("tail", data, due)
        due += pace.step(4)
    end = {
        "type": "message_delta",
        "delta": _stop_fields(answer),
        "usage": {**_input_usage(use), "output_tokens": answer.output_tokens, **_thinking_details(answer)},
    }
    yield Frame("tail", _event("message_delta", end, rng), due)
    yield Frame("tail", _event("message_stop", {"type": "message_stop"}, rng), due)


def _thinking_details(answer: Answer) -> dict[str, Any]:
    if not answer.reasoning:
        return {}
    return {"output_tokens_details": {"thinking_tokens": answer.reasoning_tokens}}


def _delta(index: int, delta: Mapping[str, Any], rng: random.Random) -> bytes:
    return _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}, rng)


def _thinking_events(answer: Answer, rng: random.Random) -> Iterator[bytes]:
    if not answer.reasoning:
        return
    block = {"type": "thinking", "thinking": "", "signature": ""}
    yield _event("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}, rng)
    tokens = split_tokens(answer.reasoning)
    for start in range(0, len(tokens), _THINKING_CHUNK):
        text = "".join(tokens[start : start + _THINKING_CHUNK])
        yield _delta(0, {"type": "thinking_delta", "thinking": text}, rng)
    yield _delta(0, {"type": "signature_delta", "signature": _signature(answer.reasoning, rng)}, rng)
    yield _event("content_block_stop", {"type": "content_block_stop", "index": 0}, rng)


def _tool_id(rng: random.Random) -> str:
    return "toolu_" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789", k=24))


def _tool_events(answer: Answer, index: int, rng: random.Random) -> Iterator[bytes]:
    for place, tool in enumerate(answer.tools, start=index):
        block = {"type": "tool_use", "id": _tool_id(rng), "name": tool.name, "input": {}}
        start = {"type": "content_block_start", "index": place, "content_block": block}
        yield _event("content_block_start", start, rng)
        yield _delta(place, {"type": "input_json_delta", "partial_json": ""}, rng)
        tokens = split_tokens(tool.json())
        for first in range(0, len(tokens), 4):
            yield _delta(place, {"type": "input_json_delta", "partial_json": "".join(tokens[first : first + 4])}, rng)
        yield _event("content_block_stop", {"type": "content_block_stop", "index": place}, rng)


def message_body(
    prompt: Prompt, answer: Answer, use: CacheUse, *, message_id: str, rng: random.Random
) -> dict[str, Any]:
    """The body of a message that was not streamed."""
    message = _start_message(prompt, use, message_id, answer.output_tokens)
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        signature = _signature(answer.reasoning, rng)
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": signature})
    if answer.pieces:
        content.append({"type": "text", "text": answer.text})
    content += [
        {"type": "tool_use", "id": _tool_id(rng), "name": tool.name, "input": dict(tool.arguments)}
        for tool in answer.tools
    ]
    usage = {**message["usage"], "output_tokens": 0 if prompt.max_tokens == 0 else answer.output_tokens}
    return {**message, "content": content, **_stop_fields(answer), "usage": {**usage, **_thinking_details(answer)}}

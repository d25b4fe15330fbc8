"""Renders an answer as the Chat Completions API does, streamed and whole."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from typing import Any

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.answer import Answer
from guidance_agent.provider_simulator.frames import Frame
from guidance_agent.provider_simulator.pacing import Pace
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.tokens import split_tokens
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body

__all__ = ["chat_body", "chat_frames", "chat_usage", "error_data"]

_STOPS = {
    "end": "stop",
    "length": "length",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool": "tool_calls",
}
_LETTERS = string.ascii_letters + string.digits
_REFUSAL = "I'm sorry, but I can't help with that."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def error_data(error: ProviderError) -> bytes:
    """The data line that tells of a failure inside a stream that began well."""
    return f"data: {_json(error_body('openai', error, ''))}\n\n".encode()


def chat_usage(prompt: Prompt, answer: Answer, use: CacheUse) -> dict[str, Any]:
    """The usage object: cached and written tokens are part of `prompt_tokens`."""
    details = {"cached_tokens": use.read, "audio_tokens": 0}
    if prompt.model.regime == "openai_breakpoints":
        details["cache_write_tokens"] = use.written
    return {
        "prompt_tokens": use.total,
        "completion_tokens": answer.output_tokens,
        "total_tokens": use.total + answer.output_tokens,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat_frames(
    prompt: Prompt, answer: Answer, use: CacheUse, pace: Pace, *, completion_id: str, created: int, rng: random.Random
) -> Iterator[Frame]:
    """The chunks of a streamed completion in the provider's order, each with the moment at which it is due."""
    include_usage = bool(prompt.options["include_usage"])
    fingerprint = f"fp_{rng.getrandbits(40):010x}"
    before = (
        f'data: {{"id":"{completion_id}","object":"chat.completion.chunk","created":{created},'
        f'"model":{_json(prompt.model.name)},"service_tier":"default","system_fingerprint":"{fingerprint}",'
    )
    usage_field = ',"usage":null' if include_usage else ""

    def chunk(delta: str, finish: str = "null") -> bytes:
        # Random letters hide the length of the chunk from those who listen to encrypted traffic.
        noise = "".join(rng.choices(_LETTERS, k=rng.randint(0, 15)))
        return (
            f'{before}"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]'
            f'{usage_field},"obfuscation":"{noise}"}}\n\n'
        ).encode()

    # Hidden reasoning takes its time before the first visible chunk.
    due = pace.first + (pace.step(answer.reasoning_tokens) if pace.interval is None else 0.0)
    content = "null" if answer.tools and not answer.pieces else '""'
    yield Frame("head", chunk(f'{{"role":"assistant","content":{content},"refusal":null}}'), due)
    for number, piece in enumerate(answer.pieces):
        if number:
            due += pace.step_for(piece)
        yield Frame("text", chunk(f'{{"content":{json.dumps(piece, ensure_ascii=False)}}}'), due)
    if answer.stop == "refusal":
        yield Frame("tail", chunk(f'{{"refusal":{_json(_REFUSAL)}}}'), due)
    for delta in _tool_deltas(answer, rng):
        yield Frame("tail", chunk(delta), due)
        due += pace.step(1)
    yield Frame("tail", chunk("{}", f'"{_STOPS[answer.stop]}"'), due)
    if include_usage:
        usage = _json(chat_usage(prompt, answer, use))
        yield Frame("tail", f'{before}"choices":[],"usage":{usage},"obfuscation":""}}\n\n'.encode(), due)
    yield Frame("tail", b"data: [DONE]\n\n", due)


def _call_id(rng: random.Random) -> str:
    return "call_" + "".join(rng.choices(_LETTERS, k=24))


def _tool_deltas(answer: Answer, rng: random.Random) -> Iterator[str]:
    for index, tool in enumerate(answer.tools):
        function = {"name": tool.name, "arguments": ""}
        opening = {"index": index, "id": _call_id(rng), "type": "function", "function": function}
        yield _json({"tool_calls": [opening]})
        for token in split_tokens(tool.json()):
            yield _json({"tool_calls": [{"index": index, "function": {"arguments": token}}]})


def chat_body(
    prompt: Prompt, answer: Answer, use: CacheUse, *, completion_id: str, created: int, rng: random.Random
) -> dict[str, Any]:
    """The body of a completion that was not streamed."""
    refused = answer.stop == "refusal"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text if answer.pieces else None,
        "refusal": _REFUSAL if refused else None,
        "annotations": [],
    }
    if answer.tools:
        message["tool_calls"] = [
            {"id": _call_id(rng), "type": "function", "function": {"name": tool.name, "arguments": tool.json()}}
            for tool in answer.tools
        ]
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": prompt.model.name,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _STOPS[answer.stop]}],
        "usage": chat_usage(prompt, answer, use),
        "service_tier": "default",
        "system_fingerprint": f"fp_{rng.getrandbits(40):010x}",
    }

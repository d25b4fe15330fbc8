"""Recorded answers of real providers, sent byte for byte, are read as what they were.

The recordings are kept beside the project and not in it; without them these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    ModelError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    RateLimitedError,
    RequestRejectedError,
)
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import FinishReason, ModelRequest, Usage
from guidance_agent.llm.transports.tool_pieces import assemble_tool_calls

FOLDER = Path(__file__).parents[4] / "shared" / "recordings"
MODELS = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}
FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop": "stop",
    "max_tokens": "length",
    "length": "length",
    "tool_use": "tool_calls",
    "tool_calls": "tool_calls",
    "refusal": "refusal",
}
KINDS: dict[int, tuple[type[ModelError], ...]] = {
    400: (RequestRejectedError, ContextWindowExceededError, AuthenticationError),
    401: (AuthenticationError,),
    402: (PermissionDeniedError,),
    403: (PermissionDeniedError,),
    404: (ModelNotFoundError,),
    413: (RequestRejectedError,),
    429: (RateLimitedError,),
    500: (ProviderUnavailableError,),
    529: (ProviderUnavailableError,),
}

Entry = dict[str, Any]


def entries(*, stream: bool, failed: bool = False) -> list[Entry]:
    index = FOLDER / "index.json"
    if not index.is_file():
        return []
    found = [
        entry
        for entry in json.loads(index.read_text(encoding="utf-8"))
        if entry.get("wire") in MODELS and entry["outcome"] in ("ok", "error")
    ]
    if failed:
        return [entry for entry in found if entry["status"] >= 400]
    return [entry for entry in found if entry["status"] < 400 and bool(entry.get("stream")) is stream]


def recorded(*, stream: bool, failed: bool = False) -> pytest.MarkDecorator:
    found = entries(stream=stream, failed=failed)
    missing = pytest.param({}, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}"), id="none")
    return pytest.mark.parametrize("entry", [pytest.param(entry, id=entry["id"][-60:]) for entry in found] or [missing])


def body_of(entry: Entry) -> bytes:
    return FOLDER.joinpath(entry["file"]).read_bytes()


def expected_usage(entry: Entry) -> Usage | None:
    """The provider's own figures in our words, worked out without the code under test."""
    raw = entry["expected_usage"]
    if raw is None:
        return None
    if entry["wire"] == "openai":
        details = raw.get("prompt_tokens_details") or {}
        read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
        return Usage(
            input_tokens=raw["prompt_tokens"] - read - written,
            cache_read_tokens=read,
            cache_write_5m_tokens=written,
            output_tokens=raw["completion_tokens"],
        )
    long = (raw.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0)
    parts = raw.get("iterations") or [raw]
    return Usage(
        input_tokens=sum(part["input_tokens"] for part in parts),
        cache_read_tokens=sum(part.get("cache_read_input_tokens", 0) for part in parts),
        cache_write_5m_tokens=sum(part.get("cache_creation_input_tokens", 0) for part in parts) - long,
        cache_write_1h_tokens=long,
        output_tokens=sum(part["output_tokens"] for part in parts),
    )


def figures(usage: Usage | None) -> tuple[int, ...] | None:
    if usage is None or usage.estimated:
        return None
    return (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.output_tokens,
    )


def expected_calls(entry: Entry) -> list[tuple[str, str, Any]]:
    calls = entry["expected"].get("tool_calls") or []
    return [
        (call["id"], call["name"], json.loads(call["args"] or "{}"))
        for call in calls
        if call.get("kind", "tool_use") == "tool_use"
    ]


@pytest.mark.parametrize("cut", [None, 7], ids=["at once", "in pieces"])
@recorded(stream=True)
async def test_a_recorded_stream_is_read_as_what_it_was(
    entry: Entry,
    cut: int | None,
    open_gateway: Callable[..., ModelGateway],
    byte_server: Any,
    ask: Callable[..., ModelRequest],
) -> None:
    byte_server.stream(body_of(entry), cut=cut)
    stream = open_gateway(byte_server.base_url).stream(ask(MODELS[entry["wire"]]))
    text, reasoning, pieces = "", "", []
    try:
        async for delta in stream:
            text += delta.text
            reasoning += delta.reasoning
            if delta.tool_call is not None:
                pieces.append(delta.tool_call)
    except ModelError:
        assert entry["outcome"] == "error"
        assert text == entry["expected_text"]
        return
    assert entry["outcome"] == "ok"
    assert text == entry["expected_text"]
    expected = entry["expected"]
    assert reasoning == (expected.get("thinking") or expected.get("reasoning") or "")
    assert stream.finish_reason == FINISH[expected["stop_reason"]]
    calls = assemble_tool_calls(pieces)
    assert [(call.id, call.name, json.loads(call.arguments)) for call in calls] == expected_calls(entry)
    if entry["expected_usage"] is not None:
        assert figures(stream.usage) == figures(expected_usage(entry))


@recorded(stream=False)
async def test_a_recorded_answer_is_read_as_what_it_was(
    entry: Entry, open_gateway: Callable[..., ModelGateway], byte_server: Any, ask: Callable[..., ModelRequest]
) -> None:
    byte_server.answer(200, body_of(entry))
    whole = await open_gateway(byte_server.base_url).complete(ask(MODELS[entry["wire"]]))
    assert whole.text == entry["expected_text"]
    assert whole.finish_reason == FINISH[entry["expected"]["stop_reason"]]
    assert figures(whole.usage) == figures(expected_usage(entry))


@recorded(stream=False, failed=True)
async def test_a_recorded_error_is_the_right_class(
    entry: Entry, open_gateway: Callable[..., ModelGateway], byte_server: Any, ask: Callable[..., ModelRequest]
) -> None:
    byte_server.answer(entry["status"], body_of(entry), entry["content_type"] or "application/json")
    gateway = open_gateway(byte_server.base_url)
    with pytest.raises(KINDS[entry["status"]]) as streamed:
        await gateway.stream(ask(MODELS[entry["wire"]])).read()
    with pytest.raises(type(streamed.value)):
        await gateway.complete(ask(MODELS[entry["wire"]]))
    assert streamed.value.status == entry["status"]
    if "context" in entry["id"]:
        assert isinstance(streamed.value, ContextWindowExceededError)

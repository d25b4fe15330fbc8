"""The Anthropic Messages API over plain HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from guidance_agent.errors import UnknownModelError
from guidance_agent.llm.messages import ToolCall
from guidance_agent.llm.transports.anthropic_body import build_anthropic_body
from guidance_agent.llm.transports.anthropic_reader import AnthropicReader, anthropic_finish_reason, anthropic_usage
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion, RawEmbeddings
from guidance_agent.llm.transports.batch import mend
from guidance_agent.llm.transports.failures import Origin, malformed, mid_stream_error
from guidance_agent.llm.transports.http import HttpSession
from guidance_agent.llm.transports.native import NativeStream
from guidance_agent.settings import Settings

__all__ = ["ANTHROPIC_VERSION", "AnthropicTransport", "anthropic_completion", "anthropic_headers"]

ANTHROPIC_VERSION = "2023-06-01"


class AnthropicTransport:
    """Speaks the Messages format to any base URL that answers in it."""

    name = "native"

    def __init__(self, settings: Settings | None = None) -> None:
        """Accept the settings that every transport is made with; this one needs none beyond each call's own."""
        del settings
        self._http = HttpSession()

    async def open(self, call: PreparedCall) -> NativeStream:
        began = time.monotonic()
        body = build_anthropic_body(call, stream=True)
        response, origin = await self._http.post(call, _path(call), anthropic_headers(call), body, stream=True)
        left = call.timeouts.first_event - (time.monotonic() - began)
        return NativeStream(
            response, origin, AnthropicReader(origin), call.timeouts, first_event=left, linger=self._http.linger
        )

    async def complete(self, call: PreparedCall) -> RawCompletion:
        body = build_anthropic_body(call, stream=False)
        answer, headers, origin = await self._http.post_json(call, _path(call), anthropic_headers(call), body)
        return anthropic_completion(answer, headers, origin)

    async def embed(self, call: PreparedCall, texts: Sequence[str], dimensions: int | None) -> RawEmbeddings:
        """Raise `UnknownModelError`: the format has no embeddings."""
        raise UnknownModelError(
            f"{call.endpoint.provider} offers no embeddings, so {call.request.model!r} cannot embed. "
            "Choose an embedding model such as 'openai/text-embedding-3-small', or none for the offline embedder."
        )

    async def aclose(self) -> None:
        await self._http.aclose()


def anthropic_headers(call: PreparedCall) -> dict[str, str]:
    """Return the headers that every request of the format carries."""
    headers = {"anthropic-version": ANTHROPIC_VERSION}
    if call.endpoint.api_key is not None:
        headers["x-api-key"] = call.endpoint.api_key
    return headers


def _path(call: PreparedCall) -> str:
    base_url = (call.endpoint.base_url or "").rstrip("/")
    return "/messages" if base_url.endswith("/v1") else "/v1/messages"


def anthropic_completion(answer: Mapping[str, Any], headers: Mapping[str, str], origin: Origin) -> RawCompletion:
    """Return the whole answer that a message is.

    Raises:
        MidStreamError: when it is an error object.
        MalformedResponseError: when it is no message that has ended.
    """
    if answer.get("type") == "error":
        raise mid_stream_error(origin, answer.get("error"))
    try:
        return _completion(answer, headers, origin.request_id)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(origin, f"is not a message ({type(error).__name__}: {error})") from error


def _completion(answer: Mapping[str, Any], headers: Mapping[str, str], request_id: str | None) -> RawCompletion:
    if not answer["stop_reason"]:
        raise ValueError("it has no stop reason")
    text, reasoning, calls = [], [], []
    for block in answer["content"]:
        kind = block["type"]
        if kind == "text":
            text.append(block["text"])
        elif kind == "thinking":
            reasoning.append(block["thinking"])
        elif kind == "tool_use":
            calls.append(ToolCall(block["id"], block["name"], json.dumps(block["input"], ensure_ascii=False)))
    usage = answer.get("usage")
    return RawCompletion(
        text=mend("".join(text)),
        finish_reason=anthropic_finish_reason(answer["stop_reason"]),
        usage=anthropic_usage(usage) if isinstance(usage, dict) and usage else None,
        reasoning=mend("".join(reasoning)),
        tool_calls=tuple(calls),
        headers=headers,
        request_id=request_id,
    )

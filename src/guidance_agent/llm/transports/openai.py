"""The OpenAI Chat Completions and Embeddings APIs over plain HTTP; many other servers speak them too."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from guidance_agent.llm.messages import ToolCall
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion, RawEmbeddings
from guidance_agent.llm.transports.batch import mend
from guidance_agent.llm.transports.failures import Origin, malformed, mid_stream_error
from guidance_agent.llm.transports.http import HttpSession
from guidance_agent.llm.transports.native import NativeStream
from guidance_agent.llm.transports.openai_body import build_openai_body
from guidance_agent.llm.transports.openai_reader import (
    OpenAIReader,
    openai_finish_reason,
    openai_usage,
    reasoning_field,
)
from guidance_agent.settings import Settings

__all__ = ["OpenAITransport", "openai_completion", "openai_embeddings", "openai_headers"]


class OpenAITransport:
    """Speaks the Chat Completions format to any base URL that answers in it."""

    name = "native"

    def __init__(self, settings: Settings | None = None) -> None:
        """Accept the settings that every transport is made with; this one needs none beyond each call's own."""
        del settings
        self._http = HttpSession()

    async def open(self, call: PreparedCall) -> NativeStream:
        began = time.monotonic()
        body = build_openai_body(call, stream=True)
        response, origin = await self._http.post(call, "/chat/completions", openai_headers(call), body, stream=True)
        left = call.timeouts.first_event - (time.monotonic() - began)
        return NativeStream(
            response, origin, OpenAIReader(origin), call.timeouts, first_event=left, linger=self._http.linger
        )

    async def complete(self, call: PreparedCall) -> RawCompletion:
        body = build_openai_body(call, stream=False)
        answer, headers, origin = await self._http.post_json(call, "/chat/completions", openai_headers(call), body)
        return openai_completion(answer, headers, origin)

    async def embed(self, call: PreparedCall, texts: Sequence[str], dimensions: int | None) -> RawEmbeddings:
        body: dict[str, Any] = {"model": call.model_id, "input": list(texts), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        answer, headers, origin = await self._http.post_json(call, "/embeddings", openai_headers(call), body)
        return openai_embeddings(answer, headers, origin, len(texts))

    async def aclose(self) -> None:
        await self._http.aclose()


def openai_headers(call: PreparedCall) -> dict[str, str]:
    """Return the headers that every request of the format carries."""
    return {"authorization": f"Bearer {call.endpoint.api_key}"} if call.endpoint.api_key is not None else {}


def openai_completion(answer: Mapping[str, Any], headers: Mapping[str, str], origin: Origin) -> RawCompletion:
    """Return the whole answer that a chat completion is.

    Raises:
        MidStreamError: when it is an error object.
        MalformedResponseError: when it is no chat completion that has ended.
    """
    if answer.get("error"):
        raise mid_stream_error(origin, answer["error"])
    try:
        return _completion(answer, headers, origin.request_id)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise malformed(origin, f"is not a chat completion ({type(error).__name__}: {error})") from error


def _completion(answer: Mapping[str, Any], headers: Mapping[str, str], request_id: str | None) -> RawCompletion:
    choice = answer["choices"][0]
    if not choice["finish_reason"]:
        raise ValueError("it has no finish reason")
    message = choice["message"]
    refusal = message.get("refusal") or ""
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"] or "{}")
        for call in message.get("tool_calls") or ()
    )
    usage = answer.get("usage")
    return RawCompletion(
        text=mend((message.get("content") or "") + refusal),
        finish_reason="refusal" if refusal else openai_finish_reason(choice["finish_reason"]),
        usage=openai_usage(usage) if isinstance(usage, dict) else None,
        reasoning=mend(reasoning_field(message) or ""),
        tool_calls=calls,
        headers=headers,
        request_id=request_id,
    )


def openai_embeddings(
    answer: Mapping[str, Any], headers: Mapping[str, str], origin: Origin, expected: int
) -> RawEmbeddings:
    """Return the vectors of a list of embeddings, which must be one for each of the `expected` texts.

    Raises:
        MalformedResponseError: when it is no such list.
    """
    try:
        vectors = _vectors(answer, origin, expected)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(origin, f"is not a list of embeddings ({type(error).__name__}: {error})") from error
    usage = answer.get("usage")
    if isinstance(usage, dict):
        usage = openai_usage({"completion_tokens": 0, **usage})
    return RawEmbeddings(vectors=vectors, usage=usage, headers=headers, request_id=origin.request_id)


def _vectors(answer: Mapping[str, Any], origin: Origin, expected: int) -> list[list[float]]:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    if [row["index"] for row in rows] != list(range(expected)):
        raise malformed(origin, f"has {len(rows)} embeddings for {expected} texts")
    return [[float(value) for value in row["embedding"]] for row in rows]

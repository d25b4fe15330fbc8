"""The clients that are measured beside each other, each read as its own documentation reads it.

All send the same request to the same server and run with their default settings. A client is imported when it is opened
and not before: the time to import it is one of the figures. Only the floor is told to open as many connections as it
needs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["CLIENTS", "FLOOR", "Answer", "Ask", "Client", "clients_of"]

FLOOR = "aiohttp"
_KEY = "sk-benchmark-123456"
_MAX_TOKENS = 128_000
_QUESTION = "What is drawdown?"
_WITH_USAGE = {"include_usage": True}


@dataclass(slots=True)
class Answer:
    """An answer that is read by iterating over `pieces` of text; `close` is the client's own way to leave it."""

    pieces: AsyncIterator[str]
    close: Callable[[], Awaitable[object]]


Ask = Callable[[str], Awaitable[Answer]]
"""Asks the model of the given name, written without a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client: its name in tables, how it is opened for a wire format and an address, and the wires it speaks."""

    label: str
    open: Callable[[str, str], contextlib.AbstractAsyncContextManager[Ask]]
    wires: tuple[str, ...] = ("anthropic", "openai")


@contextlib.asynccontextmanager
async def _aiohttp(wire: str, base_url: str) -> AsyncIterator[Ask]:
    import json

    import aiohttp

    anthropic = wire == "anthropic"
    url = base_url + ("/v1/messages" if anthropic else "/v1/chat/completions")
    headers = {"x-api-key": _KEY, "anthropic-version": "2023-06-01", "authorization": f"Bearer {_KEY}"}

    async def texts(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if anthropic:
                if event["type"] == "content_block_delta":
                    yield event["delta"]["text"]
            elif event["choices"] and event["choices"][0]["delta"].get("content"):
                yield event["choices"][0]["delta"]["content"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(model: str) -> Answer:
            body = _body(model) | ({} if anthropic else {"stream_options": _WITH_USAGE})
            response = await session.post(url, json=body, headers=headers)

            async def close() -> None:
                response.close()

            return Answer(texts(response), close)

        yield ask


@contextlib.asynccontextmanager
async def _gateway(wire: str, base_url: str, *, transport: str) -> AsyncIterator[Ask]:
    from guidance_agent.llm.gateway import ModelGateway, ModelStream
    from guidance_agent.llm.messages import Message, ModelRequest
    from guidance_agent.settings import Settings

    environ = {
        f"{wire.upper()}_API_KEY": _KEY,
        f"{wire.upper()}_BASE_URL": base_url + ("/v1" if wire == "openai" else ""),
    }

    async def texts(stream: ModelStream) -> AsyncIterator[str]:
        async for delta in stream:
            if delta.text:
                yield delta.text

    async with ModelGateway(Settings.load(transport=transport), environ=environ) as gateway:

        async def ask(model: str) -> Answer:
            request = ModelRequest(
                model=f"{wire}/{model}", messages=(Message("user", _QUESTION),), max_tokens=_MAX_TOKENS
            )
            stream = gateway.stream(request)
            return Answer(texts(stream), stream.aclose)

        yield ask


@contextlib.asynccontextmanager
async def _anthropic(_: str, base_url: str) -> AsyncIterator[Ask]:
    import anthropic

    async def texts(stream: anthropic.AsyncStream[Any]) -> AsyncIterator[str]:
        async for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text

    async with anthropic.AsyncAnthropic(api_key=_KEY, base_url=base_url) as client:

        async def ask(model: str) -> Answer:
            stream = await client.messages.create(
                model=model,
                max_tokens=_MAX_TOKENS,
                messages=[{"role": "user", "content": _QUESTION}],
                stream=True,
            )
            return Answer(texts(stream), stream.close)

        yield ask


@contextlib.asynccontextmanager
async def _openai(_: str, base_url: str) -> AsyncIterator[Ask]:
    import openai

    async def texts(stream: openai.AsyncStream[Any]) -> AsyncIterator[str]:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async with openai.AsyncOpenAI(api_key=_KEY, base_url=f"{base_url}/v1") as client:

        async def ask(model: str) -> Answer:
            stream = await client.chat.completions.create(
                model=model,
                max_tokens=_MAX_TOKENS,
                messages=[{"role": "user", "content": _QUESTION}],
                stream=True,
                stream_options={"include_usage": True},
            )
            return Answer(texts(stream), stream.close)

        yield ask


@contextlib.asynccontextmanager
async def _litellm(wire: str, base_url: str) -> AsyncIterator[Ask]:
    # Without these the import fetches files over the network, and would be measured by that.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
    import litellm

    async def texts(response: Any) -> AsyncIterator[str]:
        async for chunk in response:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def ask(model: str) -> Answer:
        response = await litellm.acompletion(
            model=f"{wire}/{model}",
            api_base=base_url + ("/v1" if wire == "openai" else ""),
            api_key=_KEY,
            max_tokens=_MAX_TOKENS,
            messages=[{"role": "user", "content": _QUESTION}],
            stream=True,
            stream_options=_WITH_USAGE,
        )
        return Answer(texts(response), response.aclose)

    yield ask


def _native(wire: str, base_url: str) -> contextlib.AbstractAsyncContextManager[Ask]:
    return _gateway(wire, base_url, transport="native")


def _by_litellm(wire: str, base_url: str) -> contextlib.AbstractAsyncContextManager[Ask]:
    return _gateway(wire, base_url, transport="litellm")


def _body(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": _MAX_TOKENS,
        "stream": True,
        "messages": [{"role": "user", "content": _QUESTION}],
    }


CLIENTS = {
    FLOOR: Client(label="aiohttp, lines and `json.loads` (floor)", open=_aiohttp),
    "native": Client(label="`ModelGateway`, native", open=_native),
    "anthropic-sdk": Client(label="anthropic SDK", open=_anthropic, wires=("anthropic",)),
    "openai-sdk": Client(label="openai SDK", open=_openai, wires=("openai",)),
    "by-litellm": Client(label="`ModelGateway`, LiteLLM transport", open=_by_litellm),
    "litellm": Client(label="litellm", open=_litellm),
}


def clients_of(wire: str) -> dict[str, Client]:
    """Return the clients that speak a wire format, in the order of the table."""
    return {name: client for name, client in CLIENTS.items() if wire in client.wires}

"""Providers that only LiteLLM reaches: of answers in formats that are not ours, LiteLLM tells all that is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from guidance_agent.errors import (
    AuthenticationError,
    MalformedResponseError,
    MidStreamError,
    ModelError,
    ModelTimeoutError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    StreamTruncated,
    UnknownModelError,
)
from guidance_agent.llm.messages import Delta, Message, ModelRequest
from guidance_agent.llm.providers.base import CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports.base import PreparedCall, TransportStream
from guidance_agent.llm.transports.litellm import LiteLLMTransport
from guidance_agent.settings import Settings, TimeoutSettings

# What pydantic says about LiteLLM's own models, when it builds and reads them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
KEY = "sk-test-very-secret-0123456789"
QUESTION = "My name is Gwendolyn Ap Rhys and my pot is £31,415."
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PART = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Grüezi "}]}, "index": 0}]}
LAST = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "mitenand"}]}, "index": 0, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 9,
        "candidatesTokenCount": 3,
        "totalTokenCount": 12,
        "cachedContentTokenCount": 4,
    },
}


@pytest.fixture
async def transport() -> AsyncIterator[LiteLLMTransport]:
    opened = LiteLLMTransport(Settings())
    yield opened
    await opened.aclose()


def prepared(
    base_url: str | None,
    model: str = "gemini/gemini-3.6-flash",
    timeouts: TimeoutSettings | None = None,
) -> PreparedCall:
    return PreparedCall(
        request=ModelRequest(model=model, messages=(Message("user", QUESTION),), max_tokens=300),
        endpoint=Endpoint(provider=model.partition("/")[0], base_url=base_url, wire=None, api_key=KEY),
        traits=ModelTraits(),
        plan=CachePlan(caching="none"),
        timeouts=timeouts or TimeoutSettings(first_event=30),
    )


async def drain(stream: TransportStream) -> tuple[list[Delta], ModelError | None]:
    """Read to the end; the deltas and the error that ended it."""
    deltas: list[Delta] = []
    try:
        while (arrived := await stream.read()) is not None:
            deltas.extend(arrived)
    except ModelError as error:
        return deltas, error
    finally:
        await stream.aclose()
    return deltas, None


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A provider of one's own on the loopback address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def lines(*sent: str, content_type: str) -> Handler:
    """A provider that sends these lines and ends its body cleanly."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": content_type})
        await response.prepare(request)
        for line in sent:
            await response.write(f"{line}\n".encode())
        return response

    return answer


def gemini(*events: Any, then: str = "end") -> Handler:
    """A Gemini that sends these events; `then` it ends, breaks the connection or says nothing more."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-provider-simulator": "1"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        if then == "break":
            await asyncio.sleep(0.02)
            assert request.transport is not None
            request.transport.abort()
        elif then == "wait":
            await asyncio.Event().wait()
        return response

    return answer


async def test_a_provider_that_litellm_does_not_know_is_named(transport: LiteLLMTransport) -> None:
    with pytest.raises(UnknownModelError, match=r"'nosuch'.*providers\.nosuch\.wire"):
        await transport.open(prepared(None, "nosuch/model-1"))


async def test_another_providers_stream_is_read_without_an_address_format_of_ours(transport: LiteLLMTransport) -> None:
    async with serving(gemini(PART, LAST)) as base_url:
        stream = await transport.open(prepared(base_url))
        deltas, error = await drain(stream)
    assert (text_of(deltas), error) == ("Grüezi mitenand", None)
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage is not None
    assert (deltas[-1].usage.input_tokens, deltas[-1].usage.cache_read_tokens) == (5, 4)
    assert stream.headers["x-provider-simulator"] == "1"


@pytest.mark.parametrize(("then", "kind"), [("end", StreamTruncated), ("break", MidStreamError)])
async def test_another_providers_stream_that_stops_in_the_middle_is_an_error_that_keeps_the_text(
    then: str, kind: type[ModelError], transport: LiteLLMTransport
) -> None:
    async with serving(gemini(PART, then=then)) as base_url:
        deltas, error = await drain(await transport.open(prepared(base_url)))
    assert text_of(deltas) == "Grüezi "
    assert type(error) is kind


MISTRAL = '{{"id":"m","object":"chat.completion.chunk","created":1,"model":"m","choices":[{}]}}'
SAID = MISTRAL.format('{"index":0,"delta":{"role":"assistant","content":"Bonjour"},"finish_reason":null}')
END = MISTRAL.format('{"index":0,"delta":{},"finish_reason":"stop"}')


@pytest.mark.parametrize(("sent", "kind"), [((SAID, END, "[DONE]"), None), ((SAID,), StreamTruncated)])
async def test_an_answer_in_another_dialect_is_whole_only_with_its_end(
    sent: tuple[str, ...], kind: type[ModelError] | None, transport: LiteLLMTransport
) -> None:
    events = [f"data: {data}\n" for data in sent]
    async with serving(lines(*events, content_type="text/event-stream")) as base_url:
        deltas, error = await drain(await transport.open(prepared(base_url, "mistral/mistral-small")))
    assert text_of(deltas) == "Bonjour"
    assert (type(error) if error is not None else None) is kind


async def test_another_providers_silence_is_a_time_out_that_keeps_the_text(transport: LiteLLMTransport) -> None:
    async with serving(gemini(PART, then="wait")) as base_url:
        call = prepared(base_url, timeouts=TimeoutSettings(first_event=30, between_events=0.2))
        deltas, error = await drain(await transport.open(call))
    assert text_of(deltas) == "Grüezi "
    assert isinstance(error, ModelTimeoutError)
    assert error.phase == "between_events"


async def test_leaving_another_providers_answer_closes_its_socket(transport: LiteLLMTransport) -> None:
    left = asyncio.Event()

    async def watched(request: web.Request) -> web.StreamResponse:
        try:
            return await gemini(PART, then="wait")(request)
        except asyncio.CancelledError:
            left.set()
            raise

    async with serving(watched) as base_url:
        stream = await transport.open(prepared(base_url))
        assert await stream.read()
        await stream.aclose()
        await asyncio.wait_for(left.wait(), 0.5)


async def test_another_providers_refusals_and_web_pages_are_typed_errors(transport: LiteLLMTransport) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        if "page" in str(request.url):
            return web.Response(text="<html>", content_type="text/html")
        body = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        return web.json_response(body, status=503, headers={"retry-after": "7"})

    async with serving(refuse) as base_url:
        with pytest.raises(ProviderUnavailableError, match="overloaded") as caught:
            await transport.open(prepared(base_url))
        with pytest.raises(MalformedResponseError):
            await transport.open(prepared(f"{base_url}/page"))
    assert (caught.value.status, caught.value.retry_after) == (503, 7.0)


async def test_a_provider_with_connections_of_litellms_own_fails_with_a_typed_error(
    transport: LiteLLMTransport,
) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        body = {"error": {"message": f"wrong key {KEY}", "type": "invalid_request_error", "code": "invalid_api_key"}}
        return web.json_response(body, status=401)

    async with serving(refuse) as base_url:
        with pytest.raises(AuthenticationError) as caught:
            await transport.open(prepared(f"{base_url}/v1", "cerebras/llama-9"))
    assert caught.value.status == 401
    assert KEY not in str(caught.value)
    with pytest.raises(ProviderUnreachableError):
        await transport.open(prepared("http://127.0.0.1:1/v1", "cerebras/llama-9"))

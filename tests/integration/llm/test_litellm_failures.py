"""Every failure of a provider, seen through LiteLLM, is the typed error that the wire says."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
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
    ModelNotFoundError,
    ModelTimeoutError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
    StreamTruncated,
    UnknownModelError,
)
from guidance_agent.llm.messages import Delta, Message, ModelRequest
from guidance_agent.llm.providers.base import CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports.base import PreparedCall, TransportStream
from guidance_agent.llm.transports.litellm import LiteLLMTransport
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script, SimulatorSettings
from guidance_agent.settings import Settings, TimeoutSettings

# What pydantic says about LiteLLM's own models, when it builds and reads them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
KEY = "sk-test-very-secret-0123456789"
QUESTION = "My name is Gwendolyn Ap Rhys and my pot is £31,415."
MODELS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6-luna"}
BOTH = pytest.mark.parametrize("provider", sorted(MODELS))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[LiteLLMTransport]:
    opened = LiteLLMTransport(Settings())
    yield opened
    await opened.aclose()


def prepared(
    base_url: str | None, provider: str, model: str | None = None, timeouts: TimeoutSettings | None = None
) -> PreparedCall:
    wire: Any = provider if provider in MODELS else None
    return PreparedCall(
        request=ModelRequest(
            model=f"{provider}/{model or MODELS[provider]}", messages=(Message("user", QUESTION),), max_tokens=300
        ),
        endpoint=Endpoint(
            provider=provider,
            base_url=f"{base_url}/v1" if base_url and provider == "openai" else base_url,
            wire=wire,
            api_key=KEY,
        ),
        traits=ModelTraits(),
        plan=CachePlan(caching="none"),
        timeouts=timeouts or TimeoutSettings(first_event=30),
    )


async def drain(stream: TransportStream) -> tuple[str, ModelError | None]:
    """Read to the end; the text and the error that ended it."""
    deltas: list[Delta] = []
    try:
        while (arrived := await stream.read()) is not None:
            deltas.extend(arrived)
    except ModelError as error:
        return "".join(delta.text for delta in deltas), error
    finally:
        await stream.aclose()
    return "".join(delta.text for delta in deltas), None


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


STATUSES: list[tuple[int, type[ModelError], bool]] = [
    (400, RequestRejectedError, False),
    (401, AuthenticationError, False),
    (402, PermissionDeniedError, False),
    (403, PermissionDeniedError, False),
    (404, ModelNotFoundError, False),
    (409, ProviderUnavailableError, True),
    (413, RequestRejectedError, False),
    (422, RequestRejectedError, False),
    (429, RateLimitedError, True),
    (500, ProviderUnavailableError, True),
    (502, ProviderUnavailableError, True),
    (503, ProviderUnavailableError, True),
    (529, ProviderUnavailableError, True),
]


@BOTH
@pytest.mark.parametrize(("status", "kind", "retryable"), STATUSES)
async def test_a_status_decides_class_retry_and_wait_and_is_asked_for_once(
    provider: str,
    status: int,
    kind: type[ModelError],
    retryable: bool,
    simulator: ProviderSimulator,
    transport: LiteLLMTransport,
) -> None:
    simulator.faults.add(Fault(kind="status", status=status, retry_after=7, times=None))
    with pytest.raises(kind) as caught:
        await transport.open(prepared(simulator.base_url, provider))
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.retryable) == (status, retryable)
    assert error.retry_after == (7.0 if retryable else None)
    assert error.request_id == simulator.requests[-1].request_id
    assert len(simulator.requests) == 1


@BOTH
async def test_the_status_counts_and_not_the_words_of_the_body(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    words = "rate_limit_exceeded: insufficient_quota, context_length_exceeded"
    simulator.faults.add(
        Fault(kind="status", status=401, message=words), Fault(kind="status", status=503, message=words)
    )
    with pytest.raises(AuthenticationError):
        await transport.complete(prepared(simulator.base_url, provider))
    with pytest.raises(ProviderUnavailableError):
        await transport.complete(prepared(simulator.base_url, provider))


async def test_a_quota_that_is_used_up_is_not_retried(
    simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="status", status=429, insufficient_quota=True))
    with pytest.raises(QuotaExhaustedError) as caught:
        await transport.open(prepared(simulator.base_url, "openai"))
    assert not caught.value.retryable


@BOTH
async def test_nobody_listening_is_unreachable(provider: str, transport: LiteLLMTransport) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ProviderUnreachableError) as caught:
            await transport.open(prepared(f"http://127.0.0.1:{port}", provider))
    assert caught.value.retryable


@BOTH
async def test_a_connection_that_is_not_accepted_times_out_as_connect(
    provider: str, transport: LiteLLMTransport
) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        call = prepared(f"http://127.0.0.1:{full.getsockname()[1]}", provider, timeouts=TimeoutSettings(connect=0.3))
        with pytest.raises(ModelTimeoutError) as caught:
            await transport.open(call)
    assert caught.value.phase == "connect"


@BOTH
async def test_a_request_that_is_dropped_is_not_sent_again(provider: str, transport: LiteLLMTransport) -> None:
    asked = []

    async def drop(request: web.Request) -> web.StreamResponse:
        asked.append(await request.read())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(drop) as base_url:
        with pytest.raises(ProviderUnreachableError):
            await transport.open(prepared(base_url, provider))
    assert len(asked) == 1


@BOTH
async def test_slow_headers_time_out_as_first_event_and_are_asked_for_once(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="slow_headers", times=None))
    with pytest.raises(ModelTimeoutError) as caught:
        await transport.open(prepared(simulator.base_url, provider, timeouts=TimeoutSettings(first_event=0.5)))
    assert caught.value.phase == "first_event"
    assert len(simulator.requests) == 1


@BOTH
async def test_a_stall_times_out_between_events_and_keeps_the_text(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    pieces = ("One ", "two ", "three ", "four")
    simulator.faults.add(Fault(kind="stall", after_chunks=2, script=Script(pieces=pieces)))
    call = prepared(simulator.base_url, provider, timeouts=TimeoutSettings(between_events=0.3))
    text, error = await drain(await transport.open(call))
    assert isinstance(error, ModelTimeoutError)
    assert error.phase == "between_events"
    assert text


@BOTH
async def test_time_that_the_caller_takes_counts_for_no_timeout(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.script(pieces=["a "] * 20)
    limits = TimeoutSettings(first_event=1.0, between_events=0.2, without_content=0.2)
    stream = await transport.open(prepared(simulator.base_url, provider, timeouts=limits))
    assert await stream.read()
    slow = asyncio.Event()
    asyncio.get_running_loop().call_later(0.6, slow.set)
    await slow.wait()
    text, error = await drain(stream)
    assert error is None
    assert text.count("a ") >= 19


def _anthropic_stream(pings: int, *, then_answer: bool) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def send(kind: str, **fields: Any) -> None:
            data = json.dumps({"type": kind, **fields})
            await response.write(f"event: {kind}\ndata: {data}\n\n".encode())

        usage = {"input_tokens": 5, "output_tokens": 1}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
        await send("message_start", message=message)
        await send("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for _ in range(pings):
            await send("ping")
            await asyncio.sleep(0.05)
        if then_answer:
            await send("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
            await send("content_block_stop", index=0)
            await send("message_delta", delta={"stop_reason": "pause_turn"}, usage={"output_tokens": 2})
            await send("message_stop")
        return response

    return answer


async def test_pings_are_signs_of_life(transport: LiteLLMTransport) -> None:
    limits = TimeoutSettings(first_event=10, between_events=0.4, without_content=20)
    async with serving(_anthropic_stream(pings=20, then_answer=True)) as base_url:
        text, error = await drain(await transport.open(prepared(base_url, "anthropic", timeouts=limits)))
    assert (text, error) == ("Hello", None)


async def test_pings_alone_do_not_keep_a_stream_alive_for_ever(transport: LiteLLMTransport) -> None:
    limits = TimeoutSettings(first_event=10, between_events=5, without_content=0.5)
    async with serving(_anthropic_stream(pings=100, then_answer=True)) as base_url:
        _, error = await drain(await transport.open(prepared(base_url, "anthropic", timeouts=limits)))
    assert isinstance(error, ModelTimeoutError)
    assert error.phase == "without_content"


async def test_a_pause_is_a_pause(transport: LiteLLMTransport) -> None:
    async with serving(_anthropic_stream(pings=0, then_answer=True)) as base_url:
        stream = await transport.open(prepared(base_url, "anthropic"))
        deltas: list[Delta] = []
        while (arrived := await stream.read()) is not None:
            deltas.extend(arrived)
    assert deltas[-1].finish_reason == "pause"


@BOTH
async def test_a_clean_end_without_the_terminal_event_is_a_truncation(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="truncate", after_chunks=3))
    text, error = await drain(await transport.open(prepared(simulator.base_url, provider)))
    assert isinstance(error, StreamTruncated)
    assert error.retryable
    assert text


@BOTH
@pytest.mark.parametrize("abrupt", [True, False])
async def test_a_dropped_connection_is_a_mid_stream_error(
    provider: str, abrupt: bool, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="drop", after_chunks=3, abrupt=abrupt))
    text, error = await drain(await transport.open(prepared(simulator.base_url, provider)))
    assert type(error) is MidStreamError
    assert error.retryable
    assert text


@BOTH
@pytest.mark.parametrize(("status", "retryable"), [(529, True), (429, True), (400, False)])
async def test_an_error_event_keeps_the_providers_own_code(
    provider: str, status: int, retryable: bool, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="error_event", after_chunks=3, status=status))
    text, error = await drain(await transport.open(prepared(simulator.base_url, provider)))
    assert type(error) is MidStreamError
    assert error.retryable is retryable
    assert error.code
    assert text


@BOTH
async def test_garbage_in_the_stream_is_never_a_complete_answer(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="garbage", after_chunks=3))
    text, error = await drain(await transport.open(prepared(simulator.base_url, provider)))
    # LiteLLM takes the garbage for the beginning of an Anthropic event whose rest never comes.
    assert type(error) is (StreamTruncated if provider == "anthropic" else MalformedResponseError)
    assert "502" not in text


async def test_a_stream_spliced_into_an_anthropic_one_passes_as_litellm_lets_it(
    simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="splice", after_chunks=3))
    _, error = await drain(await transport.open(prepared(simulator.base_url, "anthropic")))
    assert error is None


@BOTH
async def test_a_web_page_is_malformed(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="wrong_content_type", times=None))
    with pytest.raises(MalformedResponseError):
        await transport.open(prepared(simulator.base_url, provider))
    with pytest.raises(MalformedResponseError):
        await transport.complete(prepared(simulator.base_url, provider))


@BOTH
async def test_a_redirect_is_not_followed(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport
) -> None:
    simulator.faults.add(Fault(kind="redirect", location="http://127.0.0.1:1/"))
    with pytest.raises(ProviderUnreachableError) as caught:
        await transport.open(prepared(simulator.base_url, provider))
    assert caught.value.status == 307


async def test_a_provider_that_litellm_does_not_know_is_named(transport: LiteLLMTransport) -> None:
    with pytest.raises(UnknownModelError, match=r"'nosuch'.*providers\.nosuch\.wire"):
        await transport.open(prepared(None, "nosuch", "model-1"))


async def test_another_providers_stream_is_read_without_an_address_format_of_ours(transport: LiteLLMTransport) -> None:
    async def gemini(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-provider-simulator": "1"})
        await response.prepare(request)
        part = {"content": {"role": "model", "parts": [{"text": "Grüezi "}]}, "index": 0}
        last = {"content": {"role": "model", "parts": [{"text": "mitenand"}]}, "index": 0, "finishReason": "STOP"}
        usage = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12, "cachedContentTokenCount": 4}
        for event in ({"candidates": [part]}, {"candidates": [last], "usageMetadata": usage}):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        return response

    async with serving(gemini) as base_url:
        stream = await transport.open(prepared(base_url, "gemini", "gemini-3.6-flash"))
        deltas: list[Delta] = []
        while (arrived := await stream.read()) is not None:
            deltas.extend(arrived)
        await stream.aclose()
    assert "".join(delta.text for delta in deltas) == "Grüezi mitenand"
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage is not None
    assert (deltas[-1].usage.input_tokens, deltas[-1].usage.cache_read_tokens) == (5, 4)
    assert stream.headers["x-provider-simulator"] == "1"


async def test_a_provider_with_connections_of_litellms_own_fails_with_a_typed_error(
    transport: LiteLLMTransport,
) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        body = {"error": {"message": f"wrong key {KEY}", "type": "invalid_request_error", "code": "invalid_api_key"}}
        return web.json_response(body, status=401)

    async with serving(refuse) as base_url:
        with pytest.raises(AuthenticationError) as caught:
            await transport.open(prepared(f"{base_url}/v1", "cerebras", "llama-9"))
    assert caught.value.status == 401
    assert KEY not in str(caught.value)
    with pytest.raises(ProviderUnreachableError):
        await transport.open(prepared("http://127.0.0.1:1/v1", "cerebras", "llama-9"))


@BOTH
async def test_neither_key_nor_question_is_in_an_error_or_a_log_line(
    provider: str, simulator: ProviderSimulator, transport: LiteLLMTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []
    simulator.faults.add(Fault(kind="status", status=401, message=f"Incorrect API key provided: {KEY}"))
    with pytest.raises(ModelError) as caught:
        await transport.open(prepared(simulator.base_url, provider))
    errors.append(caught.value)
    for kind in ("error_event", "drop", "garbage", "truncate"):
        simulator.faults.add(Fault(kind=kind, after_chunks=2))
        _, error = await drain(await transport.open(prepared(simulator.base_url, provider)))
        assert error is not None
        errors.append(error)
    _, error = await drain(await transport.open(prepared(simulator.base_url, provider)))
    assert error is None
    said = caplog.text + "".join("".join(traceback.format_exception(each)) for each in errors)
    for secret in (KEY, "Gwendolyn", "31,415"):
        assert secret not in said

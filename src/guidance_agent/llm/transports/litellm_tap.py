"""A tap at the bottom of LiteLLM's HTTP clients: what really happened on the wire, before LiteLLM words it anew.

LiteLLM turns statuses into other statuses, hides response headers, sends a request again when a connection cannot be
made, and leaves sockets open. The tap sees status, headers and bytes first. It decides the error of a refused request,
reads answers in a wire format of ours before LiteLLM does (see `litellm_wire`), notes pings as signs of life, and can
close the answer whatever LiteLLM does.

Importing this module imports LiteLLM: only `litellm_import` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import aiohttp
import httpx
import litellm
import openai

# The SDK imports these on first use, which takes a second that the event loop would wait.
import openai.resources.beta
import openai.resources.chat
import openai.resources.embeddings
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, get_ssl_configuration

from guidance_agent.errors import ModelError, ProviderUnreachableError
from guidance_agent.llm.transports.failures import Origin, error_of_response, malformed, request_id_of
from guidance_agent.llm.transports.http import (
    ERROR_BODY_SECONDS,
    LONGEST_BODY,
    LONGEST_ERROR_BODY,
    connection_lost,
    not_http,
    raise_timeout,
)
from guidance_agent.llm.transports.litellm_body import TappedBody
from guidance_agent.llm.transports.litellm_wire import ReadWhole, StreamWatch, Whole, WireName
from guidance_agent.settings import TimeoutSettings

__all__ = ["Clients", "Tap"]

_SETTLE_SECONDS = 2.0
# Tasks that LiteLLM starts at the end of an answer and nobody owns.
_AFTERMATH = ("Logging.", "CustomStreamWrapper.")
# Tasks in which the event loop finalises the generators between LiteLLM and the socket, one after the other.
_FINALISED = "async_generator_athrow"
_QUIET_TURNS = 3

_current: ContextVar[Tap | None] = ContextVar("litellm_tap", default=None)


class Tap:
    """What one call saw on the wire.

    Args:
        origin: The call, for error messages.
        timeouts: Its limits.
        stream: The wire format of an answer that is streamed, if it is one of ours.
        whole: Reads an answer that is not streamed, if it is in a wire format of ours.
        end: What the end of an answer that is streamed in another format looks like, if that is known.

    Attributes:
        failure: The error that the call ends with, decided by status or connection; LiteLLM's own is then ignored.
        headers: The response's headers with lower-case names; empty while there is no response, or no tap in its way.
        body: The body of the response, once there is one.
        said: What an answer that is not streamed says, if it is in a wire format of ours.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: TimeoutSettings,
        *,
        stream: WireName | None = None,
        whole: ReadWhole | None = None,
        end: re.Pattern[bytes] | None = None,
    ) -> None:
        self.origin = origin
        self.timeouts = timeouts
        self.failure: ModelError | None = None
        self.headers: Mapping[str, str] = {}
        self.body: TappedBody | None = None
        self.said: Whole | None = None
        self._stream = stream
        self._whole = whole
        self._end = end

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Make requests that are sent from here on report to this tap."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    async def note(self, response: httpx.Response) -> None:
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.origin = replace(self.origin, request_id=request_id_of(self.headers))
        if not isinstance(response.stream, httpx.AsyncByteStream):
            return
        self.body = body = TappedBody(response.stream, self.headers.get("content-encoding", ""), self._end)
        response.stream = body
        if body.readable:
            # What is read from here on is unpacked.
            response.headers.pop("content-encoding", None)
        if not response.is_success:
            try:
                async with asyncio.timeout(ERROR_BODY_SECONDS):
                    await body.start(LONGEST_ERROR_BODY)
            except TimeoutError:
                await body.end()
            self.failure = error_of_response(self.origin, response.status_code, self.headers, body.started)
        elif not body.readable:
            self.failure = malformed(
                self.origin, f"is packed as {self.headers['content-encoding']!r}, which is unknown"
            )
        elif self._stream is not None:
            body.watch = StreamWatch(self._stream, self.origin, self.headers.get("content-type", ""))
        elif self._whole is not None:
            await self._read_whole(body, self._whole)
        elif self.headers.get("content-type", "").startswith("text/html"):
            # LiteLLM would take a web page for an answer without words.
            self.failure = malformed(self.origin, "is a web page")
        if self.failure is not None:
            await body.end()

    async def _read_whole(self, body: TappedBody, read: ReadWhole) -> None:
        await body.start(LONGEST_BODY)
        if body.broken is not None:
            self.failure = connection_lost(self.origin, body.broken)
        elif len(body.started) >= LONGEST_BODY:
            self.failure = malformed(self.origin, f"is longer than {LONGEST_BODY} bytes")
        else:
            try:
                self.said, body.started = read(body.started, self.headers, self.origin)
            except ModelError as error:
                self.failure = error


class _TappedTransport(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        tap = _current.get()
        if tap is None:
            return await self._inner.handle_async_request(request)
        connect = tap.timeouts.connect
        # LiteLLM applies one time-out to everything for some providers; silence is watched above, not here.
        request.extensions["timeout"] = {"connect": connect, "pool": connect, "read": None, "write": None}
        request.headers["accept-encoding"] = "identity"
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.RequestError as error:
            tap.failure = _no_answer(tap, error)
            # LiteLLM sends a request again after a ConnectError or a RemoteProtocolError; this one it lets through.
            raise httpx.NetworkError(type(error).__name__, request=request) from error
        await tap.note(response)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def _no_answer(tap: Tap, error: httpx.RequestError) -> ModelError:
    origin = tap.origin
    if isinstance(error.__cause__, aiohttp.ClientResponseError):
        return not_http(origin, error.__cause__)
    if isinstance(error, httpx.TimeoutException):
        try:
            raise_timeout(origin, "connect", tap.timeouts.connect, None)
        except ModelError as timeout:
            return timeout
    return ProviderUnreachableError(
        f"No answer from {origin.provider} at {origin.base_url!r} for {origin.model!r}: "
        f"{origin.clean(str(error) or type(error).__name__)}. Check the address and the network.",
        provider=origin.provider,
        model=origin.model,
    )


def _tls() -> dict[str, Any]:
    configured = get_ssl_configuration()
    return {
        "ssl_context": configured if isinstance(configured, ssl.SSLContext) else None,
        "ssl_verify": configured if isinstance(configured, bool) else None,
    }


class Clients:
    """The HTTP clients that LiteLLM is given, all over one session with its connections, tapped.

    Closed with `aclose`, which closes the session, too.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        inner = AsyncHTTPHandler.create_aiohttp_transport(**_tls(), shared_session=session)
        transport = _TappedTransport(inner)
        self.handler = AsyncHTTPHandler(transport=transport, follow_redirects=False)
        self._http = self.handler.client
        # Set anew, so that the handler does not take it for its own to close, in a task, when it is collected.
        self.handler.client = self._http
        self._sdk: dict[tuple[str, str], openai.AsyncOpenAI] = {}

    def sdk(self, base_url: str, api_key: str | None) -> openai.AsyncOpenAI:
        """Return the OpenAI client for an address and a key; LiteLLM ignores both once it is given a client."""
        key = (base_url, api_key or "")
        if key not in self._sdk:
            self._sdk[key] = openai.AsyncOpenAI(
                api_key=api_key or "none", base_url=base_url, http_client=self._http, max_retries=0
            )
        return self._sdk[key]

    async def aclose(self) -> None:
        self._sdk.clear()
        await self._http.aclose()
        await self._session.close()

    async def settle(self, *, own_connections: bool) -> None:
        """Do what the function of this name does."""
        await settle(own_connections=own_connections)


async def settle(*, own_connections: bool) -> None:
    """End LiteLLM's background work on this event loop, and the connections it made by itself if it did."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            quiet = 0
            while quiet < _QUIET_TURNS:
                pending = [task for task in asyncio.all_tasks(loop) if _is_aftermath(task)]
                quiet = 0 if pending else quiet + 1
                await (asyncio.wait(pending) if pending else asyncio.sleep(0))
    worker = GLOBAL_LOGGING_WORKER
    if worker._bound_loop is loop:
        await worker.stop()
    if own_connections:
        await _close_cached(loop)


def _is_aftermath(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return type(coroutine).__name__ == _FINALISED or getattr(coroutine, "__qualname__", "").startswith(_AFTERMATH)


async def _close_cached(loop: asyncio.AbstractEventLoop) -> None:
    cache = litellm.in_memory_llm_clients_cache
    for key in [key for key in cache.cache_dict if key.endswith(f"-{id(loop)}")]:
        client = cache.cache_dict.pop(key)
        cache.ttl_dict.pop(key, None)
        close = getattr(client, "close", None) or getattr(client, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()

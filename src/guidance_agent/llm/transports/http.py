"""One HTTP session for a wire format: requests, statuses and connection failures, without anything a provider says.

Importing this module imports aiohttp, which takes a few hundred milliseconds; the gateway does so on first use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_proto import ResponseHandler

from guidance_agent.errors import (
    MidStreamError,
    ModelError,
    ModelTimeoutError,
    ProviderUnreachableError,
    TimeoutPhase,
)
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batch import load_object
from guidance_agent.llm.transports.failures import Origin, error_of_response, malformed, request_id_of

__all__ = [
    "ERROR_BODY_SECONDS",
    "LINGER_SECONDS",
    "LONGEST_BODY",
    "LONGEST_ERROR_BODY",
    "HttpSession",
    "connection_lost",
    "lower_case",
    "not_http",
    "open_session",
    "proxy_for",
    "raise_timeout",
    "take_buffered",
]

LONGEST_BODY = 128 * 1024 * 1024
"""Longest answer that is not streamed, in bytes."""

LONGEST_ERROR_BODY = 64 * 1024
"""How much of the body of a refused request is read, in bytes."""

ERROR_BODY_SECONDS = 2.0
"""How long it is waited for."""

LINGER_SECONDS = 0.25
"""How long a body whose content is complete may take to end before its connection is given up."""

_LONG_BODY = 512 * 1024
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class HttpSession:
    """Keeps connections to providers open between calls. Opened on first use, closed with `aclose`."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._lingering: dict[aiohttp.ClientResponse, asyncio.TimerHandle] = {}

    async def post(
        self, call: PreparedCall, path: str, headers: Mapping[str, str], body: Mapping[str, Any], *, stream: bool
    ) -> tuple[aiohttp.ClientResponse, Origin]:
        """Send `body` and return the response once its status is known to be 2xx.

        Raises:
            ModelError: of the class that status, connection failure or silence means.
        """
        base_url = (call.endpoint.base_url or "").rstrip("/")
        origin = Origin(call.endpoint.provider, call.request.model, base_url, secret=call.endpoint.api_key)
        limits = call.timeouts
        phase: TimeoutPhase = "first_event" if stream else "turn"
        seconds = limits.first_event if stream else limits.turn
        try:
            async with asyncio.timeout(seconds):
                response = await self._opened().post(
                    base_url + path,
                    data=_encoded(body),
                    headers={
                        "content-type": "application/json",
                        "accept": "text/event-stream" if stream else "application/json",
                        **headers,
                        **call.endpoint.headers,
                    },
                    allow_redirects=False,
                    proxy=proxy_for(base_url),
                    timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect),
                )
                origin = _with_request_id(origin, response)
                if 200 <= response.status < 300:
                    return response, origin
                body_read = await _error_body(response)
        except (aiohttp.ConnectionTimeoutError, aiohttp.SocketTimeoutError) as error:
            raise_timeout(origin, "connect", limits.connect, error)
        except TimeoutError as error:
            raise_timeout(origin, phase, seconds, error)
        except aiohttp.ClientResponseError as error:
            raise not_http(origin, error) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(origin, error) from error
        raise error_of_response(origin, response.status, lower_case(response), body_read)

    async def post_json(
        self, call: PreparedCall, path: str, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Mapping[str, str], Origin]:
        """Send `body` and return the JSON object of the answer, its headers and where it came from."""
        response, origin = await self.post(call, path, headers, body, stream=False)
        try:
            async with asyncio.timeout(call.timeouts.turn):
                data = await _whole_body(response, origin)
            return load_object(data), lower_case(response), origin
        except TimeoutError as error:
            raise_timeout(origin, "turn", call.timeouts.turn, error)
        except (aiohttp.ClientError, OSError) as error:
            raise connection_lost(origin, error) from error
        except ValueError as error:
            raise malformed(origin, f"begins with {data[:200]!r} ({error})") from error
        finally:
            response.close()

    def linger(self, response: aiohttp.ClientResponse) -> None:
        """Give a body whose content is complete a moment to end, so that its connection can be used again."""
        loop = asyncio.get_running_loop()
        self._lingering[response] = loop.call_later(LINGER_SECONDS, self._end_lingering, response)

    def _end_lingering(self, response: aiohttp.ClientResponse) -> None:
        self._lingering.pop(response).cancel()
        if not response.closed:
            response.close()

    async def aclose(self) -> None:
        for response in tuple(self._lingering):
            self._end_lingering(response)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session()
        return self._session


def open_session() -> aiohttp.ClientSession:
    """Return a new session for the running event loop; it keeps no cookies and reads no environment."""
    return aiohttp.ClientSession(connector=_Connector(), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


class _Connector(aiohttp.TCPConnector):
    def __init__(self) -> None:
        # The number of calls at a time is the rate limiter's business; a pool that queues would hide it.
        super().__init__(limit=0, keepalive_timeout=30.0)
        self._factory = cast("partial[ResponseHandler]", partial(_Protocol, loop=self._loop))


class _Protocol(ResponseHandler):
    """Tells whoever reads a body that it broke.

    When the framing of a body breaks, aiohttp closes the connection and lets the read wait; when a connection is reset
    under a body that ends with it, aiohttp calls that the end.
    """

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        self._break_off(exc)
        super().set_exception(exc, *cause)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None:
            self._break_off(exc)
        super().connection_lost(exc)

    def _break_off(self, why: BaseException) -> None:
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError(f"Response payload cannot be read: {why!r}"))


def take_buffered(content: aiohttp.StreamReader) -> bytes:
    """Return what has arrived and was not read yet.

    `read_nowait` refuses to give out what arrived before the connection broke; that text is the customer's.
    """
    # A body that cannot have content has no buffer either.
    return content._read_nowait(-1) if getattr(content, "_buffer", None) else b""


def not_http(origin: Origin, error: aiohttp.ClientResponseError) -> ModelError:
    """Return the error for bytes that are not an HTTP response."""
    return malformed(origin, f"is not valid HTTP ({error.message})")


def _encoded(body: Mapping[str, Any]) -> bytes | BytesIO:
    data = _ENCODER.encode(body).encode("utf-8", "replace")
    # A long body goes out in pieces, so that writing it does not hold up the other streams.
    return data if len(data) < _LONG_BODY else BytesIO(data)


def lower_case(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the response's headers with lower-case names."""
    return {name.lower(): value for name, value in response.headers.items()}


def connection_lost(origin: Origin, error: Exception) -> ModelError:
    """Return the error for a connection that broke while the answer was read."""
    return MidStreamError(
        f"The connection to {origin.provider} at {origin.base_url!r} broke while {origin.model!r} was answering "
        f"({type(error).__name__}). Ask again later.",
        provider=origin.provider,
        model=origin.model,
        request_id=origin.request_id,
    )


def raise_timeout(origin: Origin, phase: TimeoutPhase, seconds: float, cause: BaseException | None) -> NoReturn:
    """Raise the time-out of `phase`, which allows `seconds`."""
    what = {
        "connect": "did not accept a connection",
        "first_event": "sent no first event",
        "between_events": "sent nothing after its last event",
        "without_content": "sent signs of life but no content",
        "turn": "did not finish its answer",
    }[phase]
    raise ModelTimeoutError(
        f"{origin.provider} at {origin.base_url!r} {what} for {origin.model!r} within {seconds:g} s. "
        f"Ask again later, or raise the time-out {phase!r}.",
        phase=phase,
        provider=origin.provider,
        model=origin.model,
    ) from cause


@lru_cache(maxsize=64)
def proxy_for(base_url: str) -> str | None:
    """Return the proxy that the environment names for `base_url`; never one for this machine itself.

    aiohttp's own reading of the environment would also take credentials from a `.netrc` file.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return None
    return None if proxy_bypass(host) else getproxies().get(parts.scheme)


def _with_request_id(origin: Origin, response: aiohttp.ClientResponse) -> Origin:
    return Origin(origin.provider, origin.model, origin.base_url, request_id_of(response.headers), origin.secret)


async def _whole_body(response: aiohttp.ClientResponse, origin: Origin) -> bytes:
    pieces, size = [], 0
    while piece := await response.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST_BODY:
            raise malformed(origin, f"is longer than {LONGEST_BODY} bytes")
    return b"".join(pieces)


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    # The status has arrived and says more than a body that does not: neither a broken nor a silent one replaces it.
    try:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(ERROR_BODY_SECONDS):
                while sum(map(len, pieces)) < LONGEST_ERROR_BODY and (piece := await response.content.readany()):
                    pieces.append(piece)
    finally:
        response.close()
    return b"".join(pieces)[:LONGEST_ERROR_BODY]


def _unreachable(origin: Origin, error: Exception) -> ModelError:
    if isinstance(error, aiohttp.InvalidURL | aiohttp.InvalidUrlClientError | ValueError):
        advice, retryable = "Correct the base URL", False
    elif isinstance(error, aiohttp.ClientSSLError):
        advice, retryable = "Check the address and its certificate", False
    else:
        advice, retryable = "Check the address and the network", True
    return ProviderUnreachableError(
        f"No answer from {origin.provider} at {origin.base_url!r} for {origin.model!r}: "
        f"{origin.clean(str(error) or type(error).__name__)}. {advice}.",
        provider=origin.provider,
        model=origin.model,
        retryable=retryable,
    )

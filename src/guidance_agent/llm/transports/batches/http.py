"""Requests about batches and files: long bodies up, long bodies down, neither of them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from guidance_agent.errors import MidStreamError, ModelError, ProviderUnreachableError
from guidance_agent.llm.transports.batch import load_object
from guidance_agent.llm.transports.batches.base import BatchPlace
from guidance_agent.llm.transports.failures import Origin, error_of_response, malformed, request_id_of
from guidance_agent.llm.transports.http import (
    ERROR_BODY_SECONDS,
    LONGEST_BODY,
    LONGEST_ERROR_BODY,
    connection_lost,
    lower_case,
    not_http,
    open_session,
    proxy_for,
    raise_timeout,
)

__all__ = ["SIMULATOR_HEADER", "BatchHttp", "lines_of"]

LONGEST_ROW = 32 * 1024 * 1024
"""Longest row of results that is read, in bytes."""

SIMULATOR_HEADER = "x-provider-simulator"

_SILENCE = 60.0
"""Seconds without a byte after which a body counts as broken."""


class BatchHttp:
    """One session for all requests of a batch API; opened on first use, closed with `aclose`."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def json(
        self,
        place: BatchPlace,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        content_type: str | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        Raises:
            ModelError: of the class that status, connection failure or silence means.
        """
        if content_type is not None:
            headers = {**headers, "content-type": content_type}
        async with self._opened(place, method, path, headers, params=params, data=data) as (response, origin):
            raw = bytearray()
            while piece := await response.content.readany():
                raw += piece
                if len(raw) > LONGEST_BODY:
                    raise malformed(origin, f"is longer than {LONGEST_BODY} bytes")
            try:
                return load_object(bytes(raw))
            except ValueError as error:
                raise malformed(origin, f"begins with {bytes(raw[:200])!r} ({error})") from error

    @asynccontextmanager
    async def lines(
        self, place: BatchPlace, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[AsyncIterator[bytes], Origin, bool]]:
        """Open a body of lines; yields its lines, where it came from, and whether the simulator sent it."""
        async with self._opened(place, "GET", path, headers) as (response, origin):
            yield lines_of(response.content.iter_any(), origin), origin, SIMULATOR_HEADER in lower_case(response)

    @asynccontextmanager
    async def _opened(
        self,
        place: BatchPlace,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        params: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Origin]]:
        endpoint = place.endpoint
        base_url = (endpoint.base_url or "").rstrip("/")
        origin = Origin(endpoint.provider, "a batch", base_url, secret=endpoint.api_key)
        if self._session is None:
            self._session = open_session()
        answered = False
        try:
            async with self._session.request(
                method,
                base_url + path,
                params=params,
                data=data,
                headers={"accept": "application/json", **headers, **endpoint.headers},
                allow_redirects=False,
                proxy=proxy_for(base_url),
                timeout=aiohttp.ClientTimeout(total=None, connect=place.timeouts.connect, sock_read=_SILENCE),
            ) as response:
                origin = Origin(origin.provider, origin.model, base_url, request_id_of(response.headers), origin.secret)
                if not 200 <= response.status < 300:
                    raise error_of_response(origin, response.status, lower_case(response), await _beginning(response))
                answered = True
                yield response, origin
        except aiohttp.ConnectionTimeoutError as error:
            raise_timeout(origin, "connect", place.timeouts.connect, error)
        except (aiohttp.SocketTimeoutError, TimeoutError) as error:
            raise_timeout(origin, "between_events" if answered else "first_event", _SILENCE, error)
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise _never_connected(origin, error) from error
        except aiohttp.ClientResponseError as error:
            raise not_http(origin, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise (connection_lost(origin, error) if answered else _no_answer(origin, error)) from error


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return what there is of the body of a refusal; its status says enough without."""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            return await response.content.read(LONGEST_ERROR_BODY)
    except (aiohttp.ClientError, TimeoutError):
        return b""


async def lines_of(pieces: AsyncIterable[bytes], origin: Origin) -> AsyncIterator[bytes]:
    """Yield the lines, without their ends, of a body that comes in pieces, one of them in memory.

    Raises:
        MalformedResponseError: a line is longer than a row may be.
    """
    held = bytearray()
    async for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            held += piece[start:end]
            yield bytes(held)
            held.clear()
            start = end + 1
        held += piece[start:]
        if len(held) > LONGEST_ROW:
            raise malformed(origin, f"has a row of more than {LONGEST_ROW} bytes")
    if held:
        yield bytes(held)


def _never_connected(origin: Origin, error: Exception) -> ModelError:
    return ProviderUnreachableError(
        f"No connection to {origin.provider} at {origin.base_url!r}: {origin.clean(str(error))}. "
        "Check the address and the network.",
        provider=origin.provider,
    )


def _no_answer(origin: Origin, error: Exception) -> ModelError:
    return MidStreamError(
        f"{origin.provider} at {origin.base_url!r} closed the connection before it answered "
        f"({type(error).__name__}). Whether it did what was asked is not known.",
        provider=origin.provider,
    )

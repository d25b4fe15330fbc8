"""Requests to Phoenix: what is said of spans, and whether it is there at all.

Phoenix takes annotations for many spans at once (`POST /v1/span_annotations?sync=true`), and all of them or none: where
a span has not arrived the whole request is refused, and the answer names the spans that are missing. Other tracing
backends have no such route; what they answer is told apart from all of this.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import aiohttp

from guidance_agent.core.phoenix_address import PhoenixAddress
from guidance_agent.core.types import JsonObject
from guidance_agent.llm.transports.failures import retry_after_seconds
from guidance_agent.llm.transports.http import proxy_for

__all__ = [
    "TIMEOUT_SECONDS",
    "Away",
    "Delivered",
    "NoRoute",
    "Refused",
    "Rejected",
    "Reply",
    "SpansMissing",
    "phoenix_version",
    "post_annotations",
]

TIMEOUT_SECONDS = 10.0
"""How long a request may take in all."""

_PATH = "/v1/span_annotations"
_LONGEST_ANSWER = 65_536
_LONGEST_WORDS = 300
_LONGEST_WAIT = 3_600.0
_BUSY = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Delivered:
    """All of them are stored."""


@dataclass(frozen=True, slots=True)
class SpansMissing:
    """These spans have not arrived; nothing was stored."""

    span_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in the request is not as Phoenix wants it; nothing was stored."""

    problem: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The key is missing or wrong."""

    status: int


@dataclass(frozen=True, slots=True)
class Away:
    """Phoenix cannot answer now; `after` is how many seconds it wants to be left alone."""

    problem: str
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class NoRoute:
    """What answers there takes no annotations: another tracing backend, or something else altogether."""

    problem: str


Reply: TypeAlias = Delivered | SpansMissing | Rejected | Refused | Away | NoRoute


async def post_annotations(
    session: aiohttp.ClientSession,
    address: PhoenixAddress,
    data: Sequence[JsonObject],
    *,
    timeout: float = TIMEOUT_SECONDS,
) -> Reply:
    """Send annotations and return what became of them; raises nothing that another server can bring about."""
    wanted = frozenset(str(each["span_id"]) for each in data)
    try:
        async with asyncio.timeout(timeout):
            response = await session.post(
                f"{address.base_url}{_PATH}",
                params={"sync": "true"},
                data=json.dumps({"data": data}, ensure_ascii=False, allow_nan=False).encode(),
                headers={"content-type": "application/json", "accept": "application/json", **address.headers},
                allow_redirects=False,
                proxy=proxy_for(address.base_url),
                ssl=_ssl(address),
            )
            async with response:
                body = await response.content.read(_LONGEST_ANSWER)
                while len(body) < _LONGEST_ANSWER and (piece := await response.content.readany()):
                    body += piece
    except TimeoutError:
        return Away(f"no answer within {timeout:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Away(type(error).__name__)
    return _read(response.status, response.headers, body[:_LONGEST_ANSWER], wanted)


async def phoenix_version(address: PhoenixAddress, *, timeout: float) -> str | None:
    """Return the version of the Phoenix at an address; None when what answers there is something else.

    Raises:
        OSError: when nothing answers there.
    """
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(trust_env=False) as session,
            # Every answer of Phoenix names its version, whatever its status is: no key is sent for this.
            session.get(
                f"{address.base_url}/healthz",
                allow_redirects=False,
                proxy=proxy_for(address.base_url),
                ssl=_ssl(address),
            ) as answer,
        ):
            return answer.headers.get("x-phoenix-server-version")
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        raise OSError(f"{address.place} does not answer ({type(error).__name__})") from error


def _ssl(address: PhoenixAddress) -> ssl.SSLContext | bool:
    return True if address.certificate is None else _context(address.certificate)


@cache
def _context(certificate: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def _read(status: int, headers: Mapping[str, str], body: bytes, wanted: frozenset[str]) -> Reply:
    said = body.decode(errors="replace")
    match status:
        case 200:
            return Delivered() if _lists(said) else NoRoute("answers 200, but not as Phoenix does")
        case 401 | 403:
            return Refused(status)
        case 404:
            missing = frozenset(span_id for span_id in wanted if span_id in said)
            return SpansMissing(missing) if missing else NoRoute("answers 404")
        case 400 | 413 | 422:
            return Rejected(f"status {status}: {' '.join(said.split())[:_LONGEST_WORDS]}")
    if (status >= 500 and status != 501) or status in _BUSY:
        return Away(f"status {status}", min(retry_after_seconds(headers) or 0.0, _LONGEST_WAIT))
    return NoRoute(f"answers {status}")


def _lists(said: str) -> bool:
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("data"), list)

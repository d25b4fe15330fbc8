"""A response body below LiteLLM: read before LiteLLM reads it, closed whatever LiteLLM does.

Importing this module imports httpx and aiohttp: only `litellm_tap` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
import httpx

from guidance_agent.llm.transports.http import LINGER_SECONDS, take_buffered
from guidance_agent.llm.transports.litellm_wire import StreamWatch, unpacker

__all__ = ["TappedBody"]

_TAIL_BYTES = 4096
_LONGEST_END = 64


class TappedBody(httpx.AsyncByteStream):
    """A response body that is read as before and remembers how it ended.

    Attributes:
        started: What was read before LiteLLM began to read.
        tail: The last bytes that were read.
        readable: Whether the body can be unpacked.
        broken: What broke the connection, if something did.
        on_bytes: Called whenever bytes arrive.
        watch: Reads a stream before LiteLLM does, which then gets what the watch writes.
        ended: Whether the end of an answer in another format was there; None where that is not known.
    """

    def __init__(self, inner: httpx.AsyncByteStream, encoding: str, end: re.Pattern[bytes] | None) -> None:
        self.started = b""
        self.tail = b""
        self.broken: Exception | None = None
        self.on_bytes: Callable[[], None] | None = None
        self.watch: StreamWatch | None = None
        self._inner = inner
        self._unpack = unpacker(encoding.strip().lower())
        self.readable = self._unpack is not None or encoding in ("", "identity")
        self._end = end if self.readable else None
        self.ended = None if self._end is None else False

    async def start(self, limit: int) -> None:
        """Read at most about `limit` bytes now; whoever reads the body later gets them again, and no more."""
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in self._pieces():
                pieces.append(piece)
                size += len(piece)
                if size >= limit:
                    break
        except httpx.HTTPError:
            # What broke is noted; what came before it may still say what matters.
            pass
        finally:
            self.started = b"".join(pieces)
            await self.end()

    async def end(self) -> None:
        """Close the connection; whoever reads the body later gets what was read until now."""
        await self._inner.aclose()
        self._inner = _Empty()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.started:
            yield self.started
        pieces = self._pieces()
        if self.watch is None:
            async for piece in pieces:
                if self._end is not None and self._end.search(self.tail[-_LONGEST_END:] + piece):
                    self.ended = True
                self.tail = (self.tail + piece)[-_TAIL_BYTES:]
                yield piece
            return
        async for piece in self._watched(self.watch, pieces):
            yield piece

    async def _watched(self, watch: StreamWatch, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            written = watch.feed(piece)
            if watch.ended:
                await self._drain(pieces)
            if written:
                yield written
            if watch.failure is not None:
                raise httpx.ReadError("the answer failed")
            if watch.ended:
                return
        if written := watch.finish():
            yield written
        if watch.failure is not None:
            raise httpx.ReadError("the answer failed")

    async def _drain(self, pieces: AsyncIterator[bytes]) -> None:
        """Give a body whose content is complete a moment to end, so that its connection can be used again."""
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(LINGER_SECONDS):
                async for _ in pieces:
                    pass

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for packed in self._packed_pieces():
                if self.on_bytes is not None:
                    self.on_bytes()
                if self._unpack is None:
                    yield packed
                else:
                    for piece in self._unpack(packed):
                        yield piece
        except (aiohttp.ClientError, httpx.HTTPError, OSError, RuntimeError, zlib.error) as error:
            self.broken = error
            raise httpx.ReadError(type(error).__name__) from error

    async def _packed_pieces(self) -> AsyncIterator[bytes]:
        response: aiohttp.ClientResponse | None = getattr(self._inner, "_aiohttp_response", None)
        if response is None:
            async for piece in self._inner:
                yield piece
            return
        # LiteLLM's own way to read loses what arrived before the connection broke.
        while piece := take_buffered(response.content) or await response.content.readany():
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Empty(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

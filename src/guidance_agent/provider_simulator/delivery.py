"""Sends the frames of a response to the socket, each when it is due."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from aiohttp import web

from guidance_agent.provider_simulator.frames import Frame, cut_bytes
from guidance_agent.provider_simulator.pacing import Pacer
from guidance_agent.provider_simulator.request_log import RequestRecord
from guidance_agent.provider_simulator.settings import ChunkMode

__all__ = ["Delivery", "cut_connection", "drop_request"]

_WRITE_SIZE = 64 * 1024
_HIGH_WATER = 256 * 1024
_RETRY_AFTER_FULL = 0.002
_CANCELLED_WITHIN = 5.0


def cut_connection(transport: asyncio.Transport, *, abrupt: bool) -> None:
    """End the connection in the middle of a response: `abrupt` with a TCP reset, else in the ordinary way."""
    if not abrupt:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def drop_request(request: web.Request, *, abrupt: bool) -> NoReturn:
    """Cut the connection of a request that is not answered; its handler ends as if its client had left."""
    cut_connection(require_transport(request), abrupt=abrupt)
    # The server cancels the handler of a lost connection; an error instead would be logged as a fault of this program.
    async with asyncio.timeout(_CANCELLED_WITHIN):
        await asyncio.get_running_loop().create_future()
    raise ConnectionResetError("the connection was cut on request")


class Delivery:
    """One streamed body, written straight to the transport in HTTP chunks.

    It never awaits per chunk: the pacer calls it, it writes what is due, and says when it wants to be called again. A
    client that reads slowly is waited for.
    """

    def __init__(
        self,
        *,
        transport: asyncio.Transport,
        frames: Iterable[Frame],
        started: float,
        record: RequestRecord,
        chunk_mode: ChunkMode,
        rng: random.Random,
        on_begin: Callable[[float], None],
    ) -> None:
        self._transport = transport
        self._frames = iter(frames)
        self._frame: Frame | None = next(self._frames, None)
        self._started = started
        self._record = record
        self._mode = chunk_mode
        self._rng = rng
        self._on_begin = on_begin
        self._cuts: Iterator[bytes] = iter(())
        self._pausing = False
        self._ended = asyncio.get_running_loop().create_future()
        self.connection_lost = False

    async def run(self, pacer: Pacer) -> None:
        """Send everything; returns when the last frame is written or the connection is gone."""
        first = self._frame
        if first is None:
            return
        pacer.add(self._step, self._started + first.due)
        try:
            await self._ended
        finally:
            self._frame = None
            if not self._ended.done():
                self._ended.cancel()

    def _finish(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _step(self, now: float) -> float | None:
        if self._ended.done():
            return None
        if self._transport.is_closing():
            self.connection_lost = True
            self._finish()
            return None
        if self._transport.get_write_buffer_size() > _HIGH_WATER:
            return now + _RETRY_AFTER_FULL
        for piece in self._cuts:
            self._write(piece)
            return now
        return self._send_due(now)

    def _send_due(self, now: float) -> float | None:
        ready = bytearray()
        while (frame := self._frame) is not None and self._started + frame.due <= now + 0.000_5:
            if frame.pause and not self._pausing:
                if ready:
                    break
                self._pausing = True
                return now + frame.pause
            self._pausing = False
            if frame.kind in ("reset", "close"):
                self._flush(ready, now)
                self._cut_connection(frame)
                return None
            ready += frame.data
            if frame.kind == "text":
                self._record.text_chunks += 1
            self._frame = next(self._frames, None)
            if len(ready) >= _WRITE_SIZE or (self._mode != "event" and ready):
                break
        self._flush(ready, now)
        if self._mode != "event" and ready:
            return now
        if self._frame is None:
            self._finish()
            return None
        moment = self._started + self._frame.due
        return None if moment == float("inf") else max(now, moment)

    def _flush(self, ready: bytearray, now: float) -> None:
        if not ready:
            return
        if self._record.first_byte_at is None:
            self._record.first_byte_at = now
            self._on_begin(now)
        if self._mode == "event":
            self._write(bytes(ready))
        else:
            self._cuts = cut_bytes(bytes(ready), self._mode, self._rng)

    def _write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self._record.bytes_sent += len(data)

    def _cut_connection(self, frame: Frame) -> None:
        for piece in self._cuts:
            self._write(piece)
        self.connection_lost = True
        self._record.dropped = True
        cut_connection(self._transport, abrupt=frame.kind == "reset")
        self._finish()


def require_transport(request: web.Request) -> asyncio.Transport:
    transport = request.transport
    if not isinstance(transport, asyncio.Transport):
        raise ConnectionResetError("the client closed the connection before the answer began")
    return transport

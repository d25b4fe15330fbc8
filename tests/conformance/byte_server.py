"""A provider that sends exactly the bytes it is given, and sees when its client leaves."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

__all__ = ["CHUNKED", "LAST_CHUNK", "PLAIN", "ByteServer", "chunk", "head"]

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
"""Opens an event stream in HTTP chunks; `LAST_CHUNK` ends it."""

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
"""Opens an event stream that ends with the connection."""

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return `data` as one HTTP chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def head(status: int, content_type: str | None, **headers: object) -> bytes:
    """Return the head of a response; underscores in header names stand for hyphens."""
    lines = [f"HTTP/1.1 {status} X", *([f"content-type: {content_type}"] if content_type else [])]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class ByteServer:
    """Answers each request with the next of its scripts; the last one answers all further requests.

    A script is a sequence of steps. `bytes` are sent as they are, a number is a pause in seconds, `turn` leaves the
    event loop to the client once, so that the next bytes come alone, `reset` resets the connection, and `keep` at the
    end keeps it open for the next request; otherwise it is closed after the last step.

    Attributes:
        requests: Heads and bodies as they arrived.
        connections: How many there were.
        client_closed: Set when a client leaves in a pause or while it is sent something.
        clients_left: How many did.
    """

    def __init__(self) -> None:
        self.scripts: list[Sequence[object]] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.client_closed = asyncio.Event()
        self.clients_left = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[object]] = set()

    @property
    def base_url(self) -> str:
        if self._server is None:
            raise RuntimeError("the server is not running")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def body(self, number: int = -1) -> dict[str, Any]:
        """Return the JSON body of a request."""
        found: dict[str, Any] = json.loads(self.requests[number].partition(b"\r\n\r\n")[2])
        return found

    def serve(self, *script: object) -> None:
        self.scripts.append(script)

    def serve_only(self, *script: object) -> None:
        """Answer with this script from now on, whatever was meant to come."""
        self.scripts = [script]

    def stream(self, body: bytes, content_type: str | None = "text/event-stream", cut: int | None = None) -> None:
        """Serve `body` in a 200 answer that ends with the connection, in pieces of `cut` bytes."""
        size = cut or max(1, len(body))
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        self.serve(head(200, content_type, connection="close"), *pieces)

    def answer(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.serve(head(status, content_type, content_length=len(body), **headers) + body)

    async def __aenter__(self) -> ByteServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._serving:
                task.cancel()
            if self._serving:
                await asyncio.wait(self._serving)
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self._left()
        except asyncio.CancelledError:
            # The server is closed while an answer is still under way; nobody waits for this task's result.
            pass
        finally:
            writer.close()

    def _left(self) -> None:
        self.clients_left += 1
        self.client_closed.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await reader.readuntil(b"\r\n\r\n")
        lines = request.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        self.requests.append(request + await reader.readexactly(length))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return await self._play(script, reader, writer)

    async def _play(self, script: Iterable[object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        step: object = None
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, int | float):
                with suppress(TimeoutError):
                    async with asyncio.timeout(step):
                        await reader.read(1)
                        self._left()
                        return False
            elif step == "turn":
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            elif step == "reset":
                _reset(writer)
                return False
        return step == "keep"


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

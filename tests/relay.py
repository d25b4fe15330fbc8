"""A door before a server that a test opens and shuts: while it is shut, nobody answers at its address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType

__all__ = ["Relay"]


class Relay:
    """Passes on what comes to a port of its own; an async context manager. It begins shut.

    Args:
        port: The server's port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self._door: asyncio.Server | None = None
        self._passing: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._door = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def __aenter__(self) -> Relay:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._door is not None:
            self._door.close()
        for writer in self._passing.values():
            writer.transport.abort()
        await asyncio.gather(*self._passing)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing[task] = writer
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._behind)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, back))
                group.create_task(_copy(there, writer))
        finally:
            del self._passing[task]


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(65_536):
            target.write(piece)
            await target.drain()
    target.close()

"""The database behind one thread: the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from guidance_agent.provider_simulator.batches.tables import open_database

__all__ = ["BatchStore"]

_T = TypeVar("_T")


class BatchStore:
    """Runs jobs against the database, one after the other; it is opened by the first.

    A job that writes holds the database's lock for its whole transaction: two processes with one file never do the same
    work twice. A job that has begun is finished even when its caller is cancelled.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulator-batches")
        self._connection: sqlite3.Connection | None = None
        self._used = False

    async def read(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._submit(partial(self._run, job, "BEGIN"))

    async def write(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._submit(partial(self._run, job, "BEGIN IMMEDIATE"))

    async def _submit(self, call: Callable[[], _T]) -> _T:
        self._used = True
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _run(self, job: Callable[[sqlite3.Connection], _T], begin: str) -> _T:
        if self._connection is None:
            self._connection = open_database(self.path)
        connection = self._connection
        connection.execute(begin)
        try:
            result = job(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result

    async def aclose(self) -> None:
        """Close the database after the jobs that have been submitted."""
        if self._used:
            await self._submit(self._close)
        self._executor.shutdown(wait=False)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

"""The batches of a running simulator: their database, and the task that works them off."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from guidance_agent.provider_simulator.batches.item_answers import ItemAnswers
from guidance_agent.provider_simulator.batches.progress import Progress
from guidance_agent.provider_simulator.batches.rendering import RESULTS_LIFE
from guidance_agent.provider_simulator.batches.store import BatchStore
from guidance_agent.provider_simulator.clock import Clock
from guidance_agent.provider_simulator.composer import Composer
from guidance_agent.provider_simulator.faults import FaultQueue
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["BatchEngine", "batches_path"]

_T = TypeVar("_T")
_LOOK_EVERY = 2.0
_ABANDONED_AFTER = 3_600.0


def batches_path(state_path: Path | None) -> Path | None:
    """Where files and batches are kept, beside the file of the cache entries."""
    return None if state_path is None else state_path.with_suffix(".batches.sqlite3")


class BatchEngine:
    """Nothing is opened and no task runs before a file or batch is asked about, unless an earlier process left some."""

    def __init__(self, settings: SimulatorSettings, clock: Clock, composer: Composer, faults: FaultQueue) -> None:
        self._clock = clock
        self._store = BatchStore(batches_path(settings.state_path))
        self._progress = Progress(settings, ItemAnswers(settings, composer, faults))
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on with what an earlier process left."""
        path = self._store.path
        if path is not None and await asyncio.to_thread(path.exists):
            await self._ensure_worker()

    async def read(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a job that only reads, after what is due by the clock has been done (as far as a moment allows)."""
        await self._ensure_worker()
        await self._advance()
        return await self._store.read(job)

    async def write(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a job that changes something, after what is due by the clock, and look at what follows from it."""
        await self._ensure_worker()
        await self._advance()
        result = await self._store.write(job)
        self._wake.set()
        return result

    async def add(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a job that only adds to what cannot be seen yet."""
        await self._ensure_worker()
        return await self._store.write(job)

    async def settle(self) -> None:
        """Return when everything has been done that is due by the clock."""
        if self._worker is not None:
            due = True
            while due:
                due = await self._advance() <= self._clock.now()

    async def peek(self, job: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a job that reads what does not change with the clock."""
        return await self._store.read(job)

    async def _ensure_worker(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
            await self._store.write(partial(_clean_up, now=self._clock.now()))

    async def _advance(self) -> float:
        return await self._store.write(partial(self._progress.advance, now=self._clock.now()))

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            moment = await self._advance()
            if moment <= self._clock.now():
                # One turn of the loop for everybody else.
                await asyncio.sleep(0)
                continue
            timer = self._clock.call_at(moment, self._wake.set)
            # Another process with the same database may have died before its work was done.
            with contextlib.suppress(TimeoutError):
                # `wait_for` forgets a cancellation that comes as the event is set, and closing would wait for ever.
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._wake.wait()
            timer.cancel()

    async def aclose(self) -> None:
        """Stop working; what is not done is done by the next process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        await self._store.aclose()


def _clean_up(connection: sqlite3.Connection, now: float) -> None:
    """Forget uploads that were never finished, and files whose time is over."""
    before = now - _ABANDONED_AFTER
    unfinished = (
        "SELECT number FROM files WHERE NOT ready AND created_at < ? AND number NOT IN "
        "(SELECT output_file FROM batches WHERE output_file IS NOT NULL UNION "
        "SELECT error_file FROM batches WHERE error_file IS NOT NULL)"
    )
    connection.execute(f"DELETE FROM chunks WHERE file IN ({unfinished})", (before,))  # noqa: S608
    connection.execute(f"DELETE FROM files WHERE number IN ({unfinished})", (before,))  # noqa: S608
    over = (
        "SELECT number FROM files WHERE expires_at <= ? UNION "
        "SELECT output_file FROM batches WHERE wire = 'anthropic' AND created_at <= ?"
    )
    ends = (now, now - RESULTS_LIFE)
    connection.execute(f"DELETE FROM chunks WHERE file IN ({over})", ends)  # noqa: S608
    connection.execute(f"DELETE FROM files WHERE number IN ({over})", ends)  # noqa: S608
    received = "SELECT number FROM batches WHERE status = 'receiving' AND created_at < ?"
    connection.execute(f"DELETE FROM items WHERE batch IN ({received})", (before,))  # noqa: S608
    connection.execute("DELETE FROM batches WHERE status = 'receiving' AND created_at < ?", (before,))

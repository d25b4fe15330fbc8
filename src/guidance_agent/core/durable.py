"""Work that outlives its process: a key is started once, by one process, and found again after that process has died.

The work itself is known by a key alone, is written down elsewhere as due, and may be done twice: what it stores is
stored under a unique key. So a runner that loses everything it knows loses nothing; the work is still due.

`DurableRunner` is the port. `InlineRunner` runs the work as tasks of this process and remembers nothing. The one that
remembers is in `core.durable_dbos`, is imported on first use only (it takes a third of a second), and there can be one
of it in a process.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

import sqlalchemy as sa

from guidance_agent.core.slots import WorkerSlot

__all__ = [
    "DurableRunner",
    "DurableRunnerUnavailable",
    "InlineRunner",
    "Perform",
    "Schedule",
    "Started",
    "Tasks",
    "open_runner",
    "system_url",
]

Perform: TypeAlias = Callable[[str], Awaitable[None]]
"""Does the work of a key. It may be cancelled at any time, and raises only what nobody foresaw."""

Started = Literal["here", "elsewhere"]

_logger = logging.getLogger("guidance_agent.background")


class Schedule(NamedTuple):
    """Work that begins at times of its own: its key is the name of the schedule, a colon, and the time in ISO form.

    Attributes:
        name: The beginning of its keys.
        cron: Minute, hour, day, month and weekday.
        time_zone: Of these.
    """

    name: str
    cron: str
    time_zone: str


class DurableRunnerUnavailable(Exception):
    """Raised within this floor when no runner that remembers can be had; nobody above sees it."""


class DurableRunner(Protocol):
    """Runs work by key."""

    @property
    def running(self) -> frozenset[str]:
        """Keys whose work runs in this process."""

    async def start(self, key: str) -> Started:
        """Begin the work of `key` unless it runs; `elsewhere` says that another process does it, or is about to."""

    async def forget_ended(self, before: datetime) -> None:
        """Forget the work that ended before a time."""

    async def aclose(self) -> None:
        """Stop what runs. It stays due."""


class Tasks:
    """The tasks of a runner, by key. Every method runs on the event loop."""

    def __init__(self, perform: Perform, ended: Callable[[], None]) -> None:
        self._perform = perform
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def running(self) -> frozenset[str]:
        return frozenset(self._tasks)

    def start(self, key: str) -> asyncio.Task[None] | None:
        """Return the task that does the work of `key`; None after `close`."""
        if self._closed:
            return None
        if key not in self._tasks:
            task = asyncio.ensure_future(self._run(key))
            task.set_name(f"durable {key}")
            self._tasks[key] = task
        return self._tasks[key]

    async def _run(self, key: str) -> None:
        try:
            await self._perform(key)
        except Exception as error:
            _logger.warning("durable work failed: key=%s error=%s: %s", key, type(error).__name__, error)
            raise
        finally:
            self._tasks.pop(key, None)
            self._ended()

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class InlineRunner:
    """The `DurableRunner` that remembers nothing: what another process does is not known to it."""

    def __init__(self, perform: Perform, *, ended: Callable[[], None]) -> None:
        self._tasks = Tasks(perform, ended)

    @property
    def running(self) -> frozenset[str]:
        return self._tasks.running

    async def start(self, key: str) -> Started:
        task = self._tasks.start(key)
        if task is not None:
            # Its failure is logged, and nobody else asks for it.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return "here"

    async def forget_ended(self, before: datetime) -> None:
        """Nothing is remembered."""

    async def aclose(self) -> None:
        await self._tasks.close()


def system_url(records: sa.URL) -> sa.URL:
    """Return where a durable runner keeps what it knows: a file beside an SQLite file, a schema on a server."""
    if records.get_backend_name() == "sqlite":
        path = Path(records.database or "")
        return sa.URL.create("sqlite", database=str(path.with_name(f"{path.stem}-work.db").absolute()))
    return records.set(drivername="postgresql")


async def open_runner(
    records: sa.URL,
    slot: WorkerSlot,
    perform: Perform,
    *,
    ended: Callable[[], None],
    schedules: Sequence[Schedule] | None = None,
) -> DurableRunner:
    """Return a runner that is ready: the one that remembers, or, where there can be none, the one that does not.

    Args:
        records: Address of the records; what the runner remembers is kept beside them.
        slot: The place that this process is to take; unfinished work is filed under its name.
        perform: Does the work of a key, on this event loop.
        ended: Called whenever the work of a key has ended here, however it ended.
        schedules: What there is to begin at which times, in the place of what there was; this process does such work.
            None leaves that as it is, and to others.
    """
    # In a thread: importing takes too long for the event loop.
    engine = await asyncio.to_thread(importlib.import_module, "guidance_agent.core.durable_dbos")
    try:
        runner: DurableRunner = await engine.open_dbos_runner(
            system_url(records), slot, perform, ended=ended, schedules=schedules
        )
    except DurableRunnerUnavailable as error:
        _logger.warning("work in the background is done, but not remembered by DBOS: %s", error)
        if schedules:
            _logger.error("nothing is begun at its times by this process, because DBOS does that")
        return InlineRunner(perform, ended=ended)
    return runner

"""Workers on batches that are killed, one after the other, until the job has ended in spite of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.batch_kill_evidence import contradictions, found
from benchmarks.batch_kill_nursery import OPTIONS, Job
from guidance_agent.core.batch_processing import CRASH_POINTS
from guidance_agent.core.database import Database

__all__ = ["PER_JOB", "Kills", "Nursery", "Work", "kill_at_moments", "kill_at_points", "points_of"]

PER_JOB = 4
"""How many processes are killed on one job before one may end it."""

_UPLOADS = ("uploaded", "upload_recorded")
_STALE = OPTIONS.lease + OPTIONS.grace


class Worker:
    """A worker, as its nursery tells of it."""

    def __init__(self) -> None:
        self.began: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def killed_after(self, seconds: float) -> bool:
        """Kill the worker so long after it has begun; False where it had ended by then."""
        pid = await self.began
        done, _ = await asyncio.wait([self.ended], timeout=seconds)
        if not done:
            # It is not waited for before it is told of, so that its process id is its own until then.
            os.kill(pid, signal.SIGKILL)
        return await self.ended == -signal.SIGKILL


class Nursery:
    """The process that forks the workers; an async context manager that ends it and them."""

    def __init__(self) -> None:
        self._workers: dict[int, Worker] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.batch_kill_nursery",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            if worker.began.done() and not worker.ended.done():
                os.kill(worker.began.result(), signal.SIGKILL)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def start(self, **job: Any) -> Worker:
        """Have a worker forked; the first job of a nursery is done by itself."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("The nursery is not open. Enter its `async with` block first.")
        number = len(self._workers)
        worker = self._workers[number] = Worker()
        self._process.stdin.write(Job(worker=number, **job).model_dump_json().encode() + b"\n")
        await self._process.stdin.drain()
        return worker

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise RuntimeError("The nursery was started without a pipe. Start it with `async with`.")
        async for line in process.stdout:
            told = json.loads(line)
            worker = self._workers[told["worker"]]
            if "pid" in told:
                worker.began.set_result(told["pid"])
            else:
                worker.ended.set_result(told["status"])
        for worker in self._workers.values():
            for waited in (worker.began, worker.ended):
                if not waited.done():
                    waited.cancel()


@dataclass(slots=True)
class Kills:
    """What became of jobs whose workers were killed.

    Attributes:
        kills: How many workers were killed.
        at_points: How many of them at a crash point, the others at a moment drawn by lot.
        states: In which states those killed at a moment left their jobs.
        jobs: How many jobs there were, and how many items and attempts they came to.
        too_late: Workers that had ended before their moment came.
        life: Seconds that a job takes where nobody is killed.
        violations: What must not be.
    """

    kills: int = 0
    at_points: int = 0
    states: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    too_late: int = 0
    life: float = 0.0
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done where.

    Attributes:
        database: The records, with the table of what was applied.
        name: What the keys of the jobs begin with.
        items: Of each job.
        lanes: How many jobs are worked on at a time.
    """

    database: Database
    provider_url: str
    wire: str
    name: str
    items: int
    lanes: int


@dataclass(slots=True)
class _Place:
    """Work, the nursery of those who do it, and what becomes of them."""

    work: Work
    nursery: Nursery
    outcome: Kills

    async def start(self, key: str, *, crash_at: str = "", passes: int = 0) -> Worker:
        work = self.work
        return await self.nursery.start(
            database_url=work.database.url.render_as_string(hide_password=False),
            provider_url=work.provider_url,
            wire=work.wire,
            key=key,
            items=work.items,
            crash_at=crash_at,
            passes=passes,
        )

    async def end(self, key: str) -> None:
        """Have a worker end the job that others have left, and see what came of it."""
        status = await (await self.start(key)).ended
        if status:
            self.outcome.violations.append(f"job {key}: the worker that was not killed ended with {status}")
        await self.look(key)

    async def look(self, key: str) -> None:
        self.outcome.jobs += 1
        self.outcome.violations += await contradictions(self.work.database, key, self.work.items)

    async def killed(self, worker: Worker, key: str, after: float) -> bool:
        """Kill a worker at a moment, and note how the job was found; False where it had ended."""
        if not await worker.killed_after(after):
            self.outcome.too_late += 1
            return False
        self.outcome.kills += 1
        self.outcome.states[await found(self.work.database, key)] += 1
        return True


def points_of(wire: str) -> Sequence[str]:
    """Return the crash points that a job of this wire passes."""
    return [point for point in CRASH_POINTS if wire == "openai" or point not in _UPLOADS]


@contextlib.asynccontextmanager
async def _place(work: Work) -> AsyncIterator[_Place]:
    """Open a place, with a worker's imports done and the length of a life measured."""
    async with Nursery() as nursery:
        place = _Place(work, nursery, Kills())
        await (await place.start(f"{work.name}-first")).ended
        began = time.monotonic()
        await (await place.start(f"{work.name}-whole")).ended
        place.outcome.life = time.monotonic() - began
        for key in (f"{work.name}-first", f"{work.name}-whole"):
            await place.look(key)
        yield place


async def kill_at_moments(work: Work, *, kills: int, seed: int = 0) -> Kills:
    """Kill so many workers at moments that are spread over the whole life of a job."""
    lot = random.Random(f"{seed} {work.name}")
    # One moment from each part of a life: all parts have theirs.
    shares = [(number + lot.random()) / kills for number in range(kills)]
    lot.shuffle(shares)
    async with _place(work) as place:

        async def one_job(key: str) -> None:
            for nth in range(PER_JOB):
                if not shares:
                    break
                share = shares.pop()
                # Whoever comes after a killed one waits until that one's lease, and perhaps its grace, is over.
                life = place.outcome.life if nth == 0 else place.outcome.life + lot.choice((OPTIONS.lease, _STALE))
                if not await place.killed(await place.start(key), key, share * life):
                    shares.append(lot.random())
                    break
            await place.end(key)

        async def lane(name: str) -> None:
            number = 0
            while shares:
                await one_job(f"{name}-{number}")
                number += 1

        await _in_lanes(work, lane)
        return place.outcome


async def kill_at_points(work: Work) -> Kills:
    """Kill a worker at each crash point when it is passed first, and when it is passed for the third time."""
    left = [(point, passes) for point in points_of(work.wire) for passes in (0, 2)]
    async with _place(work) as place:

        async def lane(name: str) -> None:
            while left:
                point, passes = left.pop()
                key = f"{name}-{point}-{passes}"
                if await (await place.start(key, crash_at=point, passes=passes)).ended == -signal.SIGKILL:
                    place.outcome.kills += 1
                    place.outcome.at_points += 1
                else:
                    place.outcome.too_late += 1
                await place.end(key)

        await _in_lanes(work, lane)
        return place.outcome


async def _in_lanes(work: Work, lane: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(work.lanes):
            group.create_task(lane(f"{work.name}-{number}"))

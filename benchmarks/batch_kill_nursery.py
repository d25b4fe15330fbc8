"""A process that has imported everything, and forks workers on batches: each begins at once, whenever it is killed.

It reads jobs as lines of JSON and writes what is told of their workers, a line of JSON each: that one has begun and
under which process id, and with which status it ended. The first job is done by this process itself, so that no worker
imports anything any more. When its input ends, it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import traceback

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from benchmarks.killed_at import KilledAt
from guidance_agent.core.batch_processing import BatchKind, BatchOptions, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.database import Database
from guidance_agent.errors import BatchConflictError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.settings import Settings

__all__ = ["APPLIED", "MODELS", "OPTIONS", "Job"]

MODELS = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}
OPTIONS = BatchOptions(
    lease=0.6,
    grace=1.0,
    clock_skew=2.0,
    retry_after=0.05,
    poll=0.03,
    prime_wait=0.0,
    most_items=12,
    items_per_transaction=5,
)
"""Times that a run can wait for; several batches to a job, several transactions to a batch."""

APPLIED = sa.Table(
    "applied_by_the_killed",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("custom_id", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
)
"""One row for each time that an item is applied, written in the transaction that applies it."""

_KIND = "killed"
_WORKS_FOR = 90.0
_AGAIN_AFTER = 0.05


class Job(BaseModel):
    """What a worker does: it submits a job, the same for every worker on it, and works on it to its end.

    Attributes:
        worker: By which number it is told of.
        crash_at: The crash point at which it kills itself; empty for none.
        passes: How often that point is passed before.
    """

    model_config = ConfigDict(frozen=True)

    worker: int
    database_url: str
    provider_url: str
    wire: str
    key: str
    items: int
    crash_at: str = ""
    passes: int = 0


async def work(job: Job) -> None:
    """Submit the job and work on it until it is done."""
    leave = sa.insert(APPLIED)

    def apply(connection: sa.Connection, result: BatchResult) -> None:
        connection.execute(leave, {"job": job.key, "custom_id": result.custom_id, "outcome": result.outcome})

    environ = {
        "ANTHROPIC_API_KEY": "sk-ant-kills",
        "OPENAI_API_KEY": "sk-kills",
        "ANTHROPIC_BASE_URL": job.provider_url,
        "OPENAI_BASE_URL": f"{job.provider_url}/v1",
    }
    settings = Settings.load(retry={"max_attempts": 1})
    requests = [
        BatchRequest(custom_id=f"item-{number}", user_message=f"Consultation {number} failed. Why?", max_tokens=40)
        for number in range(job.items)
    ]
    async with (
        Database(sa.make_url(job.database_url)) as database,
        ModelGateway(settings, environ=environ) as gateway,
        BatchProcessor(
            database,
            gateway,
            kinds=[BatchKind(name=_KIND, apply=apply)],
            options=OPTIONS,
            crash=KilledAt(job.crash_at, job.passes),
        ) as processor,
        asyncio.timeout(_WORKS_FOR),
    ):
        while True:
            try:
                await processor.submit(requests, job_key=job.key, kind=_KIND, model=MODELS[job.wire])
                break
            except BatchConflictError:
                # Another one prepares it, or did so until it was killed.
                await asyncio.sleep(_AGAIN_AFTER)
        await processor.wait(job.key)


def _tell(worker: int, **values: object) -> None:
    # One write: lines of several processes do not mix.
    os.write(1, json.dumps({"worker": worker, **values}).encode() + b"\n")


class _Nursery:
    def __init__(self) -> None:
        self._workers: dict[int, int] = {}

    def reap(self, *_: object) -> None:
        """Tell of every worker that has ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _tell(self._workers.pop(ended[0]), status=os.waitstatus_to_exitcode(ended[1]))

    def fork(self, job: Job) -> None:
        # A worker that dies at once is told of when it is known whose it was.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            _be_worker(job)
        self._workers[pid] = job.worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _be_worker(job: Job) -> None:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _tell(job.worker, pid=os.getpid())
        asyncio.run(work(job))
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        # What the nursery has open is the nursery's to close.
        os._exit(status)


def main() -> None:
    nursery = _Nursery()
    first = Job.model_validate_json(sys.stdin.readline())
    asyncio.run(work(first))
    _tell(first.worker, status=0)
    signal.signal(signal.SIGCHLD, nursery.reap)
    for line in sys.stdin:
        nursery.fork(Job.model_validate_json(line))


if __name__ == "__main__":
    main()

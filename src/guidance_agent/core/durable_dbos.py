"""The durable runner on DBOS: a workflow per key, kept in a database of its own beside the records.

DBOS is used from threads of its own only, with synchronous workflows: its asynchronous side would replace the default
executor of the host's event loop. A workflow only waits for the work, which runs as a task on the loop of the runner.
It has no steps and no result: what the work stores is elsewhere, under unique keys. When the work is cancelled, the
workflow is abandoned with an exception that DBOS does not record, and stays pending for the next process.

A key that another process runs is left to it. If that process's slot is free, because it died, its workflow is resumed.
A workflow that has ended while its work is still due (the records were restored, the work failed) is followed by
another one under the key and a number.

What begins at times of its own is enqueued by whichever process is up, once for each time, and taken from its queue by
processes that do such work only: one that is about to end must not begin it. Times that passed while no process was up
are made up for by the first that comes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID
from dbos import _dbos as internals
from dbos import error as dbos_error

from guidance_agent.core.durable import DurableRunnerUnavailable, Perform, Schedule, Started, Tasks
from guidance_agent.core.slots import WorkerSlot
from guidance_agent.errors import StorageError

__all__ = ["DbosRunner", "open_dbos_runner"]

T = TypeVar("T")

APPLICATION = "guidance-agent"
APPLICATION_VERSION = "1"
"""Work of another version is never taken up, so this changes only when a key no longer means what it meant."""

_WORKFLOW = "guidance_agent.durable_work"
_SCHEDULED = "guidance_agent.scheduled_work"
_TIMES = "guidance_agent_times"
"""The queue of what begins at times of its own."""

_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_CONNECTIONS = 5
_POLL_SECONDS = 0.1
_SETTLING_SECONDS = 5.0
"""So long after the launch, DBOS may still be taking up what this slot left behind."""
_PURGED_AT_ONCE = 500
_PATIENCE_SECONDS = 5.0

_logger = logging.getLogger("guidance_agent.background")


class _Abandoned(BaseException):
    """Ends a workflow without an outcome; not an `Exception`, because those are outcomes."""


class _WorkFailed(Exception):
    """Stands in DBOS's database for what the work raised, whose words may be about a customer."""


@DBOS.workflow(name=_WORKFLOW)
def _durable_work(key: str) -> None:
    _durable_work_of(key)


def _durable_work_of(key: str) -> None:
    runner = _process.runner
    if runner is None:
        raise _Abandoned
    runner.wait_for_work(key)


@DBOS.workflow(name=_SCHEDULED)
def _scheduled_work(at: datetime, name: str) -> None:
    _durable_work_of(f"{name}:{at.isoformat()}")


class _Process:
    """DBOS is one per process, and so is its runner. The lock keeps two that are opened at once apart."""

    def __init__(self) -> None:
        self.runner: DbosRunner | None = None
        self._lock = threading.Lock()

    def claim(self, runner: DbosRunner) -> None:
        with self._lock:
            if self.runner is not None:
                raise DurableRunnerUnavailable("another runtime of this process has it")
            if getattr(internals, "_dbos_global_instance", None) is not None:
                raise DurableRunnerUnavailable("this process uses DBOS for something else")
            self.runner = runner

    def give_back(self) -> None:
        with self._lock:
            self.runner = None


_process = _Process()


async def open_dbos_runner(
    url: sa.URL,
    slot: WorkerSlot,
    perform: Perform,
    *,
    ended: Callable[[], None],
    schedules: Sequence[Schedule] | None = None,
) -> DbosRunner:
    """Launch DBOS and return its runner.

    Raises:
        DurableRunnerUnavailable: when it runs in this process already, or its database cannot be used.
        StorageError: when the records cannot be used.
    """
    runner = DbosRunner(url, slot, perform, ended, schedules)
    _process.claim(runner)
    try:
        await runner.launch(await slot.take())
    except BaseException as error:
        await runner.aclose()
        if isinstance(error, StorageError) or not isinstance(error, Exception):
            raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DurableRunnerUnavailable(f"its database cannot be used: {first}") from error
    return runner


class DbosRunner:
    """The `DurableRunner` on DBOS."""

    def __init__(
        self,
        url: sa.URL,
        slot: WorkerSlot,
        perform: Perform,
        ended: Callable[[], None],
        schedules: Sequence[Schedule] | None = None,
    ) -> None:
        self._url = url
        self._schedules = schedules
        self._slot = slot
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(perform, ended)
        self._thread = _ControlThread()
        self._engine: sa.Engine | None = None
        self._launched = 0.0
        self._waiting = 0
        # Guards the number of threads that wait for work; leaving waits until there are none.
        self._idle = threading.Condition()

    @property
    def running(self) -> frozenset[str]:
        return self._tasks.running

    async def launch(self, executor: str) -> None:
        """Begin under the name of a slot, and take up what that slot left behind."""
        await self._thread.run(lambda: self._launch(executor))

    def _launch(self, executor: str) -> None:
        if self._url.get_backend_name() == "sqlite":
            _prepare_file(str(self._url.database))
        self._engine = _create_engine(self._url)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._url.render_as_string(hide_password=False),
            "system_database_engine": self._engine,
            "application_version": APPLICATION_VERSION,
            "executor_id": executor,
            # Plain JSON, so that nobody who can write the database can run code here.
            "serializer": DBOSPortableJSONSerializer(),
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": _POLL_SECONDS,
            "enable_otlp": False,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        _take_over_its_log()
        DBOS.listen_queues([_TIMES] if self._schedules else [])
        DBOS.launch()
        self._launched = time.monotonic()
        if self._schedules is not None:
            _apply(self._schedules)

    async def start(self, key: str) -> Started:
        if key in self._tasks.running:
            return "here"
        try:
            where, workflow_id, executor = await self._thread.run(lambda: self._start(key))
        except (dbos_error.DBOSException, sa.exc.SQLAlchemyError, OSError) as error:
            # What DBOS remembers may be lost; the work is due all the same.
            _logger.warning("DBOS cannot be used, so this work is not remembered: key=%s error=%s", key, error)
            task = self._tasks.start(key)
            if task is not None:
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return "here"
        if executor is not None and await self._is_left_behind(executor):
            await self._thread.run(lambda: DBOS.resume_workflow(workflow_id))
        return where

    def _start(self, key: str) -> tuple[Started, str, str | None]:
        """Start a workflow; return where it runs, its id, and, if another one has it, the slot that it runs in."""
        workflow_id = key
        while True:
            try:
                with SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"):
                    DBOS.start_workflow(_durable_work, key)
                return "here", workflow_id, None
            except dbos_error.DBOSWorkflowIDInUseError as used:
                if used.workflow_status not in _ENDED:
                    status = DBOS.get_workflow_status(workflow_id)
                    pending = status is not None and status.status == "PENDING"
                    return "elsewhere", workflow_id, status.executor_id if status is not None and pending else None
            further = DBOS.list_workflows(workflow_id_prefix=f"{key}#", load_input=False, load_output=False)
            ended = [status for status in further if status.status in _ENDED]
            if len(ended) < len(further):
                return "elsewhere", workflow_id, None
            workflow_id = f"{key}#{len(ended) + 2}"

    async def _is_left_behind(self, executor: str) -> bool:
        if executor == self._slot.name:
            return time.monotonic() - self._launched > _SETTLING_SECONDS
        return not await self._slot.is_held(executor)

    def wait_for_work(self, key: str) -> None:
        """Have the work of `key` done on the runner's loop and wait for it, in a thread of DBOS."""
        with self._idle:
            self._waiting += 1
        try:
            work = self._work(key)
            try:
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
            except RuntimeError:
                work.close()
                raise _Abandoned from None
            future.result()
        except concurrent.futures.CancelledError:
            raise _Abandoned from None
        except Exception as error:
            raise _WorkFailed(type(error).__name__) from None
        finally:
            with self._idle:
                self._waiting -= 1
                self._idle.notify_all()

    async def _work(self, key: str) -> None:
        task = self._tasks.start(key)
        if task is None:
            raise asyncio.CancelledError
        await task

    async def forget_ended(self, before: datetime) -> None:
        await self._thread.run(lambda: self._purge(before))

    def _purge(self, before: datetime) -> None:
        while ended := DBOS.list_workflows(
            status=list(_ENDED),
            completed_before=before.isoformat(),
            limit=_PURGED_AT_ONCE,
            load_input=False,
            load_output=False,
        ):
            DBOS.delete_workflows([status.workflow_id for status in ended])

    async def aclose(self) -> None:
        await self._tasks.close()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._thread.run(self._shut_down)
        except TimeoutError:
            # The process goes on without it; it cannot be launched again here.
            _logger.warning("DBOS did not stop within %g s", _PATIENCE_SECONDS)
            return
        finally:
            self._thread.stop()
            if self._slot.name is not None:
                with contextlib.suppress(StorageError):
                    await self._slot.release()
        _process.give_back()

    def _shut_down(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._waiting == 0, timeout=_PATIENCE_SECONDS / 2)
        DBOS.destroy()
        if self._engine is not None:
            self._engine.dispose()


def _apply(schedules: Sequence[Schedule]) -> None:
    """Have exactly these schedules."""
    if schedules:
        DBOS.register_queue(_TIMES, worker_concurrency=1, on_conflict="always_update")
    DBOS.apply_schedules(
        [
            {
                "schedule_name": schedule.name,
                "workflow_fn": _scheduled_work,
                "schedule": schedule.cron,
                "context": schedule.name,
                "cron_timezone": schedule.time_zone,
                "queue_name": _TIMES,
                "automatic_backfill": True,
            }
            for schedule in schedules
        ]
    )
    wanted = {schedule.name for schedule in schedules}
    for known in DBOS.list_schedules():
        if known["schedule_name"] not in wanted:
            DBOS.delete_schedule(known["schedule_name"])


class _ControlThread:
    """One thread that speaks with DBOS. A daemon, because DBOS waits for its database for as long as it takes."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="durable", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread and return what it returns."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._calls.put(call)
        return await asyncio.wrap_future(done)

    def stop(self) -> None:
        self._calls.put(None)


def _prepare_file(path: str) -> None:
    """Make the file its user's alone, and fast: DBOS itself would leave it in the slow journal mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _create_engine(url: sa.URL) -> sa.Engine:
    """Return an engine that does not wait for the disk: what it keeps may be lost, and the records do wait for it."""
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = sa.create_engine(
        url if is_sqlite else url.set(drivername="postgresql+psycopg"),
        poolclass=sa.QueuePool,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=30,
        connect_args={"timeout": 30, "check_same_thread": False} if is_sqlite else {"connect_timeout": 10},
    )
    sa.event.listen(engine, "connect", _prepare_sqlite if is_sqlite else _prepare_postgres)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = "IMMEDIATE"
    for pragma in ("synchronous=OFF", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgres(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.commit()


class _Forwarding(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _logger.log(record.levelno, "DBOS: %s", record.getMessage())


def _take_over_its_log() -> None:
    """Send what DBOS says to the package's log; by itself it writes to standard error."""
    log = logging.getLogger("dbos")
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.addHandler(_Forwarding())
    log.propagate = False

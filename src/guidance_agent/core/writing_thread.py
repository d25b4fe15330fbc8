"""A thread that writes: what is urgent before everything else, and what is of one kind together.

SQLite has one writer, and so has each connection. While one transaction runs, others wait; which of them is next is
decided here and not by when they came. Text that a customer waits for is urgent: it waits for the one transaction that
runs and for none that came before it. The other class does not starve: whoever writes urgently waits for the result
before it writes again, and meanwhile the others have their turn.

Works of one kind that wait at the same time share a transaction, and so the one wait for the disk.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import sqlalchemy as sa

__all__ = ["SharedWork", "WritingThread", "is_about_data"]

A = TypeVar("A")
T = TypeVar("T")

Work = Callable[[sa.Connection], Any]

_TOGETHER = 8
"""Works that share a transaction at most: an urgent one must not wait long for them."""


@dataclass(frozen=True, slots=True)
class SharedWork(Generic[A, T]):
    """Work for the database that is done together with the other work of its kind that waits at the same time.

    Attributes:
        together: Does it, and returns one answer for each of the things asked, in their order. Works with the same
            function are one kind.
        asked: What this work asks.
    """

    together: Callable[[sa.Connection, Sequence[A]], Sequence[T]]
    asked: A

    def __call__(self, connection: sa.Connection) -> T:
        return self.together(connection, [self.asked])[0]


class _Waiting(NamedTuple):
    work: Work
    done: concurrent.futures.Future[Any]


class WritingThread:
    """One thread that does works with `write`, each of them, or several of a kind, in a transaction.

    Args:
        write: Runs a work in one transaction and returns what it returns.
    """

    def __init__(self, name: str, write: Callable[[Work], Any]) -> None:
        self._write = write
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name)
        self._urgent: deque[_Waiting] = deque()
        self._others: deque[_Waiting] = deque()
        # Guards both queues: they are filled by event loops and emptied by the thread.
        self._lock = threading.Lock()

    def submit(self, work: Work, *, urgent: bool = False) -> concurrent.futures.Future[Any]:
        """Have the work done; cancelling the future takes it back as long as it has not begun."""
        waiting = _Waiting(work, concurrent.futures.Future())
        with self._lock:
            # One call for each work; a work that went with another leaves its call nothing to do.
            self._thread.submit(self._next)
            (self._urgent if urgent else self._others).append(waiting)
        return waiting.done

    def shutdown(self) -> None:
        """Do what waits, and end the thread."""
        self._thread.shutdown()

    def _next(self) -> None:
        group = [waiting for waiting in self._taken() if waiting.done.set_running_or_notify_cancel()]
        if len(group) > 1 and self._done_together(group):
            return
        for waiting in group:
            try:
                result = self._write(waiting.work)
            except BaseException as error:
                waiting.done.set_exception(error)
            else:
                waiting.done.set_result(result)

    def _taken(self) -> list[_Waiting]:
        """Take what is next out of the queues, with others of its kind."""
        with self._lock:
            queue = self._urgent or self._others
            if not queue:
                return []
            taken = [queue.popleft()]
            kind = _kind(taken[0])
            if kind is not None:
                further = [waiting for waiting in queue if _kind(waiting) == kind][: _TOGETHER - 1]
                for waiting in further:
                    queue.remove(waiting)
                taken += further
            return taken

    def _done_together(self, group: Sequence[_Waiting]) -> bool:
        """Do works of one kind in one transaction; False where each has to succeed or fail by itself."""
        shared = [waiting.work for waiting in group if isinstance(waiting.work, SharedWork)]
        asked = [work.asked for work in shared]
        try:
            results = self._write(lambda connection: shared[0].together(connection, asked))
        except BaseException as error:
            if is_about_data(error):
                return False
            for waiting in group:
                waiting.done.set_exception(error)
            return True
        for waiting, result in zip(group, results, strict=True):
            waiting.done.set_result(result)
        return True


def _kind(waiting: _Waiting) -> object:
    return waiting.work.together if isinstance(waiting.work, SharedWork) else None


def is_about_data(error: BaseException) -> bool:
    """Whether an error is about what was to be written, and not about the place where it is written."""
    if isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.IntegrityError | sa.exc.DataError)
    return isinstance(error, sa.exc.StatementError | ValueError | TypeError | OverflowError)

"""Blocking work in one thread, in order, which no cancel of its caller takes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self

__all__ = ["OrderedThread"]

P = ParamSpec("P")


class OrderedThread:
    """Runs blocking work in one thread, in the order in which it was asked for.

    Work that was begun goes on when its caller is cancelled, and what is asked for next waits for it.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="stream-file")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=False)

    async def run(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        begun = asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))
        begun.add_done_callback(_note_error)
        await asyncio.shield(begun)


def _note_error(future: asyncio.Future[None]) -> None:
    # Nobody waits for it any more when the caller was cancelled, and asyncio would complain of that.
    if not future.cancelled():
        future.exception()

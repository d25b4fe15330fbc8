"""Ctrl-C and SIGTERM as a request instead of an exception.

While an answer streams, an exception between any two instructions could lose a piece that is recorded as delivered. So
the signal only asks the turn to end, and the loop that shows the answer ends by itself. A second signal, a second or
more later, leaves at once: what was shown is on disk already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from guidance_agent.cli.exit_codes import ExitCode

__all__ = ["Interrupts", "Terminated", "deferred_interrupts", "raise_on_sigterm"]

# A wrapper may pass on the signal that the terminal has already sent: two of them at once are one wish.
_IMPATIENT_AFTER = 1.0


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM, so that open files and turns are closed as after Ctrl-C."""


class Interrupts:
    """Whether a signal has come, and what it starts. `terminated` says that it was SIGTERM."""

    def __init__(self) -> None:
        self.terminated = False
        self._first: float | None = None
        self._stop: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        return self._first is not None

    def call(self, stop: Callable[[], None]) -> None:
        """Have a signal call `stop`; at once if one has come already."""
        self._stop = stop
        if self.requested:
            stop()

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal; for `signal.signal`."""
        now = time.monotonic()
        self.terminated = self.terminated or number == signal.SIGTERM
        if self._first is None:
            self._first = now
            if self._stop is not None:
                self._stop()
        elif now - self._first >= _IMPATIENT_AFTER:
            os._exit(ExitCode.INTERRUPTED)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Turn SIGINT and SIGTERM into a request for as long as the block lasts; for the main thread."""
    interrupts = Interrupts()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupts.on_signal)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_on_sigterm() -> None:
    """Have SIGTERM raise `Terminated`, as Ctrl-C raises `KeyboardInterrupt`."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Terminated

"""A process that is meant and no other: its number together with when it began.

Numbers of processes are given again. So what is kept about a process is its number and a mark that another process with
that number does not have: on Linux the boot and the clock tick at which it began, elsewhere the second that `ps` tells.
Where Linux offers a handle to a process, the signal goes through it: a number that changes hands between looking and
ending is not ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["end_process", "process_mark"]

_PROC = Path("/proc")
_POLL = 0.05
_DEAD = ("Z", "X", "x")
_START = 19  # the field of /proc/PID/stat, counted from the one after the name


def process_mark(pid: int) -> str | None:
    """Return what tells the process from a later one with its number; None when there is no such process."""
    if sys.platform == "linux":
        return _linux_mark(pid)
    return _ps_mark(pid)


def _linux_mark(pid: int) -> str | None:
    try:
        # The name of a program may hold blanks and brackets: the fields begin after the last one.
        fields = (_PROC / str(pid) / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if fields[0] in _DEAD else f"{boot}/{fields[_START]}"


def _ps_mark(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)  # noqa: S603
    except OSError:
        return None
    state, _, started = told.stdout.strip().partition(" ")
    return None if not started or state.startswith(_DEAD) else " ".join(started.split())


def end_process(pid: int, mark: str, *, within: float) -> bool:
    """End the process with this number and mark: politely, after `within` seconds by force.

    Returns:
        Whether it was there. A process with the number and another mark is left alone.
    """
    with _sender(pid) as send:
        if send is None or process_mark(pid) != mark:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            send(number)
            deadline = time.monotonic() + within
            while process_mark(pid) == mark:
                if time.monotonic() > deadline:
                    break
                time.sleep(_POLL)
            else:
                return True
    return True


@contextlib.contextmanager
def _sender(pid: int) -> Iterator[Callable[[signal.Signals], None] | None]:
    """Yield what sends a signal to the process that has the number now; None when there is none."""
    if not hasattr(os, "pidfd_open"):
        yield lambda number: _unless_gone(lambda: os.kill(pid, number))
        return
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield lambda number: _unless_gone(lambda: signal.pidfd_send_signal(handle, number))
    finally:
        os.close(handle)


def _unless_gone(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        send()

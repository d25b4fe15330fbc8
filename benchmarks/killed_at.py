"""An end at a crash point, for processes that work on batches."""

from __future__ import annotations

import os
import signal

__all__ = ["KilledAt"]


class KilledAt:
    """Ends the process with SIGKILL at a point, the time after it was passed `passes` times."""

    def __init__(self, point: str, passes: int) -> None:
        self._point = point
        self._left = passes

    def __call__(self, point: str) -> None:
        if point != self._point:
            return
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

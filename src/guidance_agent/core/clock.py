"""The one seam through which time and identifiers come in, so that tests and replays are deterministic."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, date, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

__all__ = ["Clock", "SystemClock"]

_UK = ZoneInfo("Europe/London")


class Clock(Protocol):
    """Wall clock, monotonic clock and identifiers."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""

    def today(self) -> date:
        """Return the current date in the United Kingdom: tax years and validity dates turn there."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""

    def new_id(self, prefix: str) -> str:
        """Return a new identifier such as `turn_0198…`, sortable by the time it was made."""


class SystemClock:
    """The real clock, with random identifiers."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def today(self) -> date:
        return datetime.now(_UK).date()

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{time.time_ns() // 1_000_000:011x}{uuid.uuid4().hex[:14]}"

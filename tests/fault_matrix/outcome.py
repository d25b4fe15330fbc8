"""What a cell of the matrix says: what became of a call that met a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Outcome", "Shown"]

Shown = Literal[
    "nothing", "thinking", "the beginning", "part of the beginning", "all", "the refusal's words", "something else"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a call.

    Attributes:
        shown: What the caller received of the requested model's answer. A refusal has words of its own on one wire
            format and none on the other.
        error: Class of the error that ended it; None for none.
        retryable: `retryable` of that error.
        retry_after: `retry_after` of that error in seconds, rounded up where the provider computes it.
        finish: Finish reason where no error ended it.
        requests: How many requests reached the provider when every one of them meets the fault.
        once: What comes of a fault that only the first request meets: `answered by request n`, or `the same`.
        fallback: What becomes of a fallback model: `answers`, or `not asked`.
        record: Outcome label of the call's record.
    """

    shown: Shown
    error: str | None = None
    retryable: bool | None = None
    retry_after: float | None = None
    finish: str | None = None
    requests: int
    once: str
    fallback: str
    record: str

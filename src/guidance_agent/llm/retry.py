"""When a call that failed before its first token is made again, and when another model is asked instead.

Nothing here waits or sends: the gateway does. The rules:

- Only an error that says `retryable` is followed by another attempt, and only before the first token.
- The wait is a random time up to `backoff_factor * 2**attempt` and at most `max_wait` (full jitter). What the provider
  asks for with `Retry-After` replaces it; if that is longer than `max_wait`, waiting is not worth it and the attempts
  end.
- No attempt begins after `deadline`, counted from the first; a wait that would end after it is not begun. Each fallback
  has attempts and a deadline of its own, else a provider that stalls would use up the time of the one that works.
- A fallback is asked after every failure of the model or the way to it, a refused key or an unknown model included. It
  is not asked when the request itself was refused, by status or by an event inside the stream: the same words would be
  refused again, or cost twice.
"""

from __future__ import annotations

import random

from guidance_agent.errors import MidStreamError, ModelError, RequestRejectedError
from guidance_agent.settings import RetrySettings

__all__ = ["RetrySchedule", "may_fall_back"]

_REFUSED_REQUEST = frozenset({400, 413, 422})


class RetrySchedule:
    """The attempts of one call at one model.

    Args:
        settings: The provider's retry settings.
        started: Time of the first attempt on a monotonic clock, in seconds.
        rng: Where the jitter comes from.
    """

    def __init__(self, settings: RetrySettings, *, started: float, rng: random.Random) -> None:
        self._settings = settings
        self._started = started
        self._rng = rng
        self.attempts = 1

    def remaining(self, now: float) -> float:
        """Return the seconds that are left until the deadline, at least 0."""
        return max(0.0, self._started + self._settings.deadline - now)

    def postpone(self, seconds: float) -> None:
        """Move the deadline, for a time that is no part of it."""
        self._started += seconds

    def wait_after(self, error: ModelError, now: float) -> float | None:
        """Return how long to wait before the next attempt, in seconds; None to give up.

        Args:
            error: What the last attempt ended with.
            now: The time on the monotonic clock of `started`.
        """
        settings = self._settings
        if not error.retryable or self.attempts >= settings.max_attempts:
            return None
        wait = error.retry_after if settings.respect_retry_after else None
        if wait is None:
            ceiling = min(settings.max_wait, settings.backoff_factor * 2.0 ** (self.attempts - 1))
            wait = self._rng.uniform(0.0, ceiling)
        elif wait > settings.max_wait:
            return None
        if wait >= self.remaining(now):
            return None
        self.attempts += 1
        return wait


def may_fall_back(error: ModelError) -> bool:
    """Return whether another model may succeed where this one failed with `error`."""
    if isinstance(error, MidStreamError):
        return error.status not in _REFUSED_REQUEST
    return not isinstance(error, RequestRejectedError)

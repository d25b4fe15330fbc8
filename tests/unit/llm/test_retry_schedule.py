"""When a failed call is made again."""

from __future__ import annotations

import random

import pytest

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MidStreamError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    ProviderUnavailableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
)
from guidance_agent.llm.retry import RetrySchedule, may_fall_back
from guidance_agent.settings import RetrySettings


def schedule(**settings: float) -> RetrySchedule:
    return RetrySchedule(RetrySettings.model_validate(settings), started=100.0, rng=random.Random(1))


def test_attempts_end_with_the_maximum() -> None:
    attempts = schedule(max_attempts=3)
    error = ProviderUnavailableError("down")
    assert attempts.wait_after(error, 100.0) is not None
    assert attempts.wait_after(error, 100.0) is not None
    assert attempts.wait_after(error, 100.0) is None


@pytest.mark.parametrize("error", [AuthenticationError("no"), RequestRejectedError("no"), QuotaExhaustedError("no")])
def test_an_error_that_waiting_does_not_cure_is_not_tried_again(error: ModelError) -> None:
    assert schedule().wait_after(error, 100.0) is None


def test_waits_are_random_below_a_ceiling_that_doubles() -> None:
    ceilings = [1.0, 2.0, 4.0, 5.0, 5.0]
    seen: list[list[float]] = [[] for _ in ceilings]
    for seed in range(200):
        attempts = RetrySchedule(
            RetrySettings(max_attempts=6, backoff_factor=1.0, max_wait=5.0), started=0.0, rng=random.Random(seed)
        )
        for waits in seen:
            wait = attempts.wait_after(ProviderUnavailableError("down"), 0.0)
            assert wait is not None
            waits.append(wait)
    for waits, ceiling in zip(seen, ceilings, strict=True):
        assert max(waits) <= ceiling
        assert max(waits) > 0.9 * ceiling
        assert min(waits) < 0.1 * ceiling


def test_the_providers_wish_replaces_the_jitter() -> None:
    assert schedule().wait_after(RateLimitedError("slow down", retry_after=7.5), 100.0) == 7.5


def test_the_providers_wish_can_be_ignored() -> None:
    attempts = RetrySchedule(
        RetrySettings(respect_retry_after=False, backoff_factor=1.0), started=100.0, rng=random.Random(1)
    )
    wait = attempts.wait_after(RateLimitedError("slow down", retry_after=29.0), 100.0)
    assert wait is not None
    assert wait <= 1.0


def test_a_wish_longer_than_the_longest_wait_ends_the_attempts() -> None:
    assert schedule(max_wait=10.0).wait_after(RateLimitedError("slow down", retry_after=10.5), 100.0) is None


def test_no_attempt_begins_after_the_deadline() -> None:
    attempts = schedule(deadline=20.0)
    assert attempts.wait_after(RateLimitedError("slow down", retry_after=5.0), 114.0) == 5.0
    assert attempts.wait_after(RateLimitedError("slow down", retry_after=5.0), 115.0) is None
    assert attempts.remaining(115.0) == 5.0
    assert attempts.remaining(130.0) == 0.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AuthenticationError("no"), True),
        (ModelNotFoundError("no"), True),
        (QuotaExhaustedError("no"), True),
        (MidStreamError("no"), True),
        (MidStreamError("no", status=529), True),
        (MidStreamError("no", status=401), True),
        (MidStreamError("no", status=400), False),
        (ModelTimeoutError("no", phase="first_event"), True),
        (RequestRejectedError("no"), False),
        (ContextWindowExceededError("no"), False),
    ],
)
def test_only_a_refused_request_is_not_taken_to_another_model(error: ModelError, expected: bool) -> None:
    assert may_fall_back(error) is expected

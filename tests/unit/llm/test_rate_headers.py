"""What the headers of an answer tell of rate limits."""

from __future__ import annotations

import math

import pytest

from guidance_agent.llm.limits_state import NOTHING
from guidance_agent.llm.transports.rate_headers import UNTOLD, RateHeaders, read_rate_headers

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-remaining-tokens": "12000",
    "x-ratelimit-reset-requests": "1m6.5s",
    "x-ratelimit-reset-tokens": "6ms",
}
ANTHROPIC = {
    "date": "Sat, 21 Nov 2026 12:00:00 GMT",
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "40000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-21T12:00:30Z",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-remaining": "7000",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-21T12:00:09Z",
    "anthropic-ratelimit-tokens-limit": "48000",
    "anthropic-ratelimit-tokens-remaining": "7000",
}


def test_durations_of_one_family_are_read() -> None:
    assert read_rate_headers(OPENAI) == RateHeaders((500, 30_000, 0), (0, 12_000, math.inf), 66.5)  # type: ignore[arg-type]


def test_input_and_output_of_the_other_are_not_mixed_up() -> None:
    told = read_rate_headers(ANTHROPIC)
    assert told.limits == (50, 40_000, 8_000)
    assert told.left == (49, 0, 7_000)
    assert told.reset == 30


def test_names_that_a_router_passes_on_are_read_too() -> None:
    told = read_rate_headers({f"llm_provider-{name}": value for name, value in OPENAI.items()})
    assert told.limits.requests == 500


@pytest.mark.parametrize("headers", [{}, {"retry-after": "3"}, {"x-request-id": "r"}])
def test_without_such_headers_nothing_is_told(headers: dict[str, str]) -> None:
    assert read_rate_headers(headers) == RateHeaders(NOTHING, UNTOLD, None)


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "-3"])
def test_what_cannot_be_read_says_nothing(value: str) -> None:
    told = read_rate_headers({**OPENAI, "x-ratelimit-limit-requests": value, "x-ratelimit-remaining-requests": value})
    assert told.limits == (0, 30_000, 0)
    assert told.left.requests == math.inf


@pytest.mark.parametrize(("reset", "seconds"), [("8.64s", 8.64), ("0s", 0), ("2h3m", 7_380), ("120ms", 0.12)])
def test_resets_are_seconds(reset: str, seconds: float) -> None:
    assert read_rate_headers({**OPENAI, "x-ratelimit-reset-requests": reset}).reset == pytest.approx(seconds)


@pytest.mark.parametrize("reset", ["", "soon", "2026-11-21T12:00:30", "99999-01-01T00:00:00Z"])
def test_a_reset_that_cannot_be_read_says_nothing(reset: str) -> None:
    assert read_rate_headers({**ANTHROPIC, "anthropic-ratelimit-input-tokens-reset": reset}).reset is None

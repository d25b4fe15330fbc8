"""Requests and tokens per minute, and the headers that tell of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.models import ModelSpec
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["Bucket", "RateLimits"]

_SHOWN_REQUESTS = 4_000
_SHOWN_TOKENS = 2_000_000
_OUTPUT_SHARE = 5


@dataclass(slots=True)
class Bucket:
    """What is left of a limit; it refills evenly over a minute."""

    capacity: float
    level: float
    updated: float

    def refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self.updated) * self.capacity / 60)
        self.updated = now

    def wait_for(self, amount: float) -> float:
        """Seconds until `amount` is there; more than the capacity waits for a full bucket."""
        return max(0.0, (min(amount, self.capacity) - self.level) * 60 / self.capacity)

    def seconds_to_full(self) -> float:
        return (self.capacity - self.level) * 60 / self.capacity


@dataclass(slots=True)
class _Pair:
    requests: Bucket
    tokens: Bucket


class RateLimits:
    """Buckets per key and model. Without limits in the settings nothing is refused, and the headers show ample ones."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._pairs: dict[tuple[str, str], _Pair] = {}

    def _pair(self, model: ModelSpec, workspace: str, now: float) -> _Pair:
        pair = self._pairs.get((workspace, model.name))
        if pair is None:
            requests = float(self._settings.requests_per_minute or _SHOWN_REQUESTS)
            tokens = float(self._settings.tokens_per_minute or _SHOWN_TOKENS)
            pair = _Pair(Bucket(requests, requests, now), Bucket(tokens, tokens, now))
            self._pairs[workspace, model.name] = pair
        pair.requests.refill(now)
        pair.tokens.refill(now)
        return pair

    def admit(self, prompt: Prompt, use: CacheUse, *, workspace: str, now: float) -> None:
        """Book a request; raises the provider's 429 when a limit is used up.

        Cached reads do not count towards Anthropic's input tokens per minute; towards OpenAI's they do.
        """
        pair = self._pair(prompt.model, workspace, now)
        anthropic = prompt.model.wire == "anthropic"
        tokens = use.uncached + use.written if anthropic else use.total
        if self._settings.requests_per_minute is not None and pair.requests.level < 1:
            raise _refusal(prompt.model, pair, "requests", 1, now)
        if self._settings.tokens_per_minute is not None and pair.tokens.wait_for(tokens) > 0:
            raise _refusal(prompt.model, pair, "tokens", tokens, now)
        pair.requests.level = max(0.0, pair.requests.level - 1)
        pair.tokens.level = max(0.0, pair.tokens.level - tokens)

    def headers(self, model: ModelSpec, *, workspace: str, now: float) -> dict[str, str]:
        """The rate-limit headers of an answer, under the provider's names."""
        return _headers(model, self._pair(model, workspace, now), now)


def _headers(model: ModelSpec, pair: _Pair, now: float) -> dict[str, str]:
    return _openai_headers(pair) if model.wire == "openai" else _anthropic_headers(pair, now)


def _openai_headers(pair: _Pair) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(int(pair.requests.capacity)),
        "x-ratelimit-limit-tokens": str(int(pair.tokens.capacity)),
        "x-ratelimit-remaining-requests": str(int(pair.requests.level)),
        "x-ratelimit-remaining-tokens": str(int(pair.tokens.level)),
        "x-ratelimit-reset-requests": _short(pair.requests.seconds_to_full()),
        "x-ratelimit-reset-tokens": _short(pair.tokens.seconds_to_full()),
    }


def _anthropic_headers(pair: _Pair, now: float) -> dict[str, str]:
    requests_reset = _stamp(now + pair.requests.seconds_to_full())
    tokens_reset = _stamp(now + pair.tokens.seconds_to_full())
    input_limit, input_left = int(pair.tokens.capacity), _thousands(pair.tokens.level)
    output_limit, output_left = input_limit // _OUTPUT_SHARE, _thousands(pair.tokens.level / _OUTPUT_SHARE)
    figures = {
        "requests": (int(pair.requests.capacity), int(pair.requests.level), requests_reset),
        "input-tokens": (input_limit, input_left, tokens_reset),
        "output-tokens": (output_limit, output_left, tokens_reset),
        "tokens": (input_limit + output_limit, input_left + output_left, tokens_reset),
    }
    headers = {}
    for name, (limit, remaining, reset) in figures.items():
        headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(remaining)
        headers[f"anthropic-ratelimit-{name}-reset"] = reset
    return headers


def _refusal(
    model: ModelSpec, pair: _Pair, what: Literal["requests", "tokens"], requested: float, now: float
) -> ProviderError:
    bucket = pair.requests if what == "requests" else pair.tokens
    wait = bucket.wait_for(requested)
    limit = int(bucket.capacity)
    headers = {"retry-after": str(max(1, math.ceil(wait))), **_headers(model, pair, now)}
    if model.wire == "anthropic":
        unit = "input tokens" if what == "tokens" else "requests"
        return ProviderError(
            429,
            "rate_limit_error",
            f"This request would exceed your organization's rate limit of {limit:,} {unit} per minute. For details, "
            "refer to: https://docs.claude.com/en/api/rate-limits.",
            headers=headers,
        )
    unit = "tokens per min (TPM)" if what == "tokens" else "requests per min (RPM)"
    return ProviderError(
        429,
        what,
        f"Rate limit reached for {model.name} in organization org-simulated on {unit}: Limit {limit}, "
        f"Used {round(bucket.capacity - bucket.level)}, Requested {round(requested)}. "
        f"Please try again in {_short(wait)}. Visit https://platform.openai.com/account/rate-limits to learn more.",
        code="rate_limit_exceeded",
        headers={**headers, "retry-after-ms": str(math.ceil(wait * 1_000))},
    )


def _short(seconds: float) -> str:
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{max(1, round(seconds * 1_000))}ms"
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{shown}s" if minutes else f"{shown}s"


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(math.ceil(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _thousands(tokens: float) -> int:
    return round(tokens / 1_000) * 1_000

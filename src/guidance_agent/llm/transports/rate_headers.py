"""What the headers of an answer tell of rate limits. Pure functions.

Two families of names are in use: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, whose resets are durations
such as `1m6.2s` or `6ms`, and `anthropic-ratelimit-{requests,input-tokens,output-tokens}-{limit,remaining,reset}`,
whose resets are moments (RFC 3339) and whose tokens are rounded to thousands. What cannot be read says nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from guidance_agent.llm.limits_state import NOTHING, Amounts

__all__ = ["UNTOLD", "RateHeaders", "rate_headers", "read_rate_headers"]

UNTOLD = Amounts(math.inf, math.inf, math.inf)
"""Nothing is known of what is left."""

_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "llm_provider-x-ratelimit-", "llm_provider-anthropic-ratelimit-")
_NAMES = (
    ("x-ratelimit-{}-requests", "x-ratelimit-{}-tokens", None),
    ("anthropic-ratelimit-requests-{}", "anthropic-ratelimit-input-tokens-{}", "anthropic-ratelimit-output-tokens-{}"),
)
_duration = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (3600.0, 60.0, 1.0, 0.001)


class RateHeaders(NamedTuple):
    """What a minute allows (0 where not told), what is left, and after how many seconds a used-up limit resets."""

    limits: Amounts = NOTHING
    left: Amounts = UNTOLD
    reset: float | None = None


def rate_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that tell of rate limits, and the provider's own time."""
    return {name: value for name, value in headers.items() if name == "date" or name.startswith(_PREFIXES)}


def read_rate_headers(headers: Mapping[str, str]) -> RateHeaders:
    """Read the headers of an answer (lower-case names)."""
    for names in _NAMES:
        for prefix in ("", "llm_provider-"):
            if any(name is not None and f"{prefix}{name.format('limit')}" in headers for name in names):
                return _read(headers, [name and f"{prefix}{name}" for name in names])
    return RateHeaders()


def _read(headers: Mapping[str, str], names: list[str | None]) -> RateHeaders:
    limits = [_number(headers, name, "limit") for name in names]
    left = [_number(headers, name, "remaining") for name in names]
    resets = [
        seconds
        for name, rest in zip(names, left, strict=True)
        if name is not None and rest is not None and rest < 1
        if (seconds := _seconds(headers.get(name.format("reset")), headers.get("date"))) is not None
    ]
    return RateHeaders(
        Amounts(*(limit or 0.0 for limit in limits)),
        Amounts(*(math.inf if rest is None else rest for rest in left)),
        max(resets, default=None),
    )


def _number(headers: Mapping[str, str], name: str | None, kind: str) -> float | None:
    if name is None:
        return None
    try:
        value = float(headers[name.format(kind)])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _seconds(value: str | None, date: str | None) -> float | None:
    if not value:
        return None
    found = _duration.fullmatch(value)
    if found is not None and any(found.groups()):
        return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
    try:
        moment = datetime.fromisoformat(value)
        # On the provider's own clock where it tells the time, so that a wrong clock here does no harm.
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    except ValueError:
        return None
    if moment.tzinfo is None or now.tzinfo is None:
        return None
    return max(0.0, (moment - now).total_seconds())

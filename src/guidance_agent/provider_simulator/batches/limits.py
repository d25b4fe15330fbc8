"""Requests per minute about files and batches, which the providers count apart from interactive calls."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from guidance_agent.provider_simulator.limits import Bucket
from guidance_agent.provider_simulator.models import Wire
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.wire_errors import standard_error

__all__ = ["BatchLimits"]

_SHOWN = 4_000


class BatchLimits:
    """One bucket per key and provider."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._limit = settings.batch_requests_per_minute
        self._buckets: dict[tuple[Wire, str], Bucket] = {}

    def admit(self, wire: Wire, workspace: str, now: float) -> None:
        """Book a request; raises the provider's 429 when the limit is used up."""
        bucket = self._bucket(wire, workspace, now)
        if self._limit is not None and bucket.level < 1:
            error = standard_error(wire, 429)
            error.message = (
                f"This request would exceed your organization's rate limit of {self._limit:,} requests per minute for "
                "batches. For details, refer to: https://docs.claude.com/en/api/rate-limits."
                if wire == "anthropic"
                else f"Rate limit reached for batches on requests per min (RPM): Limit {self._limit}."
            )
            if wire == "openai":
                error.kind = "requests"
            error.headers["retry-after"] = str(max(1, math.ceil(bucket.wait_for(1))))
            raise error
        bucket.level = max(0.0, bucket.level - 1)

    def headers(self, wire: Wire, workspace: str, now: float) -> dict[str, str]:
        """The headers of an answer that tell of the limit; OpenAI sends none here."""
        if wire == "openai":
            return {}
        bucket = self._bucket(wire, workspace, now)
        reset = datetime.fromtimestamp(math.ceil(now + bucket.seconds_to_full()), UTC)
        return {
            "anthropic-ratelimit-requests-limit": str(int(bucket.capacity)),
            "anthropic-ratelimit-requests-remaining": str(int(bucket.level)),
            "anthropic-ratelimit-requests-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _bucket(self, wire: Wire, workspace: str, now: float) -> Bucket:
        bucket = self._buckets.get((wire, workspace))
        if bucket is None:
            capacity = float(self._limit or _SHOWN)
            bucket = self._buckets[wire, workspace] = Bucket(capacity, capacity, now)
        bucket.refill(now)
        return bucket

"""What the simulator can be told before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

__all__ = ["ChunkMode", "LatencyProfile", "SimulatorSettings"]

ChunkMode = Literal["event", "random", "byte"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProfile:
    """How long a class of models takes.

    Attributes:
        first_token: Seconds before the first token of an empty prompt.
        per_uncached_token: Seconds added per input token that is computed.
        per_cached_token: Seconds added per input token that is read from the cache.
        tokens_per_second: Pace of the answer.
    """

    first_token: float
    per_uncached_token: float = 0.000_15
    per_cached_token: float = 0.000_02
    tokens_per_second: float = 80.0

    def time_to_first_token(self, *, uncached: int, cached: int) -> float:
        return self.first_token + uncached * self.per_uncached_token + cached * self.per_cached_token


def _default_latency() -> dict[str, LatencyProfile]:
    return {
        "author": LatencyProfile(first_token=0.6),
        "fast": LatencyProfile(first_token=0.25, tokens_per_second=150.0),
        "embedding": LatencyProfile(first_token=0.06, per_uncached_token=0.000_005),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Settings of one simulator.

    Attributes:
        host: Always the loopback address; anything else is refused.
        port: 0 takes a free port.
        seed: Everything that looks random follows from it.
        latency: Profile per class of models (`author`, `fast`, `embedding`).
        zero_latency: Answer at once, many events per write; the latency table is not used.
        chunk_mode: How the bytes of a stream are cut: one write per `event`, `random` pieces of 1 to 64 bytes (through
            UTF-8 characters and field names), or `byte` by byte.
        line_ending: `\\n` or `\\r\\n` in event streams.
        extra_ping_rate: Share of text events that a further ping precedes (Anthropic), from 0 to 1.
        chunk_interval: Seconds between text chunks instead of the model's pace; None keeps the pace.
        chunk_tokens: Tokens per text chunk; None keeps what the provider does (Anthropic a few, OpenAI one).
        answer_tokens: Length that composed answers aim at.
        state_path: File that keeps cache entries for a later process; files and batches are kept in a database beside
            it. None keeps nothing.
        requests_per_minute: Limit per key and model; None sets no limit.
        tokens_per_minute: Limit per key and model; None sets no limit.
        context_windows: Overrides of a model's context window, in tokens.
        cache_minimums: Overrides of a model's shortest cacheable prefix, in tokens.
        extra_models: Further model names that are served, with the name of a known model to behave like.
        any_model: Serve model names that are not in the table, too.
        openai_miss_rate: Share of OpenAI cache reads that miss although an entry is there, from 0 to 1.
        openai_idle_ttl: Seconds that an automatic OpenAI cache entry lives after its last use (300 to 600).
        retry_after_on_success_rate: Share of Anthropic 200 answers that carry `retry-after`, as seen on the wire.
        batch_window: Seconds that the 24 hours of a batch take; 86400 is real time. Everything a batch does is scaled
            with it; how long results and cache entries are kept is not.
        batch_duration: Seconds until the last request of a batch has been answered; None takes a 48th of the window,
            and no time at all without latency.
        batch_cache_miss_rate: Share of an Anthropic batch's requests that find nothing in the cache although it is
            there.
        openai_batch_caching: Whether the requests of OpenAI batches are cached at all, which is not documented.
        batch_requests_per_minute: Limit of requests about batches and files per key; None sets no limit.
        batch_queued_requests: Requests that may wait in a key's Anthropic batches; None sets no limit.
        batch_enqueued_tokens: Tokens that may wait in a key's OpenAI batches of a model, estimated by their bytes; None
            sets no limit.
        batch_most_requests: Requests in one batch; None takes the provider's limit.
        batch_most_bytes: Bytes of one batch; None takes the provider's limit.
        log_limit: Requests that the log keeps; older ones are dropped.
        log_bodies: False keeps the log small: no request bodies.
    """

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 0
    latency: Mapping[str, LatencyProfile] = field(default_factory=_default_latency)
    zero_latency: bool = False
    chunk_mode: ChunkMode = "event"
    line_ending: Literal["\n", "\r\n"] = "\n"
    extra_ping_rate: float = 0.0
    chunk_interval: float | None = None
    chunk_tokens: int | None = None
    answer_tokens: int = 350
    state_path: Path | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    context_windows: Mapping[str, int] = field(default_factory=dict)
    cache_minimums: Mapping[str, int] = field(default_factory=dict)
    extra_models: Mapping[str, str] = field(default_factory=dict)
    any_model: bool = False
    openai_miss_rate: float = 0.0
    openai_idle_ttl: float = 300.0
    retry_after_on_success_rate: float = 0.2
    batch_window: float = 120.0
    batch_duration: float | None = None
    batch_cache_miss_rate: float = 0.02
    openai_batch_caching: bool = False
    batch_requests_per_minute: int | None = None
    batch_queued_requests: int | None = None
    batch_enqueued_tokens: int | None = None
    batch_most_requests: int | None = None
    batch_most_bytes: int | None = None
    log_limit: int = 2_000
    log_bodies: bool = True

    def __post_init__(self) -> None:
        if self.host != "127.0.0.1":
            raise ValueError(f"the simulator listens on 127.0.0.1 only, got host {self.host!r}; leave it out")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port must be between 0 and 65535, got {self.port!r}; use 0 for a free one")
        if self.batch_window <= 0 or (self.batch_duration is not None and self.batch_duration < 0):
            raise ValueError(
                f"a batch needs a window above 0 s and a duration of at least 0 s, got {self.batch_window!r} and "
                f"{self.batch_duration!r}; leave them out for two minutes"
            )

    @property
    def batch_takes(self) -> float:
        """Seconds until the last request of a batch has been answered."""
        if self.batch_duration is not None:
            return self.batch_duration
        return 0.0 if self.zero_latency else self.batch_window / 48

    @classmethod
    def instant(cls, *, seed: int = 0) -> SimulatorSettings:
        """Settings without any waiting, for tests."""
        return cls(seed=seed, zero_latency=True)

    def but(self, **changes: object) -> SimulatorSettings:
        """The same settings with some of them changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

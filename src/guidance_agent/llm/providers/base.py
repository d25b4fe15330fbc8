"""The shape of a provider's profile, and what a profile says about a call before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from guidance_agent.llm.messages import ModelRequest

__all__ = ["Breakpoint", "CachePlan", "Endpoint", "ModelTraits", "PlannedPart", "ProviderProfile", "Wire"]

Wire = Literal["anthropic", "openai"]
CacheTtl = Literal["5m", "30m", "1h"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom a provider is called. `wire` is None where only LiteLLM speaks its format.

    `repr` leaves the key out.
    """

    provider: str
    base_url: str | None
    wire: Wire | None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What one model can do and accepts.

    Attributes:
        caching: `explicit` needs breakpoints, `prefix` caches by itself, `none` does not cache.
        minimum_cache_tokens: Shortest prefix that is cached, in tokens; None when unknown.
        context_window: In tokens; None when unknown.
        accepts_temperature: Whether a temperature other than the default may be sent.
        max_tokens_field: Name of the field for the answer's upper bound, in the OpenAI wire format.
    """

    caching: Literal["explicit", "prefix", "none"] = "none"
    minimum_cache_tokens: int | None = None
    context_window: int | None = None
    accepts_temperature: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A cache breakpoint at the end of the message at `index` of the request's messages."""

    index: int
    ttl: CacheTtl


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """One stable part of a prompt: its name, the SHA-256 of everything up to its end, and whether it can be cached.

    `tokens` is the estimated length of the prefix that ends with the part; `note` says why there is no breakpoint.
    """

    name: str
    index: int
    fingerprint: str
    tokens: int
    cached: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """Where a provider is asked to cache a prompt, made before the call and without I/O."""

    caching: Literal["explicit", "prefix", "none"]
    breakpoints: tuple[Breakpoint, ...] = ()
    cache_key: str | None = None
    parts: tuple[PlannedPart, ...] = ()


class ProviderProfile(Protocol):
    """A provider: its defaults, its models' traits and its cache plans. Pure, so that tests need no network."""

    name: str
    wire: Wire | None
    default_base_url: str | None
    key_variables: tuple[str, ...]
    base_url_variables: tuple[str, ...]
    needs_key: bool
    default_model: str | None
    fast_model: str | None

    def traits(self, model: str) -> ModelTraits:
        """Return what `model` (without the provider prefix) can do."""

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        """Return where to cache the request's stable parts, and why not where not."""

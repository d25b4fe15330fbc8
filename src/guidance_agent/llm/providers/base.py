"""The shape of a provider's profile, and what a profile says about a call before it is sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self

from guidance_agent.llm.messages import ModelRequest

__all__ = [
    "Breakpoint",
    "CachePlan",
    "CacheTtl",
    "Caching",
    "Endpoint",
    "LimitedTokens",
    "ModelTraits",
    "PlannedPart",
    "Profile",
    "ProviderProfile",
    "Wire",
]

Wire = Literal["anthropic", "openai"]
Caching = Literal["explicit", "prefix", "none"]
LimitedTokens = Literal["uncached", "all"]
CacheTtl = Literal["5m", "30m", "1h"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom a provider is called. `wire` is None where only LiteLLM speaks its format.

    `base_url` has no trailing slash; it ends before `/v1` on the Anthropic wire and with the version on the OpenAI
    wire. `repr` leaves the key out.
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
        native_schema: Whether the provider is known to hold an answer to a JSON Schema itself.
        always_thinks: Whether thinking cannot be switched off; it counts towards the bound of the answer.
        reports_cache: Whether the usage says what was read from a cache, if anything was.
        limited_tokens: What a limit of tokens per minute counts: `uncached` is the input that was not read from a
            cache, with a limit of its own for the output; `all` is input and output together.
    """

    caching: Caching = "none"
    minimum_cache_tokens: int | None = None
    context_window: int | None = None
    accepts_temperature: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    native_schema: bool = False
    always_thinks: bool = False
    reports_cache: bool = True
    limited_tokens: LimitedTokens = "all"


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A cache breakpoint at the end of the message at `index` of the request's messages."""

    index: int
    ttl: CacheTtl


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """One stable part of a prompt: its name, the SHA-256 of everything up to its end, and whether it can be cached.

    `tokens` is the estimated length of the prefix that ends with the part. `cached` promises that it is long enough,
    with a margin for the error of the estimate; where it is False, `note` says why, or why that is uncertain. `index`
    is the message that ends the part, or -1 for tools and answer schema, which a provider puts before the messages.
    """

    name: str
    index: int
    fingerprint: str
    tokens: int
    cached: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """Where a provider is asked to cache a prompt, made before the call and without I/O.

    Attributes:
        caching: As in the model's traits.
        breakpoints: In the order of the messages, at most four.
        cache_key: Key under which the provider routes the prompt; None sends none.
        parts: The named parts of the prompt, with what the plan thinks of each.
        prefixes: SHA-256 of the prompt up to the end of each message but the last, so that a later prompt can be
            recognised as the continuation of an earlier one.
        minimum_tokens: The model's shortest cacheable prefix; None when unknown.
        look_back: How many messages before a breakpoint an earlier entry is still found; None means anywhere.
        enabled: False when the request asked for no caching.
        reported: False when a usage without reads may only mean that the provider does not report them.
        life: How long an unused prefix stays in a cache without breakpoints, in seconds.
    """

    caching: Caching
    breakpoints: tuple[Breakpoint, ...] = ()
    cache_key: str | None = None
    parts: tuple[PlannedPart, ...] = ()
    prefixes: tuple[str, ...] = field(default=(), repr=False)
    minimum_tokens: int | None = None
    look_back: int | None = None
    enabled: bool = True
    reported: bool = True
    life: float = 300.0


class ProviderProfile(Protocol):
    """A provider: its defaults, its models' traits and its cache plans. Pure, so that tests need no network."""

    @property
    def name(self) -> str: ...
    @property
    def wire(self) -> Wire | None: ...
    @property
    def default_base_url(self) -> str | None: ...
    @property
    def key_variables(self) -> tuple[str, ...]: ...
    @property
    def base_url_variables(self) -> tuple[str, ...]: ...
    @property
    def needs_key(self) -> bool: ...
    @property
    def default_model(self) -> str | None: ...
    @property
    def fast_model(self) -> str | None: ...

    def traits(self, model: str) -> ModelTraits:
        """Return what `model` (without the provider prefix) can do."""

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        """Return where to cache the request's stable parts, and why not where not."""

    def extra_fields(self, request: ModelRequest) -> Mapping[str, Any]:
        """Return the fields of a request that the provider's options make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(ABC):
    """What the profiles share: their data, and the settings that override the traits of single models.

    Attributes:
        key_variables: Environment variables that may hold the key, in order.
        base_url_variables: The same for the address.
        needs_key: Whether the provider's own address refuses calls without a key.
        default_model: Author model, with its provider, for a user who named none; None where there is no obvious one.
        fast_model: The same for private reasoning and ratings.
        judge_model: The same for judging what the author wrote: another strong model, so that none marks its own work.
        cache_minimums: Minimum cacheable prefix by model id, in tokens; wins over the traits.
        context_windows: Context window by model id, in tokens; wins over the traits.
        cache_keys: Over how many keys the consultations with the same shared parts are spread, where the provider takes
            keys.
        known_options: Which of the settings' `options` the provider takes.
        options: Those that are set.
    """

    name: str
    wire: Wire | None = None
    default_base_url: str | None = None
    key_variables: tuple[str, ...] = ()
    base_url_variables: tuple[str, ...] = ()
    needs_key: bool = True
    default_model: str | None = None
    fast_model: str | None = None
    judge_model: str | None = None
    cache_minimums: Mapping[str, int] = field(default_factory=dict)
    context_windows: Mapping[str, int] = field(default_factory=dict)
    cache_keys: int = 1
    known_options: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)

    def wire_for(self, options: Collection[str]) -> Wire | None:
        """Return the wire format in which these options can be sent; None where only LiteLLM can."""
        return self.wire

    def extra_fields(self, request: ModelRequest) -> Mapping[str, Any]:
        """Return the fields of a request that the options make, as LiteLLM and the OpenAI wire format name them.

        What the request's model cannot take is left out.
        """
        return {}

    @abstractmethod
    def known_traits(self, model: str) -> ModelTraits:
        """Return the traits of `model` before the overrides."""

    @abstractmethod
    def cache_plan(self, request: ModelRequest) -> CachePlan:
        """Return where to cache the request's stable parts, and why not where not."""

    def traits(self, model: str) -> ModelTraits:
        """Return what `model` (without the provider prefix) can do, overrides included."""
        traits = self.known_traits(model)
        minimum = self.cache_minimums.get(model)
        window = self.context_windows.get(model)
        if minimum is not None:
            traits = replace(traits, minimum_cache_tokens=minimum)
        return replace(traits, context_window=window) if window is not None else traits

    def with_overrides(
        self,
        cache_minimums: Mapping[str, int],
        context_windows: Mapping[str, int],
        cache_keys: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the profile with traits of single models replaced, with options, and with another number of keys."""
        return replace(
            self,
            cache_minimums=dict(cache_minimums),
            context_windows=dict(context_windows),
            cache_keys=self.cache_keys if cache_keys is None else cache_keys,
            options=dict(options or {}),
        )

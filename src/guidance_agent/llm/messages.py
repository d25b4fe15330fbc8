"""What goes to a model and what comes back, in words that no provider owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = [
    "CacheOutcome",
    "Completion",
    "Cost",
    "Delta",
    "FinishReason",
    "Message",
    "ModelCall",
    "ModelRequest",
    "Role",
    "Timing",
    "ToolCall",
    "ToolCallDelta",
    "ToolSpec",
    "UnitPrices",
    "Usage",
]

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "refusal", "tool_calls", "content_filter", "pause", "other"]
CacheOutcome = str
"""One of `hit`, `first_write`, `part_changed:<part>`, `expired`, `below_minimum`, `not_supported`,
`provider_miss`, `unknown`; `local_hit` when the local response cache answered and no provider was asked."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the model; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt.

    `part` names the stable part that ends with this message (such as `conduct` or `conversation`): the cache plan may
    put a breakpoint there. None means that no reusable prefix ends here.
    """

    role: Role
    content: str
    part: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One call of a model, frozen before anything is sent.

    Attributes:
        model: LiteLLM-style name with its provider, such as `anthropic/claude-sonnet-5-5`.
        messages: System messages first, then the conversation; the last one is the user's.
        max_tokens: Upper bound for the answer, in tokens.
        temperature: None leaves the provider's default.
        operation: What the call is for (`guidance`, `reasoning`, `importance`, …); kept with its usage.
        response_schema: JSON Schema that the answer must satisfy; None for free text.
        use_cache: False sends no cache breakpoints.
        fallbacks: Models tried in order when this one fails before its first token.
        cache_key: Groups calls that share a prefix, for providers that route by such a key.
        metadata: Ids that the call's record keeps, such as `turn_id`; never sent to the provider.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int = 1024
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    operation: str = "completion"
    tools: tuple[ToolSpec, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    use_cache: bool = True
    fallbacks: tuple[str, ...] = ()
    cache_key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call, split so that the parts add up: no token is counted in two fields.

    `input_tokens` is what was neither read from nor written to a cache. `reasoning_tokens` is the part of
    `output_tokens` that the model spent on thinking. `estimated` marks figures that no provider reported.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def cache_write_tokens(self) -> int:
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def total_input_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return the tokens of both; estimated if one of them is."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens + other.cache_write_5m_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: `id` and `name` come with the first piece, `arguments` is appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. Text is for the customer; reasoning never is.

    `usage` is cumulative for the call: the last one seen is the usage of the call. `pieces` is how many of the
    provider's pieces arrived together and were joined in this one.
    """

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCallDelta | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    pieces: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times of one call, in seconds from the moment it was asked for; None where it did not come to that."""

    first_token: float | None = None
    total: float = 0.0
    chunks: int = 0
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """Prices in US dollars per token that a cost was made with, and where they came from."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one call in US dollars, with the unit prices that made it."""

    usd: float
    prices: UnitPrices
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """The record of one call, whatever became of it: one row of the usage ledger.

    `cost` is None when the model has no price; `usage` is None when the call failed before any was known. `cache_parts`
    and `cache_use` say for each part of the prompt what it was and what became of it; see `llm/cache_use.py`.
    `limit_wait` is for how many seconds the call queued for a rate limit, `rate_limited` how many of its attempts the
    provider refused with a 429.
    """

    id: str
    operation: str
    model: str
    requested_model: str
    provider: str
    transport: str
    started_at: datetime
    outcome: str
    finish_reason: FinishReason | None
    attempts: int
    timing: Timing
    usage: Usage | None
    cost: Cost | None
    cache_outcome: CacheOutcome
    cache_parts: Mapping[str, str]
    cache_use: Mapping[str, str]
    simulated: bool
    request_id: str | None
    error: str | None
    metadata: Mapping[str, str]
    limit_wait: float = 0.0
    rate_limited: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole answer with what it cost."""

    text: str
    finish_reason: FinishReason
    call: ModelCall
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def usage(self) -> Usage:
        return self.call.usage if self.call.usage is not None else Usage(estimated=True)

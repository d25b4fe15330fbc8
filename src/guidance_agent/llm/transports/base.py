"""The small interface behind which every way to a provider stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from guidance_agent.llm.messages import Delta, FinishReason, ModelRequest, ToolCall, Usage
from guidance_agent.llm.providers.base import CachePlan, Endpoint, ModelTraits
from guidance_agent.settings import TimeoutSettings

__all__ = ["PreparedCall", "RawCompletion", "RawEmbeddings", "Transport", "TransportStream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCall:
    """A request with everything that was decided about it; what a body is built from.

    `extra` are the fields that the provider's options add to a body.
    """

    request: ModelRequest
    endpoint: Endpoint
    traits: ModelTraits
    plan: CachePlan
    timeouts: TimeoutSettings
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_id(self) -> str:
        """The model's name without the provider prefix."""
        return self.request.model.split("/", 1)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCompletion:
    """A whole answer as a transport read it."""

    text: str
    finish_reason: FinishReason
    usage: Usage | None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawEmbeddings:
    """Vectors in the order of the texts, each of `dimensions` floats."""

    vectors: Sequence[Sequence[float]]
    usage: Usage | None
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None


class TransportStream(Protocol):
    """An open answer.

    `headers` are the response's, with lower-case names. `read` returns what has arrived, at least one delta, and None
    once the provider's terminal event has been read. It raises `StreamTruncated` when the body ends without one,
    `MidStreamError` when the provider reports an error or the connection drops, `ModelTimeoutError` when it is silent,
    `MalformedResponseError` when it does not follow its own format. Deltas read before an error are returned first.
    `aclose` closes the socket unless the answer was read to its end, may be called at any time and more than once.
    """

    headers: Mapping[str, str]
    request_id: str | None

    async def read(self) -> Sequence[Delta] | None: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """A way to a provider. It raises `ModelError`s, never retries and never waits longer than the call's time-outs."""

    name: str

    async def open(self, call: PreparedCall) -> TransportStream:
        """Send the request and return once the response's status is known to be a success."""

    async def complete(self, call: PreparedCall) -> RawCompletion:
        """Send the request without streaming and return the whole answer."""

    async def embed(self, call: PreparedCall, texts: Sequence[str], dimensions: int | None) -> RawEmbeddings:
        """Return one vector for each text."""

    async def aclose(self) -> None:
        """Close what the transport keeps open."""

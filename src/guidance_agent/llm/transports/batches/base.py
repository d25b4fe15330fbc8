"""The small interface behind which every provider's batch API stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Literal, Protocol

from guidance_agent.errors import ModelError, ModelTimeoutError, ProviderUnreachableError
from guidance_agent.llm.batch_request import ItemOutcome
from guidance_agent.llm.providers.base import Endpoint
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion
from guidance_agent.settings import TimeoutSettings

__all__ = [
    "BatchLimits",
    "BatchPlace",
    "BatchWire",
    "LineProblem",
    "ProviderBatch",
    "ResultRow",
    "surely_not_accepted",
    "told",
]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch holds at most; `overhead` is the bytes around a row."""

    items: int
    bytes: int
    overhead: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlace:
    """Where a batch is, how long its provider is waited for, and the model that it asks, without its provider."""

    endpoint: Endpoint
    timeouts: TimeoutSettings
    model: str = ""


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What a provider says against its input; `line` counts from 1, None where it is about the whole."""

    line: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderBatch:
    """A batch as its provider shows it.

    Attributes:
        state: `running`, `ended` with results, or `failed` as a whole and without any.
        created_at: By the provider's clock.
        total: How many requests it has; None while the provider does not know.
        key: Our own id of it, where the provider keeps one.
        results: Where its results are.
        unanswered: What became of requests that its results do not name.
        problems: Why it failed as a whole.
    """

    id: str
    state: Literal["running", "ended", "failed"]
    created_at: datetime
    total: int | None
    key: str | None = None
    results: tuple[str, ...] = ()
    unanswered: ItemOutcome = "errored_retryable"
    problems: tuple[LineProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """A row of results. `wire_id` is None for a row that cannot be read."""

    wire_id: str | None
    outcome: ItemOutcome = "succeeded"
    answer: RawCompletion | None = None
    error: str | None = None
    error_type: str | None = None
    simulated: bool = field(default=False, compare=False)


class BatchWire(Protocol):
    """A batch API. Methods raise `ModelError`s, and never retry.

    Attributes:
        limits: Of one batch.
        keeps_keys: Whether a batch carries our own id, by which a list finds it.
        lists: Whether there is a list of batches.
        primes: Whether a first batch of one request makes the prompt's shared prefix cheaper for the others.
    """

    limits: BatchLimits
    keeps_keys: bool
    lists: bool
    primes: bool
    before: bytes
    between: bytes
    after: bytes

    def row(self, wire_id: str, call: PreparedCall) -> bytes:
        """Return the bytes of one request; its body is that of the same call made interactively."""

    async def upload(self, place: BatchPlace, key: str, file: BinaryIO) -> str | None:
        """Send the rows as a file and return its id at the provider; None where rows travel with the submission."""

    async def create(self, place: BatchPlace, key: str, source: BinaryIO | str) -> ProviderBatch:
        """Submit the rows, or the file of this id, as a batch. It runs, and is paid for, once this returns."""

    async def find(self, place: BatchPlace, batch_id: str) -> ProviderBatch | None:
        """Return a batch; None when the provider has none of this id."""

    def listed(self, place: BatchPlace, since: datetime) -> AsyncIterator[ProviderBatch]:
        """Yield the batches that were created since then, the newest first."""

    async def cancel(self, place: BatchPlace, batch_id: str) -> None:
        """Ask for a batch to be ended; nothing when it has ended already, or where that cannot be asked."""

    def rows(self, place: BatchPlace, batch: ProviderBatch) -> AsyncIterator[ResultRow]:
        """Yield the results of a batch that has ended, in whatever order they come, a line at a time."""

    async def aclose(self) -> None:
        """Close what is kept open."""


def surely_not_accepted(error: ModelError) -> bool:
    """Whether a submission that failed so did certainly not make a batch: no connection, or refused with a status."""
    if isinstance(error, ProviderUnreachableError):
        return True
    if isinstance(error, ModelTimeoutError):
        return error.phase == "connect"
    return error.status is not None and 400 <= error.status < 500 and error.status not in (408, 409)


def told(problems: Sequence[LineProblem]) -> str:
    """Return what a provider says against its input, in one line."""
    shown = [p.message if p.line is None else f"line {p.line}: {p.message}" for p in problems[:3]]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(shown) + more

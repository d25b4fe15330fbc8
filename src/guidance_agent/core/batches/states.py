"""The words of the state machine: states, crash points, options, and what callers see of a job.

    prepared → submitting → submitted → ended → collected → applied

A batch moves one state at a time, each in a transaction of its own that holds only while the process has the batch's
lease. What was written before a crash is where the next process goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import sqlalchemy as sa
from pydantic import BaseModel

from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.core.database import Database
from guidance_agent.llm.batch_request import BatchResult
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.providers.base import ModelTraits
from guidance_agent.llm.transports.batches.base import BatchPlace, BatchWire
from guidance_agent.llm.transports.batches.registry import BatchWires
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

__all__ = [
    "CRASH_POINTS",
    "OPEN_STATES",
    "TEXT",
    "Apply",
    "BatchHandle",
    "BatchKind",
    "BatchOptions",
    "BatchState",
    "BatchStatus",
    "CrashPoint",
    "JobState",
    "Lookup",
    "Parts",
    "Provider",
    "ProviderBatchStatus",
    "no_crash",
]

BatchState = Literal["prepared", "submitting", "submitted", "ended", "collected", "applied"]
JobState = Literal["preparing", "open", "done"]
OPEN_STATES: tuple[BatchState, ...] = ("prepared", "submitting", "submitted", "ended", "collected")

CRASH_POINTS = (
    "preparing",
    "prepared",
    "intent_recorded",
    "uploaded",
    "upload_recorded",
    "accepted",
    "submitted",
    "ended",
    "collecting",
    "collected",
    "applying",
    "applied_some",
    "applied",
)
"""The moments between one durable step and the next; `applying` stands inside the transaction that applies items."""

CrashPoint = Callable[[str], None]
"""Called with the name of each point as it is passed; tests end the process there."""

Apply = Callable[[sa.Connection, BatchResult], None]
"""Carries one result over into the records, in a thread, inside a transaction that others may share."""


def no_crash(point: str) -> None:
    """Pass every point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKind:
    """What the items of a job are for.

    Attributes:
        name: As the job's records keep it.
        operation: What its calls are for, as usage and settings name it.
        output: What answers are; None for text, or for a schema that the request names itself.
        apply: Carries a final result, a failure too, over into the records; None leaves that to whoever reads them.
    """

    name: str
    operation: str = "batch"
    output: type[BaseModel] | None = None
    apply: Apply | None = None


TEXT = BatchKind(name="text")
"""The kind of a job that names none: its results are read, and nothing is done with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How batches are worked on. Times in seconds.

    Attributes:
        lease: For how long a batch belongs to a process that does not renew it.
        grace: How long after an unclear submission nothing is sent again, because lists may lag.
        clock_skew: How far the provider's clock may be from ours.
        gone_after: How long a batch may be unknown to its provider before its items count as lost; a key or an address
            that was changed looks the same, and can be changed back.
        prime_wait: How long the rest waits for the batch that primes its cached prefix.
        prime_from: From how many items on a shared prefix is primed.
        most_items: Fewer items in a batch than the provider takes; None takes its limit.
        most_bytes: The same in bytes.
        max_rounds: In how many batches an item is sent at most.
        collections: How often results that lack items are read before these count as lost.
        items_per_transaction: How many items are stored or applied together.
        apply_attempts: How often the applying of an item may fail.
        retry_after: How long after a refused submission or a failed download the next attempt waits, doubled each time.
        longest_wait: The longest of these waits.
        poll: How often `wait` looks.
        online_at_a_time: How many items are asked online at once, after a deadline.
        item_spans: Of how many items of a batch there are spans, about.
    """

    lease: float = 60.0
    grace: float = 600.0
    clock_skew: float = 120.0
    gone_after: float = 86_400.0
    prime_wait: float = 1_200.0
    prime_from: int = 20
    most_items: int | None = None
    most_bytes: int | None = None
    max_rounds: int = 3
    collections: int = 3
    items_per_transaction: int = 500
    apply_attempts: int = 3
    retry_after: float = 30.0
    longest_wait: float = 3_600.0
    poll: float = 10.0
    online_at_a_time: int = 8
    item_spans: int = 1_000


class Lookup(Protocol):
    """Finds the kind of a job by its name."""

    def __call__(self, name: str) -> BatchKind: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every step works with."""

    database: Database
    gateway: ModelGateway
    wires: BatchWires
    kind: Lookup
    options: BatchOptions = field(default_factory=BatchOptions)
    clock: Clock = field(default_factory=SystemClock)
    crash: CrashPoint = no_crash
    tracing: Tracing = NO_TRACING

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.clock.now().timestamp()


class Provider(NamedTuple):
    """How the provider of a batch is spoken to, where it is, and what the batch's model can do."""

    wire: BatchWire
    place: BatchPlace
    traits: ModelTraits


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHandle:
    """A job that was submitted: its key, how many items it has, and in how many batches."""

    job_key: str
    items: int
    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderBatchStatus:
    """One batch of a job. `needs_person` says that the program will not go on by itself, and `reason` why."""

    id: str
    number: int
    round: int
    route: str
    provider: str
    model: str
    state: BatchState
    items: int
    provider_batch_id: str | None
    counts: Mapping[str, int]
    cost_usd: float | None
    interactive_usd: float | None
    needs_person: bool
    reason: str | None
    notes: Mapping[str, Any]
    not_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """A job and its batches.

    Attributes:
        outcomes: How many items came to which outcome; those that have none yet are not counted.
        applied: How many items are applied.
        failing: How many could not be applied, and are not tried again by themselves.
        cost_usd: What was paid for all attempts, as far as it is known.
        interactive_usd: What the same tokens would have cost outside a batch.
        unpriced: Items with usage of models that have no price.
    """

    job_key: str
    kind: str
    state: JobState
    created_at: datetime
    items: int
    outcomes: Mapping[str, int]
    applied: int
    failing: int
    cost_usd: float
    interactive_usd: float
    unpriced: int
    batches: Sequence[ProviderBatchStatus]

    @property
    def done(self) -> bool:
        return self.state == "done"

    @property
    def needs_person(self) -> bool:
        return self.failing > 0 or any(batch.needs_person for batch in self.batches)

    @property
    def saved_usd(self) -> float:
        return self.interactive_usd - self.cost_usd

"""Work that goes through batches in rounds: what a job that runs twice a day asks of each kind of it.

Reflection, audit, consolidation and insights are such work. Each keeps its own subjects (a failure, a turn, a customer,
a day) in its own tables and says which are ready for which kind of batch; `core/batch_claims.py` puts those into jobs,
once each; the kind's `apply` carries every result back in the transaction that marks its item applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.batches.states import BatchKind

__all__ = ["BatchWork", "WorkStanding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStanding:
    """How much of a work stands where.

    Attributes:
        waiting: Subjects that go on, by the stage that they wait for or are in.
        ended: Subjects that have ended, by their outcome.
        needs_person: What the work cannot decide, in words; empty where nothing of that kind stands.
    """

    waiting: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    needs_person: Sequence[str] = ()


class BatchWork(Protocol):
    """Work in rounds of batches. Its methods may be called twice, late, after a crash, and by two processes at once."""

    @property
    def name(self) -> str:
        """What reports and the command line call it."""

    @property
    def kinds(self) -> Sequence[BatchKind]:
        """The kinds of its batches; a processor must know all of them."""

    async def open_new(self, *, limit: int) -> int:
        """Note what is new, at most `limit` subjects, as waiting for its first stage; returns how many that were."""

    async def advance(self, batches: BatchProcessor) -> int:
        """Carry over what needs no model, and submit what is ready; returns how many items were submitted."""

    async def standing(self) -> WorkStanding:
        """Return how much stands where; asks nobody."""

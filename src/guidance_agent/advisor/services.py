"""What the advisor needs from the floors below, and how it gets them when nobody hands them over.

The composition root registers how a default set of services is opened; so the advisor can be used with one line without
importing what stands above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from guidance_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from guidance_agent.advisor.gated_answer import SentenceAsker
    from guidance_agent.advisor.prompts import ReleasedRules
    from guidance_agent.compliance.gatekeeper import Gatekeeper
    from guidance_agent.compliance.turn_judge import Judge
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.journal import Journal
    from guidance_agent.core.memory import MemoryStream
    from guidance_agent.core.records import Records
    from guidance_agent.core.verdicts import VerdictRecords
    from guidance_agent.knowledge.loader import Knowledge
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.retrieval.retriever import Retriever
    from guidance_agent.settings import Settings
    from guidance_agent.tracing.tracer import Tracing

__all__ = ["AdvisorServices", "ServicesOpener", "open_default_services", "register_default_services"]


class AdvisorServices(Protocol):
    """The parts that answer a turn, built and closed by whoever opened them."""

    settings: Settings
    clock: Clock
    gateway: ModelGateway
    journal: Journal
    records: Records
    verdicts: VerdictRecords
    retriever: Retriever
    memory: MemoryStream
    rules: ReleasedRules
    gates: Gatekeeper
    knowledge: Knowledge
    model: str
    reasoning_model: str
    simulated: bool
    tracing: Tracing

    @property
    def validator(self) -> Judge:
        """Who judges answers."""

    @property
    def sentence_judge(self) -> SentenceAsker | None:
        """Who decides sentences that the rules of the gate leave undecided, if anybody does."""

    @property
    def is_open(self) -> bool:
        """Whether the parts can be used."""

    async def close_dead_turns(self) -> tuple[str, ...]:
        """Close the turns that a dead process left behind, and return their ids."""

    def turn_ended(self, retrieved_memories: Sequence[str]) -> None:
        """Say that work for the background may be waiting, and which memories the turn was given."""


ServicesOpener: TypeAlias = Callable[["Settings"], AbstractAsyncContextManager[AdvisorServices]]

_openers: list[ServicesOpener] = []


def register_default_services(opener: ServicesOpener) -> None:
    """Have `opener` make the services of advisors that are given none; the last registration counts."""
    _openers.append(opener)


def open_default_services(settings: Settings) -> AbstractAsyncContextManager[AdvisorServices]:
    """Return a context manager that opens the default services."""
    if not _openers:
        raise ConfigurationError("No services are registered. Import `guidance_agent`, or pass `runtime`.")
    return _openers[-1](settings)

"""What a search brings back: frozen values for the prompt, the events and the records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidance_agent.knowledge.records import Fact, Figure, Unknown

if TYPE_CHECKING:
    from guidance_agent.core.memory import Memory
    from guidance_agent.retrieval.vectors import QueryVector

__all__ = ["RetrievalLimits", "Retrieved", "RetrievedCase", "RetrievedFact", "RetrievedRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalLimits:
    """Most entries of each kind that one turn is given."""

    facts: int = 8
    cases: int = 2
    rules: int = 3
    memories: int = 4
    unknowns: int = 3


@dataclass(frozen=True, slots=True)
class RetrievedFact:
    """A fact as it stands on the day. An upcoming one must be shown with its start date.

    Attributes:
        fact: The fact.
        status: In force on the day, or still to come.
        score: Cosine similarity with the question; a fact that its topic brought may have a low one.
    """

    fact: Fact
    status: Literal["current", "upcoming"]
    score: float


@dataclass(frozen=True, slots=True)
class RetrievedCase:
    """An anonymised case from a turn that passed. `score` is the cosine similarity with the question."""

    id: str
    text: str
    topic: str | None
    score: float


@dataclass(frozen=True, slots=True)
class RetrievedRule:
    """A rule of the latest release. `score` is similarity × confidence."""

    id: str
    text: str
    confidence: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Everything found for one question, the best of each kind first.

    Attributes:
        facts: Facts for customers that hold on the day or are to come; those of raised topics first.
        figures: Figures that apply on the day: the core ones, and those of the facts that were found.
        unknowns: What must be answered with "not known" if it is asked.
        cases: Similar cases.
        rules: Released rules that fit.
        memories: What is remembered of this customer.
        topics: Names of the topics that were raised.
        question: The question's own vector; None when the embedding model did not answer.
        degraded: What could not be searched as usual, and why; None is a complete search.
    """

    facts: tuple[RetrievedFact, ...] = ()
    figures: tuple[Figure, ...] = ()
    unknowns: tuple[Unknown, ...] = ()
    cases: tuple[RetrievedCase, ...] = ()
    rules: tuple[RetrievedRule, ...] = ()
    memories: tuple[Memory, ...] = ()
    topics: tuple[str, ...] = ()
    question: QueryVector | None = None
    degraded: str | None = None

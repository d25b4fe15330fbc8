"""Facts by similarity and by date: a fact is looked up for the day and never loses weight with age."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal, NamedTuple

from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.knowledge.records import Fact, Unknown
from guidance_agent.retrieval.found import RetrievedFact
from guidance_agent.retrieval.vectors import BoolArray, FloatArray, QueryVector, VectorIndex

__all__ = ["FactIndex"]

_DAYS_HELD = 8


class _DayView(NamedTuple):
    mask: BoolArray
    status: dict[str, Literal["current", "upcoming"]]


class FactIndex:
    """The facts for customers, and what is not known, as vectors of one model.

    Args:
        knowledge: The knowledge base.
        model: What made the vectors.
        vectors: One row per text of `FactIndex.texts(knowledge)`, in its order.
    """

    def __init__(self, knowledge: Knowledge, model: str, vectors: FloatArray) -> None:
        facts = _for_customers(knowledge)
        self.model = model
        self._knowledge = knowledge
        self._facts = {fact.id: fact for fact in facts}
        self._unknowns = {unknown.id: unknown for unknown in knowledge.unknowns}
        self._index = VectorIndex(model, vectors.shape[1])
        self._index.append([fact.id for fact in facts], vectors[: len(facts)])
        self._unknown_index = VectorIndex(model, vectors.shape[1])
        self._unknown_index.append(list(self._unknowns), vectors[len(facts) :])
        self._days: dict[date, _DayView] = {}

    @staticmethod
    def texts(knowledge: Knowledge) -> list[str]:
        """What is embedded: each fact with its topic, then the subject of each unknown."""
        facts = [f"{fact.topic.replace('_', ' ')}: {fact.statement}" for fact in _for_customers(knowledge)]
        return facts + [unknown.subject for unknown in knowledge.unknowns]

    def search(
        self, query: QueryVector, *, day: date, limit: int, first: Sequence[str] = (), least: float = 0.0
    ) -> tuple[RetrievedFact, ...]:
        """Return at most `limit` facts that hold on `day` or are to come: those of `first`, then the most similar.

        Args:
            query: The question, as a vector of this index's model.
            day: The day on which the facts must hold.
            limit: Most facts returned.
            first: Ids that are wanted whatever their score; those that have expired are left out.
            least: Similarity below which a fact is not worth its place.
        """
        view = self._view(day)
        scores = dict(self._index.search(query, len(self._index), mask=view.mask))
        wanted = [fact_id for fact_id in dict.fromkeys(first) if fact_id in scores]
        similar = [fact_id for fact_id, score in scores.items() if score > least and fact_id not in wanted]
        return tuple(
            RetrievedFact(self._facts[fact_id], view.status[fact_id], scores[fact_id])
            for fact_id in (wanted + similar)[: max(limit, 0)]
        )

    def unknowns(
        self, query: QueryVector, *, limit: int, first: Sequence[str] = (), least: float = 0.0
    ) -> tuple[Unknown, ...]:
        """Return at most `limit` unknowns: those of `first`, then those at least as similar as `least`."""
        similar = [hit.id for hit in self._unknown_index.search(query, limit) if hit.score > least]
        wanted = [unknown_id for unknown_id in first if unknown_id in self._unknowns]
        chosen = list(dict.fromkeys(wanted + similar))[: max(limit, 0)]
        return tuple(self._unknowns[unknown_id] for unknown_id in chosen)

    def _view(self, day: date) -> _DayView:
        if (view := self._days.get(day)) is None:
            import numpy as np

            status = {dated.fact.id: dated.status for dated in self._knowledge.valid_on(day)}
            mask = np.fromiter((fact_id in status for fact_id in self._index.ids), dtype=np.bool_)
            if len(self._days) >= _DAYS_HELD:
                self._days.clear()
            view = self._days[day] = _DayView(mask, status)
        return view


def _for_customers(knowledge: Knowledge) -> list[Fact]:
    return [fact for fact in knowledge.facts if fact.audience == "customer"]

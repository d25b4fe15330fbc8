"""Facts by similarity and by date: a fact is looked up for the day and never loses weight with age.

A fact is compared twice: by its statement, and by the best of the ways in which customers ask for it (`asked_as.yaml`).
Its score is the mean of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import RootModel

from guidance_agent.core.shipped import read_shipped
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.knowledge.records import Fact, Unknown
from guidance_agent.retrieval.found import RetrievedFact
from guidance_agent.retrieval.vectors import BoolArray, FloatArray, QueryVector, VectorIndex

__all__ = ["FactIndex", "FactTexts"]

_DAYS_HELD = 8


class _AskedAs(RootModel[dict[str, tuple[str, ...]]]):
    pass


class _DayView(NamedTuple):
    mask: BoolArray
    status: dict[str, Literal["current", "upcoming"]]


class FactTexts:
    """What is embedded of a knowledge base: its facts for customers, how they are asked for, and its unknowns.

    Attributes:
        facts: The facts, in the order of their texts.
        unknowns: What is not known, in the order of its texts.
        texts: Statements with their topics, then subjects of unknowns, then phrases, fact by fact.
        phrase_counts: How many phrases each fact has.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        asked_as = _asked_as()
        self.facts: tuple[Fact, ...] = tuple(fact for fact in knowledge.facts if fact.audience == "customer")
        self.unknowns: tuple[Unknown, ...] = knowledge.unknowns
        phrases = [asked_as.get(fact.id, ()) for fact in self.facts]
        self.phrase_counts = [len(some) for some in phrases]
        self.texts: list[str] = [f"{fact.topic.replace('_', ' ')}: {fact.statement}" for fact in self.facts]
        self.texts += [unknown.subject for unknown in self.unknowns]
        self.texts += [phrase for some in phrases for phrase in some]


class FactIndex:
    """The facts for customers, and what is not known, as vectors of one model.

    Args:
        knowledge: The knowledge base.
        texts: What was embedded of it.
        model: What made the vectors.
        vectors: One row per entry of `texts.texts`.
    """

    def __init__(self, knowledge: Knowledge, texts: FactTexts, model: str, vectors: FloatArray) -> None:
        import numpy as np

        facts, unknowns = len(texts.facts), len(texts.unknowns)
        self._knowledge = knowledge
        self._facts = {fact.id: fact for fact in texts.facts}
        self._places = {fact.id: place for place, fact in enumerate(texts.facts)}
        self._unknowns = {unknown.id: unknown for unknown in texts.unknowns}
        self._statements = _index(model, list(self._facts), vectors[:facts])
        self._unknown_index = _index(model, list(self._unknowns), vectors[facts : facts + unknowns])
        phrases = vectors[facts + unknowns :]
        self._phrases = _index(model, [str(number) for number in range(len(phrases))], phrases)
        counts = np.asarray(texts.phrase_counts)
        self._asked = np.flatnonzero(counts)
        self._first_phrases = (np.cumsum(counts) - counts)[self._asked]
        self._days: dict[date, _DayView] = {}

    def search(
        self, query: QueryVector, *, day: date, limit: int, first: Sequence[str] = (), least: float = 0.0
    ) -> tuple[RetrievedFact, ...]:
        """Return at most `limit` facts that hold on `day` or are to come: those of `first`, then the most similar.

        Args:
            query: The question, as a vector of this index's model.
            day: The day on which the facts must hold.
            limit: Most facts returned.
            first: Ids that are wanted whatever their score; those that have expired are left out.
            least: Score up to which a fact is not worth its place.
        """
        import numpy as np

        view = self._view(day)
        scores = self._scores(query)
        ids = self._statements.ids
        wanted = [fact_id for fact_id in dict.fromkeys(first) if fact_id in view.status and fact_id in self._facts]
        usable = np.flatnonzero(view.mask & (scores > least))
        best = usable[np.argsort(-scores[usable], kind="stable")[: max(limit, 0)]]
        chosen = dict.fromkeys(wanted + [ids[place] for place in best])
        return tuple(
            RetrievedFact(self._facts[fact_id], view.status[fact_id], float(scores[self._places[fact_id]]))
            for fact_id in list(chosen)[: max(limit, 0)]
        )

    def unknowns(
        self, query: QueryVector, *, limit: int, first: Sequence[str] = (), least: float = 0.0
    ) -> tuple[Unknown, ...]:
        """Return at most `limit` unknowns: those of `first`, then those more similar than `least`."""
        similar = [hit.id for hit in self._unknown_index.search(query, limit) if hit.score > least]
        wanted = [unknown_id for unknown_id in first if unknown_id in self._unknowns]
        chosen = list(dict.fromkeys(wanted + similar))[: max(limit, 0)]
        return tuple(self._unknowns[unknown_id] for unknown_id in chosen)

    def _scores(self, query: QueryVector) -> FloatArray:
        import numpy as np

        scores = self._statements.scores(query)
        if len(self._asked):
            best = np.maximum.reduceat(self._phrases.scores(query), self._first_phrases)
            scores[self._asked] = (scores[self._asked] + best) / 2
        return scores

    def _view(self, day: date) -> _DayView:
        if (view := self._days.get(day)) is None:
            import numpy as np

            status = {dated.fact.id: dated.status for dated in self._knowledge.valid_on(day)}
            mask = np.fromiter((fact_id in status for fact_id in self._facts), dtype=np.bool_, count=len(self._facts))
            if len(self._days) >= _DAYS_HELD:
                self._days.clear()
            view = self._days[day] = _DayView(mask, status)
        return view


def _index(model: str, ids: list[str], vectors: FloatArray) -> VectorIndex:
    index = VectorIndex(model, vectors.shape[1])
    index.append(ids, vectors)
    return index


@lru_cache(maxsize=1)
def _asked_as() -> Mapping[str, tuple[str, ...]]:
    return read_shipped(Path(__file__).with_name("asked_as.yaml"), _AskedAs).root

"""One question in, everything the model should know for it out.

Facts come from the knowledge base by date, topic and similarity; cases and released rules from the records; memories
from this customer's rows alone. With a provider's embedding model the question is embedded within a budget of time: if
that fails, facts are found by the offline vectors for this turn, the result says so, and the turn goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple, Protocol

from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.core.types import CustomerProfile
from guidance_agent.errors import GuidanceAgentError
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.knowledge.records import Figure
from guidance_agent.retrieval.embeddings import Embedder
from guidance_agent.retrieval.experience import Experience
from guidance_agent.retrieval.facts import FactIndex, FactTexts
from guidance_agent.retrieval.found import (
    RetrievalLimits,
    Retrieved,
    RetrievedCase,
    RetrievedFact,
    RetrievedRule,
)
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.retrieval.topics import RoutedTopic, TopicRouter, load_topics
from guidance_agent.retrieval.trace import attributes_of
from guidance_agent.retrieval.vectors import FloatArray, QueryVector
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

if TYPE_CHECKING:
    from guidance_agent.core.database import Database
    from guidance_agent.core.memory import Memory

__all__ = [
    "MemoryRecall",
    "RetrievalLimits",
    "Retrieved",
    "RetrievedCase",
    "RetrievedFact",
    "RetrievedRule",
    "Retriever",
]

_LONGEST_TEXT = 3_000
_HISTORY_WEIGHTS = (0.3, 0.15)
"""What the customer said last, and before that, counts this much beside the question."""
_LEAST_OFFLINE = 0.05
_LEAST_UNKNOWN = 0.2
_PAUSE_SECONDS = 30.0
_logger = logging.getLogger("guidance_agent.retrieval")


class MemoryRecall(Protocol):
    """The part of the memory stream that a question needs."""

    async def recall(
        self,
        customer_id: str,
        query: QueryVector | str | None,
        *,
        limit: int = 4,
        include_simulated: bool = False,
        exclude_consultation: str | None = None,
    ) -> tuple[Memory, ...]: ...


class _Query(NamedTuple):
    question: QueryVector
    combined: QueryVector


class _Ready(NamedTuple):
    facts: FactIndex
    topics: TopicRouter


class Retriever:
    """Finds what one turn needs. One per process; safe for any number of turns at a time.

    Args:
        knowledge: The knowledge base.
        database: Holds cases and rules; None searches none.
        embedder: Makes the vectors; None is the offline embedder.
        memory: Recalls what is known of a customer; None recalls nothing.
        include_simulated: Whether rows that a simulated model led to count; only where the whole store is simulated.
        embedding_budget: Seconds that a provider's embedding model has to answer at question time.
        clock: Decides when a failed embedding model is asked again, and when the records are looked at again.
        tracing: Makes the span of every search.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        database: Database | None = None,
        embedder: Embedder | None = None,
        memory: MemoryRecall | None = None,
        *,
        include_simulated: bool = False,
        embedding_budget: float = 1.5,
        clock: Clock | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self._knowledge = knowledge
        self._offline = embedder if isinstance(embedder, HashedEmbedder) else HashedEmbedder()
        self._provider = None if embedder is None or isinstance(embedder, HashedEmbedder) else embedder
        self._memory = memory
        self._include_simulated = include_simulated
        self._budget = embedding_budget
        self._clock = clock or SystemClock()
        self._experience = Experience(database, self._clock, include_simulated=include_simulated) if database else None
        self._ready: _Ready | None = None
        self._provider_facts: FactIndex | None = None
        # Protect the building of the two fact indexes, so that turns which arrive together build each once.
        self._offline_lock = asyncio.Lock()
        self._provider_lock = asyncio.Lock()
        self._paused_until = float("-inf")
        self._figures_of: tuple[date, dict[str, Figure]] | None = None

    @property
    def knowledge_version(self) -> str:
        return self._knowledge.version

    async def warm(self) -> None:
        """Build what the first question would otherwise wait for; a provider that does not answer is left for later."""
        await self._offline_index()
        if self._provider is not None:
            try:
                await self._provider_index(self._provider)
            except GuidanceAgentError as error:
                _logger.warning("facts not embedded yet: model=%s error=%s", self._provider.model, type(error).__name__)

    async def retrieve(
        self,
        question: str,
        *,
        customer_id: str,
        history_texts: Sequence[str] = (),
        day: date,
        limits: RetrievalLimits | None = None,
        profile: CustomerProfile | None = None,
        consultation_id: str | None = None,
    ) -> Retrieved:
        """Return what the model should know to answer `question`.

        Args:
            question: What the customer asks.
            customer_id: Whose memories are recalled.
            history_texts: What the customer said before, oldest first; the last two count a little.
            day: The day on which facts and figures must hold.
            limits: Most entries of each kind.
            profile: What is known of the customer; its age and kinds of pension can raise a topic.
            consultation_id: Consultation whose memories are left out, because the conversation itself is in the prompt.

        Raises:
            DatabaseUnavailableError: The records cannot be read.
        """
        with self._tracing.work("retrieval", "RETRIEVER", attributes={names.INPUT_VALUE: question}) as span:
            found = await self._search(
                question, customer_id, history_texts, day, limits or RetrievalLimits(), profile, consultation_id
            )
            if span.is_recording:
                span.set(attributes_of(found))
        return found

    async def _search(
        self,
        question: str,
        customer_id: str,
        history_texts: Sequence[str],
        day: date,
        limits: RetrievalLimits,
        profile: CustomerProfile | None,
        consultation_id: str | None,
    ) -> Retrieved:
        texts = [_shortened(question), *(_shortened(text) for text in reversed(history_texts[-2:]))]
        offline_facts, router = await self._offline_index()
        asked, facts_index, degraded = await self._ask_provider(texts)
        query = asked or await self._query(self._offline, texts)
        topics = _topics(router, texts, day, profile)
        least = _LEAST_OFFLINE if facts_index is None else 0.0
        index = facts_index or offline_facts
        facts = index.search(
            query.combined,
            day=day,
            limit=limits.facts,
            first=_interleaved(topic.facts for topic in topics),
            least=least,
        )
        unknowns = index.unknowns(
            query.question,
            limit=limits.unknowns,
            first=[unknown for topic in topics for unknown in topic.unknowns],
            least=_LEAST_UNKNOWN if facts_index is None else 2 * _LEAST_UNKNOWN,
        )
        usable = query if degraded is None else None
        cases, rules = await self._learned(usable, limits)
        return Retrieved(
            facts=facts,
            figures=self._figures(facts, router.core_figures, day),
            unknowns=unknowns,
            cases=cases,
            rules=rules,
            memories=await self._recalled(customer_id, usable, limits.memories, consultation_id),
            topics=tuple(topic.name for topic in topics),
            question=None if usable is None else usable.question,
            degraded=degraded,
        )

    async def _offline_index(self) -> _Ready:
        if self._ready is None:
            async with self._offline_lock:
                if self._ready is None:
                    # Reading the word list, importing numpy and embedding take too long for the event loop.
                    self._ready = await asyncio.to_thread(self._build_offline)
        return self._ready

    def _build_offline(self) -> _Ready:
        texts = FactTexts(self._knowledge)
        vectors = self._offline.vectors(texts.texts)
        return _Ready(FactIndex(self._knowledge, texts, self._offline.model, vectors), load_topics())

    async def _provider_index(self, provider: Embedder) -> FactIndex:
        if self._provider_facts is None:
            async with self._provider_lock:
                if self._provider_facts is None:
                    texts = await asyncio.to_thread(FactTexts, self._knowledge)
                    vectors = await provider.embed(texts.texts, shared=True)
                    self._provider_facts = FactIndex(self._knowledge, texts, provider.model, vectors)
        return self._provider_facts

    async def _ask_provider(self, texts: Sequence[str]) -> tuple[_Query | None, FactIndex | None, str | None]:
        provider = self._provider
        if provider is None:
            return None, None, None
        if self._clock.monotonic() < self._paused_until:
            return None, None, _degraded(provider.model, "failed a moment ago and is left alone")
        try:
            async with asyncio.timeout(self._budget):
                index = await self._provider_index(provider)
                return await self._query(provider, texts), index, None
        except TimeoutError:
            reason = f"did not answer within {self._budget:g} s"
        except GuidanceAgentError as error:
            reason = f"failed ({type(error).__name__})"
        self._paused_until = self._clock.monotonic() + _PAUSE_SECONDS
        degraded = _degraded(provider.model, reason)
        _logger.warning("retrieval degraded: %s", degraded)
        return None, None, degraded

    async def _query(self, embedder: Embedder, texts: Sequence[str]) -> _Query:
        import numpy as np

        vectors = await embedder.embed(texts)
        if len(vectors) == 1:
            return _Query(QueryVector(embedder.model, vectors[0]), QueryVector(embedder.model, vectors[0]))
        combined: FloatArray = vectors[0].copy()
        for weight, vector in zip(_HISTORY_WEIGHTS, vectors[1:], strict=False):
            combined += np.float32(weight) * vector
        if norm := float(np.linalg.norm(combined)):
            combined /= np.float32(norm)
        return _Query(QueryVector(embedder.model, vectors[0]), QueryVector(embedder.model, combined))

    async def _learned(
        self, query: _Query | None, limits: RetrievalLimits
    ) -> tuple[tuple[RetrievedCase, ...], tuple[RetrievedRule, ...]]:
        if self._experience is None or query is None:
            return (), ()
        return await self._experience.search(query.combined, cases=limits.cases, rules=limits.rules)

    async def _recalled(
        self, customer_id: str, query: _Query | None, limit: int, consultation_id: str | None
    ) -> tuple[Memory, ...]:
        if self._memory is None or limit < 1:
            return ()
        return await self._memory.recall(
            customer_id,
            None if query is None else query.combined,
            limit=limit,
            include_simulated=self._include_simulated,
            exclude_consultation=consultation_id,
        )

    def _figures(self, facts: Sequence[RetrievedFact], core: Sequence[str], day: date) -> tuple[Figure, ...]:
        found = {item.fact.id for item in facts}
        if self._figures_of is None or self._figures_of[0] != day:
            self._figures_of = (day, {figure.id: figure for figure in self._knowledge.figures_on(day)})
        valid = self._figures_of[1]
        chosen = [figure_id for figure_id in core if figure_id in valid]
        chosen += [figure.id for figure in valid.values() if figure.fact in found]
        return tuple(valid[figure_id] for figure_id in dict.fromkeys(chosen))


def _shortened(text: str) -> str:
    """Return the beginning and the end of a long text: what is asked stands in one of the two."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]} … {text[-half:]}"


def _topics(router: TopicRouter, texts: Sequence[str], day: date, profile: CustomerProfile | None) -> list[RoutedTopic]:
    """Return the topics of the question, then those still open from what was said before."""
    found = {topic.name: topic for topic in router.route(texts[0], day=day, profile=profile)}
    for text in texts[1:]:
        for topic in router.route(text, day=day):
            found.setdefault(topic.name, RoutedTopic(topic.name, topic.facts[:1], ()))
    return list(found.values())


def _interleaved(lists: Iterable[Sequence[str]]) -> list[str]:
    """Return the first of each, then the second of each, so that no topic crowds out another's most needed fact."""
    rounds = itertools.zip_longest(*lists)
    return [item for group in rounds for item in group if item is not None]


def _degraded(model: str, reason: str) -> str:
    return (
        f"The embedding model {model!r} {reason}: facts were found by words, memories by date and importance, "
        "cases and rules not at all."
    )

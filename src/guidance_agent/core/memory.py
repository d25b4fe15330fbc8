"""The memory stream: what each customer said before, recalled by recency, importance and relevance.

The score follows Park et al., "Generative Agents" (arXiv 2304.03442): recency, importance and relevance, each scaled to
[0, 1] over the customer's own memories, added with equal weights. Recency is 0.995 to the power of the hours since the
memory was last retrieved, or made. Two things that the paper leaves open are decided here:

- A component that is equal for all candidates, as with a single memory, is not stretched: it keeps its own value, which
  lies in [0, 1] already. It cannot change the order, and the score still tells a good match from a poor one.
- A memory that has no rating yet counts as 5 of 10; one without a vector of the question's model as relevant as the
  average of the others. Memories with equal scores come newest first.

Many observations become a few reflections (`core/memory_windows.py`). An observation that a reflection stands for is
kept, and counts `CONSOLIDATED_LESS` less than it would: it is recalled where it fits the question better than the rest
by that much, and `originals` gives it back whatever the question is.

This is for what a customer said. Facts and figures are looked up by date and never fade.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guidance_agent.core.embedding_column import similarity
from guidance_agent.core.schema import memories, memory_windows
from guidance_agent.core.types import JsonObject
from guidance_agent.errors import InputError
from guidance_agent.retrieval.vectors import QueryVector, embedding_columns, vector_from_bytes, vector_to_bytes

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.retrieval.embeddings import Embedder

__all__ = ["CONSOLIDATED_LESS", "DECAY_PER_HOUR", "NEUTRAL_IMPORTANCE", "Memory", "MemoryStream", "PendingMemory"]

DECAY_PER_HOUR = 0.995
NEUTRAL_IMPORTANCE = 5.0
CONSOLIDATED_LESS = 0.25
"""By how much less of 3 an observation counts that a reflection stands for."""
CANDIDATES = 300
"""Most memories of a customer that one recall weighs: the newest ones, those that no reflection stands for first."""
_MOST_ATTEMPTS = 5
_SMALLEST_RANGE = 1e-6
"""Below this, values differ by rounding or by less than a second of age, and are not stretched to a whole point."""
_IDS_AT_ONCE = 500
_WEIGHED = (
    memories.c.id,
    memories.c.text,
    memories.c.kind,
    memories.c.created_at,
    memories.c.last_retrieved_at,
    memories.c.importance,
    memories.c.consolidated_at,
    memories.c.evidence,
)


def _newest_of_customer(*further: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return (
        sa.select(*_WEIGHED, *further)
        .where(
            memories.c.customer_id == sa.bindparam("customer"),
            sa.or_(memories.c.consultation_id.is_(None), memories.c.consultation_id != sa.bindparam("excluded")),
            sa.or_(memories.c.simulated.is_(False), sa.bindparam("simulated", type_=sa.Boolean)),
        )
        .order_by(memories.c.consolidated_at.is_not(None), memories.c.created_at.desc(), memories.c.id.desc())
        .limit(CANDIDATES)
    )


_WITHOUT_SIMILARITY = _newest_of_customer()
_WITH_VECTORS = _newest_of_customer(memories.c.embedding, memories.c.embedding_model)
_WITH_SIMILARITY = _newest_of_customer(similarity(memories).label("similarity"))


@dataclass(frozen=True, slots=True)
class Memory:
    """Something remembered of a customer.

    Attributes:
        kind: `observation` for what the customer said, `reflection` for what several observations come to.
        score: The sum of the three scaled components, from 0 to 3, less `CONSOLIDATED_LESS` where that applies.
        evidence: Ids of the observations that a reflection is drawn from.
        consolidated: Whether a reflection stands for this observation.
    """

    id: str
    text: str
    kind: str
    created_at: datetime
    importance: float | None
    score: float
    evidence: tuple[str, ...] = ()
    consolidated: bool = False


@dataclass(frozen=True, slots=True)
class PendingMemory:
    """A memory that waits for its rating or its vector. `attempts` counts ratings that failed."""

    id: str
    text: str
    attempts: int


class MemoryStream:
    """The memories of all customers; a recall sees those of one customer alone.

    Args:
        database: The records.
        clock: Tells the age of a memory.
        embedder: Makes the vectors of questions and memories.
    """

    def __init__(self, database: Database, clock: Clock, embedder: Embedder) -> None:
        self._database = database
        self._clock = clock
        self._embedder = embedder

    def observation_row(
        self,
        *,
        customer_id: str,
        consultation_id: str,
        turn_id: str,
        text: str,
        simulated: bool,
        at: datetime | None = None,
        kind: str = "observation",
        embedding: QueryVector | None = None,
    ) -> JsonObject:
        """Return the row of a new memory, for whoever writes the end of the turn; nothing is written here.

        Args:
            customer_id: Whose memory it is.
            consultation_id: The consultation it comes from.
            turn_id: The turn it comes from; there is one memory of each kind per turn.
            text: What is remembered.
            simulated: Whether a simulated model led to it.
            at: When it was said; None is now.
            kind: What it is.
            embedding: Its vector, where it is known already; otherwise `embed_pending` adds it later.
        """
        return {
            "id": self._clock.new_id("mem"),
            "customer_id": customer_id,
            "consultation_id": consultation_id,
            "turn_id": turn_id,
            "kind": kind,
            "text": text,
            "created_at": at or self._clock.now(),
            "last_retrieved_at": None,
            "importance": None,
            "importance_attempts": 0,
            "simulated": simulated,
            "consolidation_id": None,
            "consolidated_at": None,
            "evidence": None,
            **embedding_columns(embedding),
        }

    async def recall(
        self,
        customer_id: str,
        query: QueryVector | str | None,
        *,
        limit: int = 4,
        include_simulated: bool = False,
        exclude_consultation: str | None = None,
    ) -> tuple[Memory, ...]:
        """Return this customer's memories with the highest scores, best first. Nothing is written.

        Args:
            customer_id: Whose memories; no other customer's are read.
            query: The question or its vector; None leaves relevance out.
            limit: Most memories returned.
            include_simulated: Whether memories from simulated consultations count.
            exclude_consultation: A consultation whose memories are left out.

        Raises:
            DatabaseUnavailableError: The records cannot be read.
            ModelError: `query` is a text and the embedding model failed.
        """
        if isinstance(query, str):
            query = QueryVector(self._embedder.model, (await self._embedder.embed([query]))[0])
        parameters: JsonObject = {
            "customer": customer_id,
            "simulated": include_simulated,
            "excluded": exclude_consultation or "",
        }
        rows, similar = await self._compared(parameters, query)
        scores = _scores(rows, similar, self._clock.now())
        # The sort is stable, so memories with equal scores stay newest first.
        best = sorted(range(len(rows)), key=lambda place: -scores[place])[: max(limit, 0)]
        return tuple(_memory(rows[place], scores[place]) for place in best)

    async def originals(self, reflection_id: str, *, customer_id: str) -> tuple[Memory, ...]:
        """Return the observations that a reflection is drawn from, the oldest first; none where there is no such one.

        Args:
            reflection_id: Its id.
            customer_id: Whose it must be, and whose observations they must be.
        """
        of_customer = memories.c.customer_id == customer_id
        reflection = sa.select(memories.c.evidence).where(memories.c.id == reflection_id, of_customer)

        def read(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
            evidence = connection.execute(reflection).scalar_one_or_none() or []
            query: sa.Select[Any] = sa.select(*_WEIGHED).where(memories.c.id.in_(evidence), of_customer)
            return connection.execute(query.order_by(memories.c.created_at, memories.c.id)).all()

        return tuple(_memory(row, 0.0) for row in await self._database.run(read))

    async def _compared(
        self, parameters: JsonObject, query: QueryVector | None
    ) -> tuple[Sequence[sa.Row[Any]], Sequence[float | None]]:
        """Return the memories to weigh, each with its similarity to the question where there can be one.

        A database that compares vectors sends one number for each memory, another one the vectors.
        """
        if query is None:
            rows = await self._rows(_WITHOUT_SIMILARITY, parameters)
            return rows, [None] * len(rows)
        if self._database.compares_vectors:
            values = query.values
            compared = {"model": query.model, "dimensions": len(values), "vector": vector_to_bytes(values)}
            rows = await self._rows(_WITH_SIMILARITY, parameters | compared)
            return rows, [row.similarity for row in rows]
        rows = await self._rows(_WITH_VECTORS, parameters)
        return rows, _similarities(rows, query)

    async def _rows(self, query: sa.Select[Any], parameters: JsonObject) -> Sequence[sa.Row[Any]]:
        return await self._database.run(lambda connection: connection.execute(query, parameters).all())

    async def touch(self, ids: Collection[str]) -> None:
        """Note that these memories were retrieved now; for the background, never before the first text."""
        await self._update(ids, {"last_retrieved_at": self._clock.now()})

    async def unrated(self, limit: int = 20) -> tuple[PendingMemory, ...]:
        """Return memories without a rating, the least tried and oldest first; those tried five times are given up."""
        missing = sa.and_(memories.c.importance.is_(None), memories.c.importance_attempts < _MOST_ATTEMPTS)
        return await self._pending(missing, limit)

    async def set_importance(self, memory_id: str, value: float | None) -> None:
        """Store a rating from 1 to 10, or with None count one more attempt that failed.

        Raises:
            InputError: The rating lies outside 1 to 10.
        """
        if value is None:
            await self._update([memory_id], {"importance_attempts": memories.c.importance_attempts + 1})
            return
        if not 1 <= value <= 10:
            raise InputError(f"The importance of memory {memory_id!r} is {value!r}. Give a number from 1 to 10.")
        await self._update([memory_id], {"importance": float(value)})

    async def unembedded(self, limit: int = 100) -> tuple[PendingMemory, ...]:
        """Return memories without a vector of the present embedding model, oldest first."""
        return await self._pending(
            sa.or_(memories.c.embedding.is_(None), memories.c.embedding_model != self._embedder.model), limit
        )

    async def set_embedding(self, memory_id: str, vector: QueryVector) -> None:
        """Store the vector of a memory, in place of one by another model."""
        await self._update([memory_id], embedding_columns(vector))

    async def embed_pending(self, limit: int = 100) -> int:
        """Embed memories that have no vector of the present model, and return how many; for the background.

        Raises:
            ModelError: The embedding model failed; nothing is stored.
        """
        pending = await self.unembedded(limit)
        if not pending:
            return 0
        vectors = await self._embedder.embed([memory.text for memory in pending])
        rows = [
            {"row_id": memory.id, **embedding_columns(QueryVector(self._embedder.model, vector))}
            for memory, vector in zip(pending, vectors, strict=True)
        ]
        update = sa.update(memories).where(memories.c.id == sa.bindparam("row_id"))
        await self._database.transaction(lambda connection: connection.execute(update, rows))
        return len(pending)

    async def erase_customer(self, customer_id: str) -> int:
        """Delete all memories of a customer and return how many there were.

        A reflection that is on its way in a batch finds nothing that it could be drawn from, and is not stored.
        """
        delete = sa.delete(memories).where(memories.c.customer_id == customer_id)
        windows = sa.delete(memory_windows).where(memory_windows.c.customer_id == customer_id)

        def write(connection: sa.Connection) -> int:
            connection.execute(windows)
            return connection.execute(delete).rowcount

        return await self._database.transaction(write)

    async def _pending(self, condition: sa.ColumnElement[bool], limit: int) -> tuple[PendingMemory, ...]:
        query = (
            sa.select(memories.c.id, memories.c.text, memories.c.importance_attempts)
            .where(condition)
            .order_by(memories.c.importance_attempts, memories.c.created_at, memories.c.id)
            .limit(limit)
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return tuple(PendingMemory(row.id, row.text, row.importance_attempts) for row in rows)

    async def _update(self, ids: Collection[str], values: JsonObject) -> None:
        wanted = list(ids)
        if not wanted:
            return

        def update(connection: sa.Connection) -> None:
            for start in range(0, len(wanted), _IDS_AT_ONCE):
                some = memories.c.id.in_(wanted[start : start + _IDS_AT_ONCE])
                connection.execute(sa.update(memories).where(some).values(**values))

        await self._database.transaction(update)


def _memory(row: sa.Row[Any], score: float) -> Memory:
    consolidated = row.consolidated_at is not None
    evidence = tuple(row.evidence or ())
    return Memory(row.id, row.text, row.kind, row.created_at, row.importance, score, evidence, consolidated)


def _scores(rows: Sequence[sa.Row[Any]], similar: Sequence[float | None], now: datetime) -> list[float]:
    recency = [DECAY_PER_HOUR ** _hours_since(row.last_retrieved_at or row.created_at, now) for row in rows]
    importance = [(NEUTRAL_IMPORTANCE if row.importance is None else row.importance) / 10 for row in rows]
    scaled = (_scaled(recency), _scaled(importance), _scaled(_relevance(similar)))
    less = [0.0 if row.consolidated_at is None else -CONSOLIDATED_LESS for row in rows]
    return [sum(parts) for parts in zip(*scaled, less, strict=True)]


def _hours_since(then: datetime, now: datetime) -> float:
    # A clock that was set back must not make a memory more recent than now.
    return max((now - then).total_seconds(), 0.0) / 3_600


def _similarities(rows: Sequence[sa.Row[Any]], query: QueryVector) -> list[float | None]:
    # The length is checked beside the name, because a model can be asked for vectors of another length.
    size = 4 * len(query.values)
    usable = [
        place
        for place, row in enumerate(rows)
        if row.embedding_model == query.model and row.embedding is not None and len(row.embedding) == size
    ]
    similar: list[float | None] = [None] * len(rows)
    if usable:
        matrix = vector_from_bytes(b"".join(rows[place].embedding for place in usable)).reshape(len(usable), -1)
        for place, value in zip(usable, matrix @ query.values, strict=True):
            similar[place] = float(value)
    return similar


def _relevance(similar: Sequence[float | None]) -> list[float]:
    known = [max(value, 0.0) for value in similar if value is not None]
    average = sum(known) / len(known) if known else 0.0
    return [average if value is None else max(value, 0.0) for value in similar]


def _scaled(values: Sequence[float]) -> Sequence[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    return values if high - low < _SMALLEST_RANGE else [(value - low) / (high - low) for value in values]

"""Exact vector search in memory, and the form in which vectors are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from guidance_agent.errors import InputError

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from guidance_agent.core.types import JsonObject

__all__ = [
    "BoolArray",
    "FloatArray",
    "Hit",
    "QueryVector",
    "VectorIndex",
    "embedding_columns",
    "vector_from_bytes",
    "vector_to_bytes",
]

FloatArray: TypeAlias = "numpy.typing.NDArray[numpy.float32]"
BoolArray: TypeAlias = "numpy.typing.NDArray[numpy.bool_]"

THREAD_ROWS = 20_000
"""From this size on a search takes long enough to hold up the event loop, so it runs in a thread."""
_FIRST_CAPACITY = 64


@dataclass(frozen=True, slots=True, eq=False)
class QueryVector:
    """An L2-normalised vector with the name of the model that made it."""

    model: str
    values: FloatArray


class Hit(NamedTuple):
    """A row that was found. `score` is the cosine similarity, times the row's weight where weights were given."""

    id: str
    score: float


def vector_to_bytes(vector: FloatArray) -> bytes:
    """Return the vector as float32, little-endian."""
    return vector.astype("<f4").tobytes()


def vector_from_bytes(data: bytes) -> FloatArray:
    """Return the vector that `vector_to_bytes` stored; raise `InputError` when `data` is not one."""
    import numpy as np

    if len(data) % 4 or not data:
        raise InputError(f"A stored vector has {len(data)} bytes, which are not float32 values. Embed the text again.")
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)


def embedding_columns(vector: QueryVector | None) -> JsonObject:
    """Return the values of the three embedding columns that cases, rules and memories have."""
    if vector is None:
        return {"embedding": None, "embedding_model": None, "embedding_dimensions": None}
    return {
        "embedding": vector_to_bytes(vector.values),
        "embedding_model": vector.model,
        "embedding_dimensions": len(vector.values),
    }


class VectorIndex:
    """Rows of one model and one length, searched exactly by cosine similarity.

    Vectors are expected L2-normalised, as every embedder returns them. Rows may be appended or dropped while a search
    runs in its thread: the search sees the rows that were there when it began.
    """

    def __init__(self, model: str, dimensions: int) -> None:
        import numpy as np

        self.model = model
        self.dimensions = dimensions
        self._ids: list[str] = []
        self._known: set[str] = set()
        self._matrix: FloatArray = np.empty((_FIRST_CAPACITY, dimensions), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._known

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the rows in their order, which masks and weights follow."""
        return self._ids

    def append(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Add rows; raise `InputError` when an id is there already or the shape does not fit."""
        if vectors.shape != (len(ids), self.dimensions):
            raise InputError(
                f"Vectors of shape {vectors.shape!r} were added for {len(ids)} ids to an index of {self.dimensions} "
                "dimensions. Use vectors of the index's model."
            )
        if len(new := set(ids)) != len(ids) or not self._known.isdisjoint(new):
            twice = sorted(self._known & new) or sorted({row_id for row_id in ids if list(ids).count(row_id) > 1})
            raise InputError(f"The index already has {twice[0]!r}. Drop the row before it is added again.")
        first, end = len(self._ids), len(self._ids) + len(ids)
        if end > len(self._matrix):
            self._grow(end)
        self._matrix[first:end] = vectors
        self._ids.extend(ids)
        self._known |= new

    def _grow(self, rows: int) -> None:
        import numpy as np

        larger = np.empty((max(rows, 2 * len(self._matrix)), self.dimensions), dtype=np.float32)
        larger[: len(self._ids)] = self._matrix[: len(self._ids)]
        self._matrix = larger

    def drop(self, ids: Collection[str]) -> int:
        """Remove the rows with these ids and return how many there were."""
        gone = self._known.intersection(ids)
        if gone:
            kept = [place for place, row_id in enumerate(self._ids) if row_id not in gone]
            self._matrix = self._matrix[kept]
            self._ids = [self._ids[place] for place in kept]
            self._known -= gone
        return len(gone)

    def scores(self, query: QueryVector) -> FloatArray:
        """Return the cosine similarity of every row, in their order; raise `InputError` as `search` does."""
        self._check(query)
        return self._matrix[: len(self._ids)] @ query.values

    def search(
        self, query: QueryVector, limit: int, *, mask: BoolArray | None = None, weights: FloatArray | None = None
    ) -> list[Hit]:
        """Return the best rows, best first; equal scores keep the order of the rows.

        Args:
            query: A vector of this index's model.
            limit: Most rows returned.
            mask: Which rows may be found, in their order; None is all.
            weights: Factors of the rows' scores, in their order.

        Raises:
            InputError: The query was made by another model or has another length.
        """
        self._check(query)
        return _best(self._matrix[: len(self._ids)], self._ids, query.values, limit, mask, weights)

    async def find(
        self, query: QueryVector, limit: int, *, mask: BoolArray | None = None, weights: FloatArray | None = None
    ) -> list[Hit]:
        """The same as `search`, in a thread when the index is large."""
        self._check(query)
        rows = self._matrix[: len(self._ids)]
        if len(rows) < THREAD_ROWS:
            return _best(rows, self._ids, query.values, limit, mask, weights)
        return await asyncio.to_thread(_best, rows, self._ids, query.values, limit, mask, weights)

    def _check(self, query: QueryVector) -> None:
        if query.model != self.model or query.values.shape != (self.dimensions,):
            raise InputError(
                f"A vector of {query.model!r} with shape {query.values.shape!r} cannot be compared with those of "
                f"{self.model!r} ({self.dimensions} dimensions). Embed both with one model."
            )


def _best(
    rows: FloatArray,
    ids: Sequence[str],
    query: FloatArray,
    limit: int,
    mask: BoolArray | None,
    weights: FloatArray | None,
) -> list[Hit]:
    if not len(rows):
        return []
    import numpy as np

    scores = rows @ query
    if weights is not None:
        scores = scores * weights
    allowed = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    candidates = scores[allowed]
    if 0 < limit < len(candidates):
        # Everything as good as the last one that fits, so that equal scores are cut by order and not by chance.
        threshold = np.partition(candidates, -limit)[-limit]
        keep = candidates >= threshold
        allowed, candidates = allowed[keep], candidates[keep]
    order = np.argsort(-candidates, kind="stable")[: max(limit, 0)]
    return [Hit(ids[allowed[place]], float(candidates[place])) for place in order]

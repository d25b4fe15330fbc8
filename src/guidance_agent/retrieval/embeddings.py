"""Embedding texts: the port, the provider behind it, and the cache.

`Embedder` is what the rest of the package uses. `HashedEmbedder` needs nothing and is the default; `ProviderEmbedder`
asks a model through the gateway, which it knows only as `TextEmbeddings`; `CachedEmbedder` asks any of them only once.
A vector says which model made it, because vectors of two models do not compare.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.schema import embedding_cache
from guidance_agent.errors import ConfigurationError, InputError, MalformedResponseError
from guidance_agent.retrieval.hashed import HASHED_MODEL, HashedEmbedder
from guidance_agent.retrieval.vectors import FloatArray, vector_from_bytes, vector_to_bytes

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "HashedEmbedder",
    "ProviderEmbedder",
    "TextEmbeddings",
    "VectorList",
    "embed",
    "embed_batch",
]

_KEYS_AT_ONCE = 500
_REMOVED_AT_ONCE = 500

_FORM = "float32, L2 norm 1"
"""What is kept of a vector; part of every key, so that another form is never read as this one."""


class Embedder(Protocol):
    """Turns texts into vectors of one model.

    Attributes:
        model: Name of what makes the vectors; stored beside each of them.
        dimensions: Length of the vectors; None until the first answer, where the model decides it.
    """

    @property
    def model(self) -> str: ...

    @property
    def dimensions(self) -> int | None: ...

    async def embed(self, texts: Sequence[str], *, shared: bool = False) -> FloatArray:
        """Return one float32 row per text, L2-normalised; a row of zeros for a text that says nothing.

        Args:
            texts: What to embed.
            shared: Whether the texts hold no customer's words, so that their vectors may be kept in the records.

        Raises:
            ModelError: A model was asked and failed.
        """


class VectorList(Protocol):
    """What a gateway returns: one vector per text, in their order."""

    @property
    def vectors(self) -> Sequence[Sequence[float]]: ...


class TextEmbeddings(Protocol):
    """The part of a model gateway that embeds texts."""

    async def embed(
        self, model: str, texts: Sequence[str], *, dimensions: int | None = None, operation: str = "embedding"
    ) -> VectorList: ...


class ProviderEmbedder:
    """Vectors of a provider's model, asked for in batches.

    Args:
        source: The gateway.
        model: Model name such as `openai/text-embedding-3-small`.
        dimensions: Length to ask for; None is the model's own.
        batch_size: Most texts in one call.
    """

    def __init__(
        self, source: TextEmbeddings, model: str, dimensions: int | None = None, *, batch_size: int = 128
    ) -> None:
        self.model = model
        self.dimensions = dimensions
        self._requested = dimensions
        self._source = source
        self._batch_size = _checked_batch_size(batch_size)

    async def embed(self, texts: Sequence[str], *, shared: bool = False) -> FloatArray:
        import numpy as np

        spoken = [place for place, text in enumerate(texts) if text.strip()]
        rows: list[FloatArray] = []
        for start in range(0, len(spoken), self._batch_size):
            batch = [texts[place] for place in spoken[start : start + self._batch_size]]
            answer = await self._source.embed(self.model, batch, dimensions=self._requested)
            rows += self._checked(answer.vectors, len(batch))
        result = np.zeros((len(texts), self.dimensions or 0), dtype=np.float32)
        for place, row in zip(spoken, rows, strict=True):
            result[place] = row
        return result

    def _checked(self, vectors: Sequence[Sequence[float]], expected: int) -> list[FloatArray]:
        import numpy as np

        lengths = {len(vector) for vector in vectors}
        wanted = self.dimensions or next(iter(lengths), 0)
        if len(vectors) != expected or lengths != {wanted} or not wanted:
            raise self._malformed(
                f"{len(vectors)} vectors of length {sorted(lengths)} for {expected} texts of length {wanted or 'any'}"
            )
        matrix = np.asarray(vectors, dtype=np.float32)
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise self._malformed("a vector that is zero or not finite")
        self.dimensions = wanted
        return list(matrix / norms)

    def _malformed(self, what: str) -> MalformedResponseError:
        return MalformedResponseError(
            f"The embedding model {self.model!r} returned {what}. Check the model and its dimensions.", model=self.model
        )


class CachedEmbedder:
    """Asks `inner` only for what it has not embedded before.

    Every vector stays in the memory of the process, the least used going first. Those of shared texts are also kept in
    the table `embedding_cache`, the oldest going first; the words of customers never leave the process this way. The
    key covers all that changes the vector: where the model stands, its name, the requested length, the form in which a
    vector is kept, and the text.

    Args:
        inner: What makes the vectors.
        database: Where vectors of shared texts are kept.
        clock: Tells when they were made.
        origin: Tells where `inner` makes them, such as an address: another place may make others under the same name.
        capacity: Most vectors held in memory.
        stored: Most vectors kept in the database.
        max_age: How long they are kept there: a provider may change a model without changing its name.
    """

    def __init__(
        self,
        inner: Embedder,
        database: Database,
        clock: Clock,
        *,
        origin: Callable[[], Awaitable[str]] | None = None,
        capacity: int = 4_096,
        stored: int = 50_000,
        max_age: timedelta = timedelta(days=90),
    ) -> None:
        self._inner = inner
        self._database = database
        self._clock = clock
        self._origin = origin
        self._capacity = capacity
        self._most_stored = stored
        self._max_age = max_age
        self._held: OrderedDict[str, FloatArray] = OrderedDict()
        self._requested = inner.dimensions

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def dimensions(self) -> int | None:
        return self._inner.dimensions

    async def embed(self, texts: Sequence[str], *, shared: bool = False) -> FloatArray:
        import numpy as np

        origin = "" if self._origin is None else await self._origin()
        keys = [self._key(origin, text) for text in texts]
        found = {key: self._held[key] for key in keys if key in self._held}
        if shared:
            found |= await self._stored([key for key in keys if key not in found])
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            made = dict(zip(missing, await self._inner.embed(list(missing.values()), shared=shared), strict=True))
            found |= made
            if shared:
                await self._store(made)
        for key in keys:
            self._hold(key, found[key])
        if not keys:
            return np.zeros((0, self.dimensions or 0), dtype=np.float32)
        if len(lengths := {len(vector) for vector in found.values()}) > 1:
            raise MalformedResponseError(
                f"The embedding model {self.model!r} has made vectors of lengths {sorted(lengths)}. "
                "Ask for one length with `dimensions`.",
                model=self.model,
            )
        return np.stack([found[key] for key in keys])

    def _key(self, origin: str, text: str) -> str:
        content = json.dumps(
            [origin, self.model, self._requested, _FORM, text], ensure_ascii=True, separators=(",", ":")
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def _hold(self, key: str, vector: FloatArray) -> None:
        self._held[key] = vector
        self._held.move_to_end(key)
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)

    async def _stored(self, keys: Sequence[str]) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        if not keys:
            return found
        for some in _chunks(list(dict.fromkeys(keys))):
            query = sa.select(embedding_cache.c.key, embedding_cache.c.vector).where(
                embedding_cache.c.key.in_(some), embedding_cache.c.created_at > self._clock.now() - self._max_age
            )
            rows = await self._database.run(functools.partial(_all_rows, query=query))
            found |= {row.key: vector_from_bytes(row.vector) for row in rows}
        return found

    async def _store(self, made: Mapping[str, FloatArray]) -> None:
        now = self._clock.now()
        rows = [{"key": key, "vector": vector_to_bytes(vector), "created_at": now} for key, vector in made.items()]
        insert = insert_or_change(self._database.engine.dialect.name, embedding_cache)
        renewed = {name: insert.excluded[name] for name in ("vector", "created_at")}
        statement = insert.on_conflict_do_update(index_elements=["key"], set_=renewed)
        expired = embedding_cache.c.created_at <= now - self._max_age

        def work(connection: sa.Connection) -> None:
            connection.execute(statement, rows)
            _remove_oldest(connection, expired, _REMOVED_AT_ONCE)
            kept: int = connection.execute(sa.select(sa.func.count()).select_from(embedding_cache)).scalar_one()
            if kept > self._most_stored:
                _remove_oldest(connection, sa.true(), kept - self._most_stored)

        await self._database.transaction(work)


def _all_rows(connection: sa.Connection, *, query: sa.Executable) -> Sequence[sa.Row[Any]]:
    return connection.execute(query).all()


def _remove_oldest(connection: sa.Connection, which: sa.ColumnElement[bool], limit: int) -> None:
    oldest = sa.select(embedding_cache.c.key).where(which).order_by(embedding_cache.c.created_at).limit(limit)
    # What another process writes at this moment is left to it, so that no two wait for each other.
    unlocked = oldest.with_for_update(skip_locked=True)
    connection.execute(sa.delete(embedding_cache).where(embedding_cache.c.key.in_(unlocked)))


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))


def _checked_batch_size(batch_size: int) -> int:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}. Give the number of texts in one call, at least 1.")
    return batch_size


async def embed(
    text: str, *, model: str | None = None, dimensions: int | None = None, source: TextEmbeddings | None = None
) -> FloatArray:
    """Return the vector of one text; arguments and errors as for `embed_batch`."""
    vector: FloatArray = (await embed_batch([text], model=model, dimensions=dimensions, source=source))[0]
    return vector


async def embed_batch(
    texts: Sequence[str],
    *,
    model: str | None = None,
    dimensions: int | None = None,
    batch_size: int = 128,
    source: TextEmbeddings | None = None,
) -> FloatArray:
    """Return one float32 row per text, L2-normalised.

    Args:
        texts: What to embed.
        model: A provider's embedding model; None is the offline one.
        dimensions: Length of the vectors; None is the model's own.
        batch_size: Most texts in one call to the provider.
        source: The gateway through which a provider's model is asked.

    Raises:
        ConfigurationError: A provider's model was named without a gateway.
        InputError: `batch_size` is below 1.
        ModelError: The provider failed.
    """
    if model is None or model == HASHED_MODEL:
        _checked_batch_size(batch_size)
        return await (HashedEmbedder(dimensions) if dimensions else HashedEmbedder()).embed(texts)
    if source is None:
        raise ConfigurationError(
            f"The embedding model {model!r} is a provider's and no gateway was given. Pass `source`, or "
            "leave `model` out for the offline embedder."
        )
    return await ProviderEmbedder(source, model, dimensions, batch_size=batch_size).embed(texts)

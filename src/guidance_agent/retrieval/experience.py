"""Cases and released rules: held in memory as vectors and kept in step with the records, or searched by the server.

An exact product in memory takes a tenth of the time that a server needs for the same, so that is the way up to
`HELD_BYTES` of vectors. Beyond, where each process would hold as much and read it all at its first question, a server
that compares vectors is asked instead. Both ways find the same.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.embedding_column import similarity
from guidance_agent.core.schema import cases, rule_releases, rules
from guidance_agent.retrieval.found import RetrievedCase, RetrievedRule
from guidance_agent.retrieval.vectors import FloatArray, QueryVector, VectorIndex, vector_from_bytes, vector_to_bytes

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = ["HELD_BYTES", "Experience"]

HELD_BYTES = 64 * 1024 * 1024
"""Most bytes of vectors that are held of each, cases and rules, where the server could compare them."""
_IDS_AT_ONCE = 500


class _CaseText(NamedTuple):
    text: str
    topic: str | None


class _RuleText(NamedTuple):
    text: str
    confidence: float


class _State(NamedTuple):
    """What was read for one embedding model. It is replaced, never changed, except that new cases are appended.

    An index is None where the server is asked.
    """

    model: str
    dimensions: int
    case_index: VectorIndex | None
    case_texts: dict[str, _CaseText]
    newest_case: datetime | None
    rule_index: VectorIndex | None
    rule_texts: dict[str, _RuleText]
    rule_weights: FloatArray


class Experience:
    """Exact search over cases and over the rules of the latest release.

    The records are the truth: they are looked at again when `refresh_seconds` have passed, so that what another process
    learned or withdrew is seen. Rows embedded by another model than the question's are not compared.

    Args:
        database: The records.
        clock: Measures the interval.
        include_simulated: Whether rows that a simulated model led to count.
        refresh_seconds: How old the copy in memory may be.
        held_bytes: Most vectors held of each, where the server could compare them.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        include_simulated: bool = False,
        refresh_seconds: float = 5.0,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self._database = database
        self._clock = clock
        self._include_simulated = include_simulated
        self._refresh_seconds = refresh_seconds
        self._held_bytes = held_bytes
        # Protects the reading of the records: one turn refreshes, the others go on with what is there.
        self._lock = asyncio.Lock()
        self._state: _State | None = None
        self._read_at = float("-inf")

    async def search(
        self, query: QueryVector, *, cases: int, rules: int
    ) -> tuple[tuple[RetrievedCase, ...], tuple[RetrievedRule, ...]]:
        """Return the most similar cases, and the rules with the best similarity × confidence."""
        state = await self._current(query.model, len(query.values))
        # One after the other: in memory, where they nearly always are, two tasks would cost more than both searches.
        found_cases = await self._search_cases(state, query, cases)
        found_rules = await self._search_rules(state, query, rules)
        return (
            tuple(case for case in found_cases if case.score > 0),
            tuple(rule for rule in found_rules if rule.score > 0),
        )

    async def _search_cases(self, state: _State, query: QueryVector, limit: int) -> list[RetrievedCase]:
        if state.case_index is not None:
            hits = await state.case_index.find(query, limit)
            return [RetrievedCase(hit.id, *state.case_texts[hit.id], hit.score) for hit in hits]
        score = similarity(cases).label("score")
        best = sa.select(cases.c.id, cases.c.text, cases.c.topic, score)
        best = best.where(*self._usable(cases, state.model, state.dimensions))
        best = best.order_by(score.desc(), cases.c.created_at, cases.c.id).limit(max(limit, 0))
        rows = await self._rows(best, **_parameters(query))
        return [RetrievedCase(row.id, row.text, row.topic, row.score) for row in rows]

    async def _search_rules(self, state: _State, query: QueryVector, limit: int) -> list[RetrievedRule]:
        if state.rule_index is not None:
            hits = await state.rule_index.find(query, limit, weights=state.rule_weights)
            return [RetrievedRule(hit.id, *state.rule_texts[hit.id], hit.score) for hit in hits]
        score = (similarity(rules) * rules.c.confidence).label("score")
        best = sa.select(rules.c.id, rules.c.text, rules.c.confidence, score)
        best = best.where(rules.c.id.in_(_LATEST_RELEASE), *self._usable(rules, state.model, state.dimensions))
        best = best.order_by(score.desc(), rules.c.id).limit(max(limit, 0))
        rows = await self._rows(best, **_parameters(query))
        return [RetrievedRule(row.id, row.text, row.confidence, row.score) for row in rows]

    async def _current(self, model: str, dimensions: int) -> _State:
        state = self._held(model, dimensions)
        if state is not None and (self._lock.locked() or not self._is_old()):
            return state
        async with self._lock:
            state = self._held(model, dimensions)
            if state is None or self._is_old():
                state = await self._read_cases(model, dimensions, state)
                state = await self._read_rules(state)
                self._state, self._read_at = state, self._clock.monotonic()
        return state

    async def _rows(self, query: sa.Executable, **parameters: Any) -> list[sa.Row[Any]]:
        return await self._database.run(lambda connection: list(connection.execute(query, parameters)))

    def _held(self, model: str, dimensions: int) -> _State | None:
        state = self._state
        fits = state is not None and (state.model, state.dimensions) == (model, dimensions)
        return state if fits else None

    def _is_too_much(self, count: int, dimensions: int) -> bool:
        return self._database.compares_vectors and 4 * count * dimensions > self._held_bytes

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._read_at >= self._refresh_seconds

    def _usable(self, table: sa.Table, model: str, dimensions: int) -> list[sa.ColumnElement[bool]]:
        fits = [table.c.embedding_model == model, table.c.embedding_dimensions == dimensions]
        fits.append(table.c.embedding.is_not(None))
        return fits if self._include_simulated else [*fits, table.c.simulated.is_(False)]

    async def _read_cases(self, model: str, dimensions: int, state: _State | None) -> _State:
        usable = self._usable(cases, model, dimensions)
        counted = sa.select(sa.func.count().label("total"), sa.func.max(cases.c.created_at).label("newest"))
        counts = (await self._rows(counted.select_from(cases).where(*usable)))[0]
        count, newest = counts.total, counts.newest
        kept = state or _empty(model, dimensions)
        if self._is_too_much(count, dimensions):
            return kept._replace(case_index=None, case_texts={}, newest_case=None)
        index = None if state is None else state.case_index
        if index is not None and count == len(index) and newest == kept.newest_case:
            return kept
        columns = sa.select(cases.c.id, cases.c.text, cases.c.topic, cases.c.embedding).where(*usable)
        if index is not None and count > len(index) and kept.newest_case is not None:
            later = columns.where(cases.c.created_at >= kept.newest_case)
            rows = [row for row in await self._rows(later) if row.id not in index]
            if len(index) + len(rows) == count:
                await _append(index, [row.id for row in rows], [row.embedding for row in rows])
                kept.case_texts.update({row.id: _CaseText(row.text, row.topic) for row in rows})
                return kept._replace(newest_case=newest)
        rows = await self._rows(columns.order_by(cases.c.created_at, cases.c.id))
        index = VectorIndex(model, dimensions)
        await _append(index, [row.id for row in rows], [row.embedding for row in rows])
        texts = {row.id: _CaseText(row.text, row.topic) for row in rows}
        return kept._replace(case_index=index, case_texts=texts, newest_case=newest)

    async def _read_rules(self, state: _State) -> _State:
        import numpy as np

        latest = sa.select(rule_releases.c.rule_ids).order_by(rule_releases.c.version.desc()).limit(1)
        releases = await self._rows(latest)
        released: list[str] = releases[0].rule_ids if releases else []
        if self._is_too_much(len(released), state.dimensions):
            return state._replace(rule_index=None, rule_texts={}, rule_weights=np.zeros(0, dtype=np.float32))
        usable = self._usable(rules, state.model, state.dimensions)
        rows: list[sa.Row[Any]] = []
        for start in range(0, len(released), _IDS_AT_ONCE):
            some = released[start : start + _IDS_AT_ONCE]
            query = sa.select(rules.c.id, rules.c.text, rules.c.confidence, rules.c.embedding)
            rows += await self._rows(query.where(rules.c.id.in_(some), *usable).order_by(rules.c.id))
        index = VectorIndex(state.model, state.dimensions)
        await _append(index, [row.id for row in rows], [row.embedding for row in rows])
        return state._replace(
            rule_index=index,
            rule_texts={row.id: _RuleText(row.text, row.confidence) for row in rows},
            rule_weights=np.array([row.confidence for row in rows], dtype=np.float32),
        )


_LATEST_RELEASE = sa.select(sa.func.json_array_elements_text(rule_releases.c.rule_ids)).where(
    rule_releases.c.version == sa.select(sa.func.max(rule_releases.c.version)).scalar_subquery()
)
"""Ids of the rules of the latest release; for a server, which alone has such a function."""


def _parameters(query: QueryVector) -> dict[str, Any]:
    return {"model": query.model, "dimensions": len(query.values), "vector": vector_to_bytes(query.values)}


def _empty(model: str, dimensions: int) -> _State:
    import numpy as np

    return _State(
        model=model,
        dimensions=dimensions,
        case_index=VectorIndex(model, dimensions),
        case_texts={},
        newest_case=None,
        rule_index=VectorIndex(model, dimensions),
        rule_texts={},
        rule_weights=np.zeros(0, dtype=np.float32),
    )


async def _append(index: VectorIndex, ids: list[str], stored: list[bytes]) -> None:
    import numpy as np

    if not ids:
        return
    # Thousands of blobs are decoded in a thread; the row is appended here, where the index is also searched.
    vectors = await asyncio.to_thread(lambda: np.stack([vector_from_bytes(data) for data in stored]))
    index.append(ids, vectors)

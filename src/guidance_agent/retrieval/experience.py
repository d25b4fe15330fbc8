"""Cases and released rules, held in memory as vectors and kept in step with the records."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.schema import cases, rule_releases, rules
from guidance_agent.retrieval.found import RetrievedCase, RetrievedRule
from guidance_agent.retrieval.vectors import FloatArray, QueryVector, VectorIndex, vector_from_bytes

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = ["Experience"]

_IDS_AT_ONCE = 500


class _CaseText(NamedTuple):
    text: str
    topic: str | None


class _RuleText(NamedTuple):
    text: str
    confidence: float


class _State(NamedTuple):
    """What was read for one embedding model. It is replaced, never changed, except that new cases are appended."""

    case_index: VectorIndex
    case_texts: dict[str, _CaseText]
    newest_case: datetime | None
    rule_index: VectorIndex
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
    """

    def __init__(
        self, database: Database, clock: Clock, *, include_simulated: bool = False, refresh_seconds: float = 5.0
    ) -> None:
        self._database = database
        self._clock = clock
        self._include_simulated = include_simulated
        self._refresh_seconds = refresh_seconds
        # Protects the reading of the records: one turn refreshes, the others go on with what is there.
        self._lock = asyncio.Lock()
        self._state: _State | None = None
        self._read_at = float("-inf")

    async def search(
        self, query: QueryVector, *, cases: int, rules: int
    ) -> tuple[tuple[RetrievedCase, ...], tuple[RetrievedRule, ...]]:
        """Return the most similar cases, and the rules with the best similarity × confidence."""
        state = await self._current(query.model, len(query.values))
        case_hits = await state.case_index.find(query, cases)
        rule_hits = await state.rule_index.find(query, rules, weights=state.rule_weights)
        return (
            tuple(RetrievedCase(hit.id, *state.case_texts[hit.id], hit.score) for hit in case_hits if hit.score > 0),
            tuple(RetrievedRule(hit.id, *state.rule_texts[hit.id], hit.score) for hit in rule_hits if hit.score > 0),
        )

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

    async def _rows(self, query: sa.Executable) -> list[sa.Row[Any]]:
        return await self._database.run(lambda connection: list(connection.execute(query)))

    def _held(self, model: str, dimensions: int) -> _State | None:
        state = self._state
        fits = state is not None and (state.case_index.model, state.case_index.dimensions) == (model, dimensions)
        return state if fits else None

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
        if state is not None and count == len(state.case_index) and newest == state.newest_case:
            return state
        columns = sa.select(cases.c.id, cases.c.text, cases.c.topic, cases.c.embedding).where(*usable)
        if state is not None and count > len(state.case_index) and state.newest_case is not None:
            later = columns.where(cases.c.created_at >= state.newest_case)
            rows = [row for row in await self._rows(later) if row.id not in state.case_index]
            if len(state.case_index) + len(rows) == count:
                index, texts = state.case_index, state.case_texts
                await _append(index, [row.id for row in rows], [row.embedding for row in rows])
                texts.update({row.id: _CaseText(row.text, row.topic) for row in rows})
                return state._replace(newest_case=newest)
        rows = await self._rows(columns.order_by(cases.c.created_at, cases.c.id))
        index = VectorIndex(model, dimensions)
        await _append(index, [row.id for row in rows], [row.embedding for row in rows])
        texts = {row.id: _CaseText(row.text, row.topic) for row in rows}
        kept = state or _empty(model, dimensions)
        return kept._replace(case_index=index, case_texts=texts, newest_case=newest)

    async def _read_rules(self, state: _State) -> _State:
        import numpy as np

        model, dimensions = state.case_index.model, state.case_index.dimensions
        latest = sa.select(rule_releases.c.rule_ids).order_by(rule_releases.c.version.desc()).limit(1)
        releases = await self._rows(latest)
        released: list[str] = releases[0].rule_ids if releases else []
        usable = self._usable(rules, model, dimensions)
        rows: list[sa.Row[Any]] = []
        for start in range(0, len(released), _IDS_AT_ONCE):
            some = released[start : start + _IDS_AT_ONCE]
            query = sa.select(rules.c.id, rules.c.text, rules.c.confidence, rules.c.embedding)
            rows += await self._rows(query.where(rules.c.id.in_(some), *usable).order_by(rules.c.id))
        index = VectorIndex(model, dimensions)
        await _append(index, [row.id for row in rows], [row.embedding for row in rows])
        return state._replace(
            rule_index=index,
            rule_texts={row.id: _RuleText(row.text, row.confidence) for row in rows},
            rule_weights=np.array([row.confidence for row in rows], dtype=np.float32),
        )


def _empty(model: str, dimensions: int) -> _State:
    import numpy as np

    nothing = VectorIndex(model, dimensions)
    return _State(nothing, {}, None, VectorIndex(model, dimensions), {}, np.zeros(0, dtype=np.float32))


async def _append(index: VectorIndex, ids: list[str], stored: list[bytes]) -> None:
    import numpy as np

    if not ids:
        return
    # Thousands of blobs are decoded in a thread; the row is appended here, where the index is also searched.
    vectors = await asyncio.to_thread(lambda: np.stack([vector_from_bytes(data) for data in stored]))
    index.append(ids, vectors)

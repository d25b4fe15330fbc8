"""What prompt caching did: calls, tokens, money, labels and parts, added up by the database from the usage ledger.

The money is that of the input alone: what it cost, with its cache reads and writes, against what the same tokens would
have cost at the input price of that day. Both come from the unit prices that each call was recorded with. A call
without a price, or without a known usage, is counted and has no part in the money; where no call of a line has a price,
its money is None.

Left out are calls that have no prompt to cache, as those that embed texts, and answers of the local response cache, for
which no provider was asked. Simulated calls stand in a section of their own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from guidance_agent.core.database import Database
from guidance_agent.core.schema import model_calls
from guidance_agent.llm.messages import UnitPrices, Usage
from guidance_agent.llm.pricing import cost_of

__all__ = [
    "DIMENSIONS",
    "CacheDimension",
    "CacheFigures",
    "CacheReport",
    "CacheSection",
    "PartFigures",
    "cache_report",
]

CacheDimension = Literal["model", "day", "operation", "transport"]
DIMENSIONS: tuple[CacheDimension, ...] = ("model", "day", "operation", "transport")
"""What the calls can be grouped by. A day is one of UTC; the transport tells calls of batches from the others."""

_PROMPT_ORDER = ("tools", "schema", "conduct", "requirements", "customer", "conversation")
_CHANGED = "part_changed:"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFigures:
    """What caching did for some calls.

    Attributes:
        calls: All of them.
        input_tokens: Neither read nor written. A prompt's tokens are these, the read and the written ones.
        written_5m_tokens: Written for five minutes, or for the thirty of a model with one life for all.
        without_usage: Calls of which no token count is known, as of one that failed.
        estimated: Calls whose usage is estimated at least in part.
        without_price: Calls with a usage and without a price.
        paid_usd: What the input of the calls with a price cost, writes included; None when there are none.
        uncached_usd: What the same input would have cost without caching; None when there are none.
        outcomes: Calls by their label.
    """

    calls: int = 0
    input_tokens: int = 0
    read_tokens: int = 0
    written_5m_tokens: int = 0
    written_1h_tokens: int = 0
    without_usage: int = 0
    estimated: int = 0
    without_price: int = 0
    paid_usd: float | None = None
    uncached_usd: float | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)

    @property
    def hits(self) -> int:
        return self.outcomes.get("hit", 0)

    @property
    def total_input_tokens(self) -> int:
        return self.input_tokens + self.read_tokens + self.written_5m_tokens + self.written_1h_tokens

    @property
    def read_share(self) -> float | None:
        """Share of the input that was read from a cache; None without any input."""
        return self.read_tokens / self.total_input_tokens if self.total_input_tokens else None

    @property
    def saved_usd(self) -> float | None:
        """Net saving in US dollars, negative while writes have cost more than reads have brought; None if unknown."""
        if self.paid_usd is None or self.uncached_usd is None:
            return None
        return self.uncached_usd - self.paid_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFigures:
    """In how many calls a part was read as a whole, read at its beginning only, written, or paid in full.

    `calls` are those that had the part and reported their usage, `changed` those whose label names this part.
    """

    calls: int = 0
    read: int = 0
    extended: int = 0
    written: int = 0
    uncached: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSection:
    """The figures of all real calls, or of all simulated ones.

    `lines` holds one mapping for each dimension that was asked for: model, day or operation to its figures.
    """

    simulated: bool
    total: CacheFigures
    parts: Mapping[str, PartFigures]
    lines: Mapping[str, Mapping[str, CacheFigures]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """A section for real and one for simulated calls, each only where there are such calls."""

    since: datetime | None
    until: datetime | None
    sections: tuple[CacheSection, ...]


class _UtcDay(FunctionElement[str]):
    """The date of a moment in UTC as `YYYY-MM-DD`."""

    inherit_cache = True
    type = sa.String()


@compiles(_UtcDay, "sqlite")
def _sqlite_day(element: _UtcDay, compiler: Any, **options: Any) -> str:
    # Moments are stored as text in UTC that begins with the date.
    return f"substr({compiler.process(element.clauses, **options)}, 1, 10)"


@compiles(_UtcDay, "postgresql")
def _postgresql_day(element: _UtcDay, compiler: Any, **options: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


async def cache_report(
    database: Database,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
    by: Sequence[CacheDimension] = (),
) -> CacheReport:
    """Return the figures of the calls that began in a period.

    Args:
        database: The records.
        since: First moment of the period; None for no bound.
        until: First moment after it; None for no bound.
        model: Only calls of this model, as recorded; None for all.
        by: What the lines of a section are grouped by, besides its total and its parts.

    Raises:
        DatabaseUnavailableError: when the records cannot be read.
    """
    chosen = [model_calls.c.operation != "embedding", model_calls.c.cache_outcome != "local_hit"]
    if since is not None:
        chosen.append(model_calls.c.started_at >= since)
    if until is not None:
        chosen.append(model_calls.c.started_at < until)
    if model is not None:
        chosen.append(model_calls.c.model == model)
    return await database.run(lambda connection: _report(connection, chosen, since, until, by))


def _report(
    connection: sa.Connection,
    chosen: Sequence[sa.ColumnElement[bool]],
    since: datetime | None,
    until: datetime | None,
    by: Sequence[CacheDimension],
) -> CacheReport:
    # One pass, grouped by everything at once: a second look at millions of rows costs more than folding the groups.
    names = tuple(_COLUMNS[dimension] for dimension in by)
    keys = (model_calls.c.simulated, model_calls.c.cache_outcome, _PRICES, _USES, *names)
    grouped = sa.select(*keys, *_SUMS.values()).where(*chosen).group_by(*keys)
    sections: dict[bool, _Section] = {}
    for simulated, outcome, prices, uses, *rest in connection.execute(grouped):
        group = _Group(outcome, prices, dict(zip(_SUMS, map(int, rest[len(by) :]), strict=True)))
        section = sections.setdefault(bool(simulated), _Section(by))
        section.add(group, json.loads(uses), rest[: len(by)])
    found = tuple(sections[simulated].read(simulated) for simulated in sorted(sections))
    return CacheReport(since=since, until=until, sections=found)


_COLUMNS: Mapping[CacheDimension, sa.ColumnElement[str]] = {
    "model": model_calls.c.model,
    "day": _UtcDay(model_calls.c.started_at),
    "operation": model_calls.c.operation,
    "transport": model_calls.c.transport,
}
_PRICES = sa.case((model_calls.c.cost_usd.is_not(None), sa.cast(model_calls.c.unit_prices, sa.Text)))
"""The unit prices as text; NULL without a cost. There are few different ones, so money is left to Python."""

_USES = sa.cast(model_calls.c.cache_use, sa.Text)
_KNOWN = model_calls.c.input_tokens.is_not(None)


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column), 0)


_SUMS: Mapping[str, sa.ColumnElement[int]] = {
    "calls": sa.func.count(),
    "input_tokens": _sum(model_calls.c.input_tokens),
    "read_tokens": _sum(model_calls.c.cache_read_tokens),
    "written_5m_tokens": _sum(model_calls.c.cache_write_5m_tokens),
    "written_1h_tokens": _sum(model_calls.c.cache_write_1h_tokens),
    "without_usage": _count(~_KNOWN),
    "estimated": _count(_KNOWN & model_calls.c.usage_estimated),
    "without_price": _count(_KNOWN & model_calls.c.cost_usd.is_(None)),
}


class _Group(NamedTuple):
    """Calls with one label and one price list, added up by the database."""

    outcome: str
    prices: str | None
    sums: Mapping[str, int]


class _Sums:
    """Adds groups up to the figures of a line."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._priced: dict[str, Counter[str]] = {}

    def add(self, group: _Group) -> None:
        self._sums.update(group.sums)
        self._outcomes[group.outcome] += group.sums["calls"]
        if group.prices is not None:
            self._priced.setdefault(group.prices, Counter()).update(group.sums)

    def read(self) -> CacheFigures:
        paid = [cost_of(_usage(sums), _unit_prices(text)).usd for text, sums in self._priced.items()]
        plain = [_usage(sums).total_input_tokens * _unit_prices(text).input for text, sums in self._priced.items()]
        return CacheFigures(
            **{name: self._sums[name] for name in _SUMS},
            paid_usd=math.fsum(paid) if paid else None,
            uncached_usd=math.fsum(plain) if plain else None,
            outcomes=dict(sorted(self._outcomes.items())),
        )


def _usage(sums: Mapping[str, int]) -> Usage:
    return Usage(
        input_tokens=sums["input_tokens"],
        cache_read_tokens=sums["read_tokens"],
        cache_write_5m_tokens=sums["written_5m_tokens"],
        cache_write_1h_tokens=sums["written_1h_tokens"],
    )


def _unit_prices(text: str) -> UnitPrices:
    return UnitPrices(**json.loads(text))


class _Section:
    """Adds groups up to the total, the parts and the lines of a section."""

    def __init__(self, by: Sequence[CacheDimension]) -> None:
        self._total = _Sums()
        self._parts: dict[str, Counter[str]] = {}
        self._lines: dict[CacheDimension, dict[str, _Sums]] = {dimension: {} for dimension in by}

    def add(self, group: _Group, uses: Mapping[str, str], names: Sequence[str]) -> None:
        self._total.add(group)
        for lines, name in zip(self._lines.values(), names, strict=True):
            lines.setdefault(name, _Sums()).add(group)
        calls = group.sums["calls"]
        for part, use in uses.items():
            self._parts.setdefault(part, Counter()).update({"calls": calls, use: calls})
        if group.outcome.startswith(_CHANGED):
            self._parts.setdefault(group.outcome.removeprefix(_CHANGED), Counter()).update({"changed": calls})

    def read(self, simulated: bool) -> CacheSection:
        return CacheSection(
            simulated=simulated,
            total=self._total.read(),
            parts={part: PartFigures(**self._parts[part]) for part in sorted(self._parts, key=_place)},
            lines={
                dimension: {name: lines[name].read() for name in sorted(lines)}
                for dimension, lines in self._lines.items()
            },
        )


def _place(name: str) -> tuple[int, str]:
    return (_PROMPT_ORDER.index(name) if name in _PROMPT_ORDER else len(_PROMPT_ORDER), name)

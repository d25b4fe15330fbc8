"""The days of insight reports: which turns a day had, by consultation, and what names them.

A day is a day in the United Kingdom, from midnight to midnight there. A consultation belongs to each day on which a
turn of it ended, with the turns that ended then: so nothing that happens later changes which turns a day had, and a
consultation over midnight is read on both days, each time with what was said then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from guidance_agent.core.schema import turns

__all__ = ["DayPart", "day_bounds", "fingerprint_of", "parts_by_day"]

_UK = ZoneInfo("Europe/London")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayPart:
    """The turns of a consultation that ended on a day, and whether each has its verdict."""

    day: date
    consultation_id: str
    turn_ids: tuple[str, ...]
    settled: tuple[bool, ...]
    simulated: bool

    @property
    def note_id(self) -> str:
        """The id of its note: the same for the same turns."""
        return f"note_{_hashed([self.day.isoformat(), self.consultation_id, *self.turn_ids])[:40]}"


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return the first moment of a day in the United Kingdom and the first after it, in UTC."""
    first, after = (datetime.combine(each, time.min, _UK) for each in (day, day + timedelta(days=1)))
    return first.astimezone(UTC), after.astimezone(UTC)


def fingerprint_of(parts: Sequence[DayPart]) -> str:
    """Return what changes when a day has other turns, or another of them has its verdict."""
    return _hashed([[part.consultation_id, part.turn_ids, part.settled] for part in parts])


def parts_by_day(
    connection: sa.Connection, first: date, before: date, *, include_simulated: bool
) -> dict[date, list[DayPart]]:
    """Return what each day from `first` on had, up to the day before `before`, the oldest first."""
    begin, end = day_bounds(first)[0], day_bounds(before)[0]
    columns = (turns.c.id, turns.c.consultation_id, turns.c.ended_at, turns.c.judgement, turns.c.simulated)
    query = sa.select(*columns).where(turns.c.ended_at >= begin, turns.c.ended_at < end, turns.c.state != "streaming")
    if not include_simulated:
        query = query.where(turns.c.simulated.is_(False))
    found: dict[tuple[date, str], list[Any]] = {}
    for row in connection.execute(query.order_by(turns.c.consultation_id, turns.c.ordinal)):
        found.setdefault((row.ended_at.astimezone(_UK).date(), row.consultation_id), []).append(row)
    days: dict[date, list[DayPart]] = {}
    for day, consultation_id in sorted(found):
        rows = found[day, consultation_id]
        days.setdefault(day, []).append(
            DayPart(
                day=day,
                consultation_id=consultation_id,
                turn_ids=tuple(row.id for row in rows),
                settled=tuple(row.judgement != "pending" for row in rows),
                simulated=any(row.simulated for row in rows),
            )
        )
    return days


def _hashed(told: object) -> str:
    return hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()

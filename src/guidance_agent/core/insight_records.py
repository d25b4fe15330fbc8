"""The records of the insight report: what was noted of each consultation of a day, and the day's reports.

A report stands for what its day had when it was opened: which turns, and which of them had their verdict. Where that
has changed, by a turn that was closed late or a verdict that came late, the day gets a report of the next revision.
What was noted of a consultation is used again as long as its turns of the day are the same.

    note    waiting ──▶ ended: read or failed
    report  reading ──▶ writing ──▶ ended: written, counts_only or superseded
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.insight_days import DayPart, fingerprint_of, parts_by_day
from guidance_agent.core.schema import insight_notes, insight_reports
from guidance_agent.core.types import JsonObject

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database

__all__ = [
    "InsightNote",
    "InsightRecords",
    "NoteOutcome",
    "ReportOutcome",
    "StoredReport",
]

NoteOutcome = Literal["read", "failed"]
ReportOutcome = Literal["written", "counts_only", "superseded"]

_IDS_AT_ONCE = 500
_NOTE = insight_notes.c
_REPORT = insight_reports.c


@dataclass(frozen=True, slots=True, kw_only=True)
class InsightNote:
    """What is noted of one consultation on one day; `answer` is None until it was read."""

    id: str
    day: date
    consultation_id: str
    turn_ids: tuple[str, ...]
    outcome: NoteOutcome | None = None
    answer: JsonObject | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """A day's report of one revision.

    Attributes:
        stage: `reading` while consultations are read, `writing` while the words are written, then `ended`.
        counts: What the program counted; None while consultations are read.
        words: What a model wrote; None where nothing of it could be kept.
        refused: How many of its statements were left out.
        cost_usd: What the words cost, without what reading the consultations did; None where a price is not known.
    """

    id: str
    day: date
    revision: int
    note_ids: tuple[str, ...]
    stage: str
    outcome: ReportOutcome | None
    reason: str | None
    counts: JsonObject | None
    words: JsonObject | None
    refused: int
    attempts: int
    model: str | None
    cost_usd: float | None
    simulated: bool
    created_at: datetime
    ended_at: datetime | None


class InsightRecords:
    """Notes and reports in the records. Raises `DatabaseUnavailableError` when the database cannot be used.

    Args:
        database: The records.
        clock: Times and days.
        include_simulated: Whether simulated turns count; what they led to is marked.
    """

    def __init__(self, database: Database, clock: Clock, *, include_simulated: bool = False) -> None:
        self._database = database
        self._clock = clock
        self._include_simulated = include_simulated

    async def open_new(self, *, limit: int, days: int) -> int:
        """Open reports on days that are over, `days` of them at most, and notes for them; returns how many notes.

        At most `limit` notes are opened at a time, those of the oldest day first; a report waits for the rest.
        """
        today, now = self._clock.today(), self._clock.now()

        def write(connection: sa.Connection) -> int:
            _lock(connection)
            opened = 0
            for day, parts in self._days(connection, today - timedelta(days=days), today).items():
                self._open_report(connection, day, parts, now)
                ids = [part.note_id for part in parts]
                known = _existing(connection, ids)
                missing = [part for part in parts if part.note_id not in known][: max(limit - opened, 0)]
                if missing:
                    insert = insert_or_change(connection.dialect.name, insight_notes).on_conflict_do_nothing()
                    connection.execute(insert, [_note_row(part, now) for part in missing])
                    opened += len(missing)
            return opened

        return await self._database.transaction(write)

    def ready_notes(self) -> sa.Select[Any]:
        """Select the ids of notes that wait to be asked for, the oldest day first."""
        query = sa.select(_NOTE.id).where(_NOTE.stage == "waiting")
        return query.order_by(_NOTE.day, _NOTE.consultation_id, _NOTE.id)

    async def notes(self, ids: Sequence[str]) -> list[InsightNote]:
        """Return these notes, in the order of their ids."""

        def read(connection: sa.Connection) -> list[InsightNote]:
            names = ("id", "day", "consultation_id", "turn_ids", "outcome", "answer", "simulated")
            columns = [_NOTE[name] for name in names]
            made = []
            for some in _slices(sorted(ids)):
                for row in connection.execute(sa.select(*columns).where(_NOTE.id.in_(some)).order_by(_NOTE.id)):
                    values = {**row._mapping, "day": date.fromisoformat(row.day), "turn_ids": tuple(row.turn_ids)}
                    made.append(InsightNote(**values))
            return made

        return await self._database.run(read)

    def note_read(
        self,
        connection: sa.Connection,
        note_id: str,
        answer: JsonObject,
        *,
        model: str | None,
        cost: float | None,
        simulated: bool,
    ) -> bool:
        """Store what was noted of a consultation; False where nobody waits for it."""
        values: JsonObject = {"stage": "ended", "outcome": "read", "answer": answer, "ended_at": self._clock.now()}
        values |= {"model": model, **_costing(_NOTE.cost_usd, cost)}
        if simulated:
            values["simulated"] = True
        change = sa.update(insight_notes).where(_NOTE.id == note_id, _NOTE.stage == "waiting")
        return bool(connection.execute(change.values(**values)).rowcount)

    def note_failed(
        self, connection: sa.Connection, note_id: str, reason: str, *, attempts: int, cost: float | None
    ) -> bool:
        """Note that a consultation was not read; True where it is to be asked about again, `attempts` times in all."""
        return self._again(connection, insight_notes, note_id, "waiting", reason, attempts, "failed", cost=cost)

    async def read_through(self) -> list[StoredReport]:
        """Return the reports whose consultations have all been read, or have failed to be."""
        reports = await self._reports(_REPORT.stage == "reading")

        def ended(connection: sa.Connection) -> list[StoredReport]:
            return [
                each for each in reports if len(_existing(connection, each.note_ids, "ended")) == len(each.note_ids)
            ]

        return await self._database.run(ended)

    async def begin_writing(self, report: StoredReport, counts: JsonObject, *, simulated: bool) -> None:
        """Keep a report's counts, and have its words written."""
        await self._move(report.id, "reading", {"stage": "writing", "counts": counts, "simulated": simulated})

    async def end_with_counts(self, report: StoredReport, counts: JsonObject, reason: str, *, simulated: bool) -> None:
        """Keep a report's counts, and end it without words."""
        values = {"stage": "ended", "outcome": "counts_only", "reason": reason, "ended_at": self._clock.now()}
        await self._move(report.id, "reading", {**values, "counts": counts, "simulated": simulated})

    def ready_reports(self) -> sa.Select[Any]:
        """Select the ids of reports whose words are to be written, the oldest day first."""
        return sa.select(_REPORT.id).where(_REPORT.stage == "writing").order_by(_REPORT.day, _REPORT.revision)

    async def reports(self, ids: Sequence[str]) -> list[StoredReport]:
        """Return these reports as far as their words are still to be written."""
        return await self._reports(_REPORT.id.in_(ids), _REPORT.stage == "writing")

    def report_being_written(self, connection: sa.Connection, report_id: str) -> StoredReport | None:
        """Return a report whose words are waited for; None where nobody waits for them any more."""
        found = _read_reports(connection, _REPORT.id == report_id, _REPORT.stage == "writing")
        return found[0] if found else None

    def written(
        self,
        connection: sa.Connection,
        report_id: str,
        words: JsonObject,
        *,
        refused: int,
        model: str | None,
        cost: float | None,
        simulated: bool,
    ) -> None:
        """Store the words of a report, and end it."""
        values: JsonObject = {"stage": "ended", "outcome": "written", "words": words, "ended_at": self._clock.now()}
        values |= {"refused": refused, "model": model, **_costing(_REPORT.cost_usd, cost)}
        if simulated:
            values["simulated"] = True
        change = sa.update(insight_reports).where(_REPORT.id == report_id, _REPORT.stage == "writing")
        connection.execute(change.values(**values))

    def not_written(
        self, connection: sa.Connection, report_id: str, reason: str, *, attempts: int, cost: float | None
    ) -> bool:
        """Note that there are no words that can be kept; True where they are to be asked for again."""
        return self._again(
            connection, insight_reports, report_id, "writing", reason, attempts, "counts_only", cost=cost
        )

    async def latest(self, day: date | None = None) -> StoredReport | None:
        """Return the newest report that has ended, of a day or of all; None where there is none."""
        which = [_REPORT.stage == "ended", _REPORT.outcome != "superseded"]
        if day is not None:
            which.append(_REPORT.day == day.isoformat())
        found = await self._reports(*which, newest=True)
        return found[0] if found else None

    async def under_way(self, day: date) -> StoredReport | None:
        """Return a day's report that has not ended; None where there is none."""
        found = await self._reports(_REPORT.day == day.isoformat(), _REPORT.stage != "ended", newest=True)
        return found[0] if found else None

    async def read_notes(self, report: StoredReport) -> int:
        """Return how many of a report's consultations have been read, or have failed to be."""
        return await self._database.run(lambda connection: len(_existing(connection, report.note_ids, "ended")))

    async def turn_ids(self, day: date) -> list[str]:
        """Return the turns that ended on a day, by consultation."""

        def read(connection: sa.Connection) -> list[str]:
            days = self._days(connection, day, day + timedelta(days=1))
            return [turn_id for part in days.get(day, ()) for turn_id in part.turn_ids]

        return await self._database.run(read)

    async def standing(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return how many notes and reports go on, by their stage, and how many have ended, by their outcome."""

        def read(connection: sa.Connection) -> tuple[dict[str, int], dict[str, int]]:
            waiting: dict[str, int] = {}
            ended: dict[str, int] = {}
            for table, what in ((insight_notes, "consultations"), (insight_reports, "reports")):
                stage, outcome = table.c.stage, table.c.outcome
                query = sa.select(stage, outcome, sa.func.count()).group_by(stage, outcome)
                for at, how, count in connection.execute(query):
                    (ended if at == "ended" else waiting)[f"{what} {how if at == 'ended' else at}"] = count
            return waiting, ended

        return await self._database.run(read)

    def _days(self, connection: sa.Connection, first: date, before: date) -> dict[date, list[DayPart]]:
        return parts_by_day(connection, first, before, include_simulated=self._include_simulated)

    def _open_report(self, connection: sa.Connection, day: date, parts: Sequence[DayPart], now: datetime) -> None:
        fingerprint, of_day = fingerprint_of(parts), _REPORT.day == day.isoformat()
        if connection.execute(sa.select(_REPORT.id).where(of_day, _REPORT.fingerprint == fingerprint)).first():
            return
        superseded = {"stage": "ended", "outcome": "superseded", "ended_at": now}
        connection.execute(sa.update(insight_reports).where(of_day, _REPORT.stage != "ended").values(**superseded))
        last = connection.execute(sa.select(sa.func.max(_REPORT.revision)).where(of_day)).scalar_one() or 0
        connection.execute(
            sa.insert(insight_reports).values(
                id=f"insight_{day.isoformat()}_{last + 1}_{fingerprint[:12]}",
                day=day.isoformat(),
                revision=last + 1,
                fingerprint=fingerprint,
                note_ids=[part.note_id for part in parts],
                stage="reading",
                simulated=any(part.simulated for part in parts),
                created_at=now,
            )
        )

    async def _reports(self, *which: sa.ColumnElement[bool], newest: bool = False) -> list[StoredReport]:
        return await self._database.run(lambda connection: _read_reports(connection, *which, newest=newest))

    async def _move(self, report_id: str, before: str, values: JsonObject) -> None:
        change = sa.update(insight_reports).where(_REPORT.id == report_id, _REPORT.stage == before).values(**values)
        await self._database.transaction(lambda connection: connection.execute(change))

    def _again(
        self,
        connection: sa.Connection,
        table: sa.Table,
        row_id: str,
        before: str,
        reason: str,
        attempts: int,
        outcome: str,
        *,
        cost: float | None,
    ) -> bool:
        waits = sa.and_(table.c.id == row_id, table.c.stage == before)
        made: int | None = connection.execute(sa.select(table.c.attempts).where(waits)).scalar_one_or_none()
        if made is None:
            return False
        values: JsonObject = {"attempts": made + 1, "reason": reason, **_costing(table.c.cost_usd, cost)}
        again = made + 1 < attempts
        if not again:
            values |= {"stage": "ended", "outcome": outcome, "ended_at": self._clock.now()}
        connection.execute(sa.update(table).where(waits).values(**values))
        return again


def _read_reports(
    connection: sa.Connection, *which: sa.ColumnElement[bool], newest: bool = False
) -> list[StoredReport]:
    names = [name for name in insight_reports.c.keys() if name != "fingerprint"]  # noqa: SIM118  no mapping of columns
    order: Iterable[Any] = (_REPORT.day, _REPORT.revision)
    query = sa.select(*(_REPORT[name] for name in names)).where(*which)
    query = query.order_by(*(each.desc() for each in order)).limit(1) if newest else query.order_by(*order)
    return [
        StoredReport(**{**row, "day": date.fromisoformat(row["day"]), "note_ids": tuple(row["note_ids"])})
        for row in connection.execute(query).mappings()
    ]


def _existing(connection: sa.Connection, ids: Sequence[str], stage: str | None = None) -> set[str]:
    found: set[str] = set()
    for some in _slices(ids):
        query = sa.select(_NOTE.id).where(_NOTE.id.in_(some))
        found.update(connection.execute(query if stage is None else query.where(_NOTE.stage == stage)).scalars())
    return found


def _slices(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[first : first + _IDS_AT_ONCE] for first in range(0, len(ids), _IDS_AT_ONCE))


def _note_row(part: DayPart, now: datetime) -> JsonObject:
    return {
        "id": part.note_id,
        "day": part.day.isoformat(),
        "consultation_id": part.consultation_id,
        "turn_ids": list(part.turn_ids),
        "stage": "waiting",
        "simulated": part.simulated,
        "created_at": now,
    }


def _costing(column: Any, cost: float | None) -> JsonObject:
    return {} if cost is None else {"cost_usd": sa.func.coalesce(column, 0.0) + cost}


def _lock(connection: sa.Connection) -> None:
    """Let no other process open reports before this transaction ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE insight_reports IN SHARE ROW EXCLUSIVE MODE"))

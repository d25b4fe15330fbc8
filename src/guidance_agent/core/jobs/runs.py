"""The record of runs: when each began and ended, on which machine, and what it reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.jobs.reports import JobName, JobOutcome
from guidance_agent.core.schema import job_runs

__all__ = ["JobRun", "JobRuns", "RunState"]

RunState = Literal["running", "waiting", "died"] | JobOutcome

_ENDED: tuple[JobOutcome, ...] = ("done", "needs_person", "try_later")
_SILENT = timedelta(minutes=15)
_KEPT = timedelta(days=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run. `ended_at` of one that waits is when it last looked."""

    id: str
    job: JobName
    holder: str
    state: RunState
    started_at: datetime
    ended_at: datetime | None
    report: Mapping[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.id,
            "job": self.job,
            "holder": self.holder,
            "state": self.state,
            "started_at": self.started_at.isoformat(),
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
            "report": self.report,
        }


class JobRuns:
    """Keeps and reads the runs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, run_id: str, job: JobName, holder: str) -> None:
        """Note that a run has begun; forgets runs of more than a year ago."""
        now = self._clock.now()
        insert = sa.insert(job_runs).values(id=run_id, job=job, holder=holder, started_at=now)
        old = sa.delete(job_runs).where(job_runs.c.started_at < now - _KEPT)

        def write(connection: sa.Connection) -> None:
            connection.execute(old)
            connection.execute(insert)

        await self._database.transaction(write)

    async def note(self, run_id: str, outcome: JobOutcome | Literal["waiting"], report: Mapping[str, Any]) -> None:
        """Note how a run has ended, or that it waits."""
        change = sa.update(job_runs).where(job_runs.c.id == run_id)
        values = {"outcome": outcome, "report": dict(report), "ended_at": self._clock.now()}
        await self._database.transaction(lambda connection: connection.execute(change.values(**values)))

    async def last_done(self, job: JobName) -> datetime | None:
        """Return when the last run of a job began that came to its end; None where none did."""
        run = job_runs.c
        query = sa.select(sa.func.max(run.started_at)).where(run.job == job, run.outcome.in_(_ENDED))
        started: datetime | None = await self._database.run(lambda connection: connection.execute(query).scalar_one())
        return started

    async def last(self, *, limit: int, running: str | None) -> Sequence[JobRun]:
        """Return the last runs, the newest first.

        Args:
            limit: How many.
            running: The run that has the lock.
        """
        query = sa.select(job_runs).order_by(job_runs.c.started_at.desc(), job_runs.c.id.desc()).limit(limit)
        rows = await self._database.run(lambda connection: [dict(row) for row in connection.execute(query).mappings()])
        return [
            JobRun(
                id=row["id"],
                job=row["job"],
                holder=row["holder"],
                state=self._state(row, running),
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                report=row["report"],
            )
            for row in rows
        ]

    def _state(self, row: Mapping[str, Any], running: str | None) -> RunState:
        if row["id"] == running:
            return "running"
        if row["outcome"] == "waiting":
            return "died" if self._clock.now() - row["ended_at"] > _SILENT else "waiting"
        outcome: JobOutcome | None = row["outcome"]
        return "died" if outcome is None else outcome

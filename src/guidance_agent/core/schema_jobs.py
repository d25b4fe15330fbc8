"""The tables of the jobs that run twice a day: who runs one now, and what each run did."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import StoredId, StoredText, UtcDateTime, id_column, metadata

__all__ = ["job_locks", "job_runs"]

job_locks = sa.Table(
    "job_locks",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("run_id", StoredId, nullable=False),
    sa.Column("holder", StoredText, nullable=False),
    sa.Column("taken_at", UtcDateTime, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
)

job_runs = sa.Table(
    "job_runs",
    metadata,
    id_column(),
    sa.Column("job", sa.String(32), nullable=False),
    sa.Column("holder", StoredText, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
    sa.Index("ix_job_runs_started", "started_at"),
)

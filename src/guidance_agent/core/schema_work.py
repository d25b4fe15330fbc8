"""The table of what is on its way through a batch: which subject stands in which job, for what."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import StoredId, UtcDateTime, metadata

__all__ = ["batch_claims"]

batch_claims = sa.Table(
    "batch_claims",
    metadata,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("subject_id", StoredId, primary_key=True),
    sa.Column("job_key", StoredId, nullable=False),
    sa.Column("claimed_at", UtcDateTime, nullable=False),
    sa.Index("ix_batch_claims_job_key", "job_key"),
)

"""The tables of audits: which runs there were, and how each audited turn stands."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import StoredId, StoredText, UtcDateTime, id_column, metadata

__all__ = ["audit_runs", "audit_turns"]

audit_runs = sa.Table(
    "audit_runs",
    metadata,
    id_column(),
    sa.Column("model", StoredText, nullable=False),
    sa.Column("policy_version", sa.String(64), nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index("ix_audit_runs_created", "created_at"),
)

audit_turns = sa.Table(
    "audit_turns",
    metadata,
    id_column(),
    sa.Column("run_id", sa.ForeignKey("audit_runs.id"), nullable=False),
    sa.Column("turn_id", StoredId, nullable=False),
    sa.Column("policy_version", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("examined", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("verdict_id", StoredId, nullable=True),
    sa.Column("error", StoredText, nullable=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.UniqueConstraint("turn_id", "policy_version"),
    sa.Index("ix_audit_turns_state", "state", "turn_id"),
    sa.Index("ix_audit_turns_run", "run_id", "state"),
)

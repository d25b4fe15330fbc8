"""The tables of what was learned: failures that were reflected on, rules and their releases, what turns taught."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import StoredId, StoredText, UtcDateTime, id_column, metadata, vector_columns

__all__ = ["reflections", "rule_events", "rule_releases", "rules", "turn_lessons"]

rules = sa.Table(
    "rules",
    metadata,
    id_column(),
    sa.Column("text", StoredText, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    *vector_columns(),
)

rule_releases = sa.Table(
    "rule_releases",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("released_at", UtcDateTime, nullable=False),
    sa.Column("rule_ids", sa.JSON, nullable=False),
    sa.Column("note", StoredText, nullable=False, default=""),
)

rule_events = sa.Table(
    "rule_events",
    metadata,
    id_column(),
    sa.Column("rule_id", sa.ForeignKey("rules.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("rule_id", "number"),
)

reflections = sa.Table(
    "reflections",
    metadata,
    id_column(),
    sa.Column("turn_id", StoredId, nullable=False),
    sa.Column("consultation_id", StoredId, nullable=False),
    sa.Column("verdict_id", StoredId, nullable=True),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("rule_id", StoredId, nullable=True),
    sa.Column("steps", sa.JSON, nullable=False),
    sa.Column("unreadable", sa.Integer, nullable=False, default=0),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Column("owner", StoredId, nullable=True),
    sa.Column("lease_until", sa.Float, nullable=True),
    sa.UniqueConstraint("turn_id"),
    sa.Index("ix_reflections_stage", "stage", "created_at"),
)

turn_lessons = sa.Table(
    "turn_lessons",
    metadata,
    sa.Column("turn_id", StoredId, primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

"""The tables of the insight report: what was noted of each consultation of a day, and each day's reports."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import StoredId, StoredText, UtcDateTime, id_column, metadata

__all__ = ["insight_notes", "insight_reports"]

insight_notes = sa.Table(
    "insight_notes",
    metadata,
    id_column(),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("consultation_id", StoredId, nullable=False),
    sa.Column("turn_ids", sa.JSON, nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("model", StoredText, nullable=True),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Index("ix_insight_notes_stage", "stage", "created_at"),
)

insight_reports = sa.Table(
    "insight_reports",
    metadata,
    id_column(),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("note_ids", sa.JSON, nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("counts", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("words", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("refused", sa.Integer, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("model", StoredText, nullable=True),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.UniqueConstraint("day", "revision"),
    sa.UniqueConstraint("day", "fingerprint", name="uq_insight_reports_fingerprint"),
    sa.Index("ix_insight_reports_stage", "stage", "created_at"),
)

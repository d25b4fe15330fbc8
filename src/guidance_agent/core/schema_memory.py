"""The tables of what is remembered of customers, and of the windows in which many memories become a few."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import StoredId, StoredText, UtcDateTime, id_column, metadata, vector_columns

__all__ = ["memories", "memory_windows"]

memories = sa.Table(
    "memories",
    metadata,
    id_column(),
    sa.Column("customer_id", sa.String(200), nullable=False),
    sa.Column("consultation_id", StoredId, nullable=True),
    sa.Column("turn_id", StoredId, nullable=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("text", StoredText, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_retrieved_at", UtcDateTime, nullable=True),
    sa.Column("importance", sa.Float, nullable=True),
    sa.Column("importance_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("simulated", sa.Boolean, nullable=False),
    *vector_columns(),
    sa.Column("consolidation_id", StoredId, nullable=True),
    sa.Column("consolidated_at", UtcDateTime, nullable=True),
    sa.Column("evidence", sa.JSON(none_as_null=True), nullable=True),
    sa.UniqueConstraint("turn_id", "kind"),
    sa.Index("ix_memories_customer", "customer_id", "created_at"),
    sa.Index("ix_memories_importance", "importance", "importance_attempts"),
    sa.Index("ix_memories_consolidation", "consolidation_id"),
)

memory_windows = sa.Table(
    "memory_windows",
    metadata,
    id_column(),
    sa.Column("customer_id", sa.String(200), nullable=False),
    sa.Column("memory_ids", sa.JSON, nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("kept", sa.Integer, nullable=False, default=0),
    sa.Column("refused", sa.Integer, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("model", StoredText, nullable=True),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Index("ix_memory_windows_stage", "stage", "created_at"),
    sa.Index("ix_memory_windows_customer", "customer_id"),
)

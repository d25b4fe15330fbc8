"""Keep what many memories became, and the reports on each day's consultations"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("memories", schema=None) as batch_op:
        batch_op.alter_column("consultation_id", existing_type=sa.String(length=64), nullable=True)
        batch_op.alter_column("turn_id", existing_type=sa.String(length=64), nullable=True)
        batch_op.add_column(sa.Column("consolidation_id", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("consolidated_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("evidence", sa.JSON(), nullable=True))
        batch_op.create_index("ix_memories_consolidation", ["consolidation_id"], unique=False)

    op.create_table(
        "memory_windows",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=200), nullable=False),
        sa.Column("memory_ids", sa.JSON(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("kept", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memory_windows")),
    )
    with op.batch_alter_table("memory_windows", schema=None) as batch_op:
        batch_op.create_index("ix_memory_windows_stage", ["stage", "created_at"], unique=False)
        batch_op.create_index("ix_memory_windows_customer", ["customer_id"], unique=False)

    op.create_table(
        "insight_notes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("consultation_id", sa.String(length=64), nullable=False),
        sa.Column("turn_ids", sa.JSON(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_insight_notes")),
    )
    with op.batch_alter_table("insight_notes", schema=None) as batch_op:
        batch_op.create_index("ix_insight_notes_stage", ["stage", "created_at"], unique=False)

    op.create_table(
        "insight_reports",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("note_ids", sa.JSON(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.Column("words", sa.JSON(), nullable=True),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_insight_reports")),
        sa.UniqueConstraint("day", "revision", name=op.f("uq_insight_reports_day")),
        sa.UniqueConstraint("day", "fingerprint", name="uq_insight_reports_fingerprint"),
    )
    with op.batch_alter_table("insight_reports", schema=None) as batch_op:
        batch_op.create_index("ix_insight_reports_stage", ["stage", "created_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("insight_reports", schema=None) as batch_op:
        batch_op.drop_index("ix_insight_reports_stage")
    op.drop_table("insight_reports")
    with op.batch_alter_table("insight_notes", schema=None) as batch_op:
        batch_op.drop_index("ix_insight_notes_stage")
    op.drop_table("insight_notes")
    with op.batch_alter_table("memory_windows", schema=None) as batch_op:
        batch_op.drop_index("ix_memory_windows_customer")
        batch_op.drop_index("ix_memory_windows_stage")
    op.drop_table("memory_windows")
    # What came of several turns has no place in the older schema; the originals are still there.
    op.execute("DELETE FROM memories WHERE turn_id IS NULL OR consultation_id IS NULL")
    with op.batch_alter_table("memories", schema=None) as batch_op:
        batch_op.drop_index("ix_memories_consolidation")
        batch_op.drop_column("evidence")
        batch_op.drop_column("consolidated_at")
        batch_op.drop_column("consolidation_id")
        batch_op.alter_column("turn_id", existing_type=sa.String(length=64), nullable=False)
        batch_op.alter_column("consultation_id", existing_type=sa.String(length=64), nullable=False)

"""Keep which delivered turns were audited, and what became of each"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("policy_version", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_runs")),
    )
    with op.batch_alter_table("audit_runs", schema=None) as batch_op:
        batch_op.create_index("ix_audit_runs_created", ["created_at"], unique=False)
    op.create_table(
        "audit_turns",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("turn_id", sa.String(length=64), nullable=False),
        sa.Column("policy_version", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("examined", sa.JSON(), nullable=True),
        sa.Column("verdict_id", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["audit_runs.id"], name=op.f("fk_audit_turns_run_id_audit_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_turns")),
        sa.UniqueConstraint("turn_id", "policy_version", name=op.f("uq_audit_turns_turn_id")),
    )
    with op.batch_alter_table("audit_turns", schema=None) as batch_op:
        batch_op.create_index("ix_audit_turns_run", ["run_id", "state"], unique=False)
        batch_op.create_index("ix_audit_turns_state", ["state", "turn_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("audit_turns", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_turns_state")
        batch_op.drop_index("ix_audit_turns_run")
    op.drop_table("audit_turns")
    with op.batch_alter_table("audit_runs", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_runs_created")
    op.drop_table("audit_runs")

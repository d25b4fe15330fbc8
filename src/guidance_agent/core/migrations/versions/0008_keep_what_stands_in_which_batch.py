"""Keep which subject stands in which job of batches"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch_claims",
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=64), nullable=False),
        sa.Column("job_key", sa.String(length=64), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject_id", name=op.f("pk_batch_claims")),
    )
    with op.batch_alter_table("batch_claims", schema=None) as batch_op:
        batch_op.create_index("ix_batch_claims_job_key", ["job_key"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("batch_claims", schema=None) as batch_op:
        batch_op.drop_index("ix_batch_claims_job_key")
    op.drop_table("batch_claims")

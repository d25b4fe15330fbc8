"""Keep annotations of spans until they are delivered"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("turns", sa.Column("answer_span_id", sa.String(length=16), nullable=True))
    op.create_table(
        "span_annotations",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("turn_id", sa.String(length=64), nullable=False),
        sa.Column("verdict_id", sa.String(length=64), nullable=True),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("span_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("annotator_kind", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=32), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("identifier", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt", sa.Float(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name=op.f("fk_span_annotations_turn_id_turns")),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdicts.id"], name=op.f("fk_span_annotations_verdict_id_verdicts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_span_annotations")),
        sa.UniqueConstraint("turn_id", "name", "identifier", name=op.f("uq_span_annotations_turn_id")),
    )
    with op.batch_alter_table("span_annotations", schema=None) as batch_op:
        batch_op.create_index("ix_span_annotations_unsent", ["sent_at", "next_attempt"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("span_annotations", schema=None) as batch_op:
        batch_op.drop_index("ix_span_annotations_unsent")

    op.drop_table("span_annotations")
    op.drop_column("turns", "answer_span_id")

"""Keep texts that were judged and not shown"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("verdicts", sa.Column("text", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("verdicts", "text")

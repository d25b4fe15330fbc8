"""The table of rate limits that processes share: what was taken from each model's limits."""

from __future__ import annotations

import sqlalchemy as sa

from guidance_agent.core.columns import metadata

__all__ = ["rate_limits"]

rate_limits = sa.Table(
    "rate_limits",
    metadata,
    sa.Column("scope", sa.String(300), primary_key=True),
    sa.Column("state", sa.JSON, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
)

"""Alembic migrations of the records, run through a connection that the caller owns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["alembic_config", "upgrade"]

_POSTGRES_LOCK = 7_016_385_208
"""Key of the advisory lock that lets one process migrate at a time; any constant number does."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Return the configuration that `alembic` commands need; `connection` is used by `env.py` when given."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def upgrade(engine: AsyncEngine, *, is_sqlite: bool, revision: str = "head") -> None:
    """Upgrade in one transaction that holds the database's write lock."""
    async with engine.connect() as connection:
        if is_sqlite:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
        await connection.run_sync(_upgrade, revision)
        await connection.commit()


def _upgrade(connection: Connection, revision: str) -> Any:
    command.upgrade(alembic_config(connection), revision)

"""Alembic migrations of the records, run through a connection that the caller owns."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["MIGRATION_LOCK", "alembic_config", "downgrade", "upgrade"]

MIGRATION_LOCK = 7_016_385_208
"""Key of the advisory lock that lets one process migrate at a time; any constant number does."""

# Keeps two databases of this process from being migrated at the same time: Alembic keeps its state in globals.
_alembic = threading.Lock()


def alembic_config(connection: Connection | None = None) -> Config:
    """Return the configuration that `alembic` commands need; `connection` is used by `env.py` when given."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade within the caller's transaction; other processes that try the same wait for its end."""
    _lock(connection)
    with _alembic:
        command.upgrade(alembic_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Downgrade within the caller's transaction; `base` removes every table, with all that is in them."""
    _lock(connection)
    with _alembic:
        command.downgrade(alembic_config(connection), revision)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")

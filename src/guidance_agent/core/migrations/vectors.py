"""Which type the columns of vectors get."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.embedding_column import PgVector

__all__ = ["vector_type"]

_logger = logging.getLogger("guidance_agent.migrations")


def vector_type(connection: sa.Connection) -> sa.types.TypeEngine[Any]:
    """Return pgvector's type where the server has it and the role may use it, else that of plain bytes."""
    if connection.dialect.name == "postgresql" and _has_pgvector(connection):
        return PgVector()
    return sa.LargeBinary()


def _has_pgvector(connection: sa.Connection) -> bool:
    if _type_is_found(connection):
        return True
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"
    if not connection.exec_driver_sql(available).scalar_one():
        return False
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise
        _logger.warning("vectors are kept as bytes: the extension vector cannot be created: %s", error.orig)
        return False
    return _type_is_found(connection)


def _type_is_found(connection: sa.Connection) -> bool:
    return connection.exec_driver_sql("SELECT to_regtype('vector')").scalar_one() is not None

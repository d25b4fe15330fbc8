"""Making the database itself fail under open connections: a full disk, an error of any kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.database import Database
from guidance_agent.core.schema import metadata

__all__ = ["every_connection", "full_disk"]

_DISK_FULL = """
CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file: the disk is full';
END $$
"""


@contextlib.contextmanager
def every_connection(database: Database, meets: Callable[[Any], None]) -> Iterator[None]:
    """Call `meets` with each raw connection that is taken while the block runs."""

    def on_checkout(connection: Any, *_: object) -> None:
        meets(connection)

    sa.event.listen(database.engine, "checkout", on_checkout)
    try:
        yield
    finally:
        sa.event.remove(database.engine, "checkout", on_checkout)


@contextlib.contextmanager
def full_disk(database: Database) -> Iterator[None]:
    """Have what needs a page refused as on a full disk: by SQLite's own limit, by triggers with PostgreSQL's error."""
    with _no_page(database) if database.is_sqlite else _no_row(database):
        yield


@contextlib.contextmanager
def _no_page(database: Database) -> Iterator[None]:
    def limit(connection: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    def lift(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1073741823")

    with every_connection(database, limit):
        yield
    # Pooled connections keep their limit until somebody lifts it.
    sa.event.listen(database.engine, "checkout", lift)


@contextlib.contextmanager
def _no_row(database: Database) -> Iterator[None]:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(_DISK_FULL)
        for table in metadata.sorted_tables:
            connection.exec_driver_sql(
                f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table.name} "
                "FOR EACH STATEMENT EXECUTE FUNCTION disk_is_full()"
            )
    yield
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION disk_is_full CASCADE")

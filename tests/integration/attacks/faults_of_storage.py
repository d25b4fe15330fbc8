"""Making SQLite itself fail under an open runtime, for connections that are taken from now on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime


@contextlib.contextmanager
def every_connection(runtime: Runtime, meets: Callable[[Any], None]) -> Iterator[None]:
    """Call `meets` with each raw connection that is taken while the block runs."""

    def on_checkout(connection: Any, *_: object) -> None:
        meets(connection)

    sa.event.listen(runtime.database.engine, "checkout", on_checkout)
    try:
        yield
    finally:
        sa.event.remove(runtime.database.engine, "checkout", on_checkout)


@contextlib.contextmanager
def full_disk(runtime: Runtime) -> Iterator[None]:
    """Have no page free: what needs one is refused by SQLite as on a full disk."""

    def limit(connection: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    def lift(connection: Any) -> None:
        connection.execute("PRAGMA max_page_count=1073741823")

    with every_connection(runtime, limit):
        yield
    # Pooled connections keep their limit until somebody lifts it.
    sa.event.listen(runtime.database.engine, "checkout", lambda connection, *_: lift(connection))

"""The databases that tests run on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import sqlalchemy as sa

from guidance_agent import Settings
from guidance_agent.core.database import Database, database_url
from tests.postgres_server import OutsideServer

__all__ = ["Storage", "migrated_database"]


class Storage(NamedTuple):
    """Where a test's records are. `url` is None for SQLite, whose file is in the data folder."""

    name: str
    url: str | None

    @property
    def is_sqlite(self) -> bool:
        return self.url is None


@contextlib.contextmanager
def migrated_database(server: OutsideServer) -> Iterator[str]:
    """Have a database with the schema and without rows, to which nobody is connected; yields its name."""
    with server.database() as url:

        async def migrate() -> None:
            async with Database(database_url(Settings(database_url=url))):
                pass

        # In a thread of its own, because the loop of a test may be set up already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(migrate())).result()
        yield str(sa.make_url(url).database)

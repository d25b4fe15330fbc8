"""The records as a command that only reads them needs them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guidance_agent.core.database import Database
    from guidance_agent.settings import Settings

__all__ = ["place_of_records", "records_to_read"]


@contextlib.asynccontextmanager
async def records_to_read(settings: Settings) -> AsyncIterator[Database | None]:
    """Open the records; None where there are none yet, because looking must not make them.

    Raises:
        ConfigurationError: when the database cannot serve.
        StorageError: when it cannot be read.
    """
    from guidance_agent.core.database import Database, database_url

    url = database_url(settings)
    database = Database(url, auto_migrate=settings.auto_migrate)
    if database.is_sqlite and not await asyncio.to_thread(Path(url.database or "").exists):
        yield None
        return
    async with database:
        yield database


def place_of_records(settings: Settings) -> str:
    """Return where the records are, for a person, without a password."""
    from guidance_agent.core.database import Database, database_url

    url = database_url(settings)
    return str(url.database) if Database(url).is_sqlite else url.render_as_string(hide_password=True)

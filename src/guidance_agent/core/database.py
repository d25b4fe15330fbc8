"""The database: engine, connections and the schema version.

SQLite runs in WAL mode with `synchronous=FULL`, so that what was committed survives the process and the machine. The
schema version is read with one query; Alembic is imported only when a migration is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from guidance_agent.errors import ConfigurationError, DatabaseUnavailableError, SchemaVersionError

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = ["SCHEMA_REVISION", "Database", "database_url"]

SCHEMA_REVISION = "0001"
"""The newest migration; a test holds it equal to Alembic's head."""

KNOWN_REVISIONS = ("0001",)

_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=30000",
    "PRAGMA foreign_keys=ON",
)


def database_url(settings: Settings) -> sa.URL:
    """Return the async SQLAlchemy URL of the records; raise `ConfigurationError` when it is not one."""
    if settings.database_url is None:
        return sa.URL.create("sqlite+aiosqlite", database=str(settings.data_dir / "guidance.db"))
    try:
        url = sa.make_url(settings.database_url)
    except sa.exc.ArgumentError as error:
        raise ConfigurationError(
            f"database_url {settings.database_url!r} is not a database URL. Use sqlite:///FILE or postgresql://…"
        ) from error
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
    backend = url.get_backend_name()
    if backend not in drivers:
        raise ConfigurationError(f"database_url uses {backend!r}. Supported are sqlite and postgresql.")
    return url.set(drivername=drivers[backend])


class Database:
    """The records' database; an async context manager that owns the engine.

    Entering checks that the database can be opened and has this program's schema, and migrates an older one when
    `auto_migrate` is set.

    Raises:
        DatabaseUnavailableError: on entering, when the file or server cannot be opened or written.
        SchemaVersionError: on entering, when the schema is newer, or older and `auto_migrate` is off.
    """

    def __init__(self, url: sa.URL, *, auto_migrate: bool = True) -> None:
        self.url = url
        self.auto_migrate = auto_migrate
        self._engine: AsyncEngine | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def engine(self) -> AsyncEngine:
        if self._engine is None:
            raise DatabaseUnavailableError("The database is not open. Use it inside `async with`.")
        return self._engine

    async def __aenter__(self) -> Database:
        self._engine = self._create_engine()
        try:
            await self._check_schema()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading."""
        with self._typed_errors():
            async with self.engine.connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that takes SQLite's write lock at its start and commits at its end."""
        with self._typed_errors():
            async with self.engine.connect() as connection:
                if self.is_sqlite:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()

    async def revision(self) -> str | None:
        """Return the schema's revision, or None for an empty database."""
        async with self.engine.connect() as connection:
            if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
                return None
            row = await connection.execute(sa.text("SELECT version_num FROM alembic_version"))
            revision: str | None = row.scalar_one_or_none()
            return revision

    async def migrate(self) -> None:
        """Bring the schema to `SCHEMA_REVISION`; other processes that try the same wait."""
        from guidance_agent.core.migrations import upgrade

        with self._typed_errors():
            await upgrade(self.engine, is_sqlite=self.is_sqlite)

    async def _check_schema(self) -> None:
        with self._typed_errors():
            revision = await self.revision()
        if revision == SCHEMA_REVISION:
            return
        if revision is not None and revision not in KNOWN_REVISIONS:
            raise SchemaVersionError(
                f"The database {self._name} has schema {revision!r}, which this version does not know (it has "
                f"{SCHEMA_REVISION!r}). Use the version of guidance-agent that made it, or a newer one."
            )
        if not self.auto_migrate:
            raise SchemaVersionError(
                f"The database {self._name} has schema {revision!r}, this version needs {SCHEMA_REVISION!r}. "
                "Run `guidance-agent doctor --migrate`."
            )
        await self.migrate()

    @property
    def _name(self) -> str:
        return repr(self.url.database if self.is_sqlite else self.url.render_as_string(hide_password=True))

    def _create_engine(self) -> AsyncEngine:
        if not self.is_sqlite:
            return create_async_engine(self.url, pool_pre_ping=True)
        if self.url.database and self.url.database != ":memory:":
            self._make_folder(Path(self.url.database).parent)
        engine = create_async_engine(self.url, connect_args={"timeout": 30.0})
        sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnavailableError(
                f"The data folder {str(folder)!r} cannot be made: {error.strerror}. Set GUIDANCE_DATA_DIR to a folder "
                "that can be written."
            ) from error

    @contextlib.contextmanager
    def _typed_errors(self) -> Any:
        try:
            yield
        except (OperationalError, sqlite3.OperationalError, OSError) as error:
            raise DatabaseUnavailableError(
                f"The database {self._name} cannot be used: {_reason(error)}. Check that it exists, can be written "
                "and has space; GUIDANCE_DATA_DIR or GUIDANCE_DATABASE_URL choose another."
            ) from error
        except asyncio.CancelledError:
            raise
        except SQLAlchemyError as error:
            raise DatabaseUnavailableError(f"The database {self._name} failed: {_reason(error)}.") from error


def _reason(error: BaseException) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(origin).splitlines()[0]


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()

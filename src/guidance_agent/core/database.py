"""The database: engine, threads and the schema version.

Statements run on ordinary connections in a few threads of the database's own, a whole unit of work per hop, where
SQLAlchemy's asyncio layer hops for every cursor, fetch and commit. One thread writes, so that SQLite's single writer is
never contended within the process.

SQLite runs in WAL mode with `synchronous=FULL`, so that what was committed survives the process and the machine. The
schema version is read with one query; Alembic is imported only when a migration is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from guidance_agent.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    MissingExtraError,
    SchemaVersionError,
)

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = ["SCHEMA_REVISION", "Database", "database_url", "first_line"]

T = TypeVar("T")

SCHEMA_REVISION = "0001"
"""The newest migration; a test holds it equal to Alembic's head."""

KNOWN_REVISIONS = ("0001",)

_READERS = 4

_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=30000",
    "PRAGMA foreign_keys=ON",
)


def database_url(settings: Settings) -> sa.URL:
    """Return the SQLAlchemy URL of the records; raise `ConfigurationError` when it is not one that can serve."""
    url = _url(settings)
    if "\0" in (url.database or ""):
        raise ConfigurationError("The path of the database holds a NUL character. Set data_dir or database_url anew.")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "A database in memory would be gone with the process, and with it the record. Use sqlite:///FILE."
        )
    if url.get_backend_name() == "postgresql" and importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("PostgreSQL needs psycopg. Install it with: pip install 'guidance-agent[postgres]'")
    return url


def _url(settings: Settings) -> sa.URL:
    if settings.database_url is None:
        return sa.URL.create("sqlite", database=str(settings.data_dir / "guidance.db"))
    try:
        url = sa.make_url(settings.database_url)
    except sa.exc.ArgumentError as error:
        raise ConfigurationError(
            "database_url is not a database URL. Use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."
        ) from error
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    backend = url.get_backend_name()
    if backend not in drivers:
        raise ConfigurationError(f"database_url uses {backend!r}. Supported are sqlite and postgresql.")
    return url.set(drivername=drivers[backend])


class Database:
    """The records' database; an async context manager that owns the engine and its threads.

    Entering checks that the database can be opened and has this program's schema, and migrates an older one when
    `auto_migrate` is set.

    Raises:
        DatabaseUnavailableError: on entering, when the file or server cannot be opened or written.
        SchemaVersionError: on entering, when the schema is newer, or older and `auto_migrate` is off.
    """

    def __init__(self, url: sa.URL, *, auto_migrate: bool = True) -> None:
        self.url = url
        self.auto_migrate = auto_migrate
        self._engine: sa.Engine | None = None
        self._file: tuple[int, int] | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="database-write")
        self._reads: list[tuple[Callable[[sa.Connection], Any], asyncio.Future[Any]]] = []
        self._reading = 0

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def engine(self) -> sa.Engine:
        if self._engine is None:
            raise DatabaseUnavailableError("The database is not open. Use it inside `async with`.")
        return self._engine

    async def __aenter__(self) -> Database:
        self._engine = self._create_engine()
        self._file = None
        try:
            await self._check_schema()
            self._file = _identity(self.url) if self.is_sqlite else None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.get_running_loop().run_in_executor(self._writer, engine.dispose)
            await asyncio.to_thread(self._readers.shutdown)
            await asyncio.to_thread(self._writer.shutdown)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` with a connection for reading, in a thread.

        Works that wait at the same time share a hop and a connection, so `work` should be short.
        """
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._reads.append((work, waiting))
        if self._reading < _READERS // 2:
            self._read_next()
        with self._typed_errors():
            return await waiting

    async def transaction(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one transaction that holds the write lock from its start, in one hop to the writing thread.

        A cancelled caller leaves the transaction to end by itself.
        """
        with self._typed_errors():
            return await self.submit(work)

    def submit(self, work: Callable[[sa.Connection], T]) -> asyncio.Future[T]:
        """Begin what `transaction` does; errors are the driver's own."""
        return asyncio.get_running_loop().run_in_executor(self._writer, self._writing, work)

    def _read_next(self) -> None:
        """Send all reads that wait to a thread, and the next ones after them."""
        reads, self._reads = self._reads, []
        if not reads:
            return
        self._reading += 1
        hop = asyncio.get_running_loop().run_in_executor(self._readers, self._read_all, [work for work, _ in reads])
        hop.add_done_callback(functools.partial(self._read_done, [waiting for _, waiting in reads]))

    def _read_done(
        self, waiting: Sequence[asyncio.Future[Any]], hop: asyncio.Future[list[tuple[Any, Exception | None]]]
    ) -> None:
        self._reading -= 1
        failure = hop.exception()
        results = hop.result() if failure is None else [(None, failure)] * len(waiting)
        for future, (result, error) in zip(waiting, results, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._read_next()

    def _read_all(self, works: Sequence[Callable[[sa.Connection], Any]]) -> list[tuple[Any, Exception | None]]:
        results: list[tuple[Any, Exception | None]] = []
        with self.engine.connect() as connection:
            for work in works:
                try:
                    results.append((work(connection), None))
                except Exception as error:
                    connection.rollback()
                    results.append((None, error))
        return results

    def _writing(self, work: Callable[[sa.Connection], T]) -> T:
        connection = self._begin()
        try:
            result = work(connection)
            self._check_file()
            connection.commit()
        finally:
            connection.close()
        return result

    def _check_file(self) -> None:
        """Refuse to write into a file that has been deleted or replaced under the program: nobody would find it."""
        if self._file is not None and _identity(self.url) != self._file:
            raise FileNotFoundError(f"the file {self.url.database!r} was deleted or replaced while it was in use")

    def _begin(self) -> sa.Connection:
        connection = self.engine.connect()
        if self.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        return connection

    async def revision(self) -> str | None:
        """Return the schema's revision, or None for an empty database."""
        return await self.run(_revision)

    async def migrate(self) -> None:
        """Bring the schema to `SCHEMA_REVISION`; other processes that try the same wait."""
        from guidance_agent.core.migrations import upgrade

        await self.transaction(upgrade)

    async def _check_schema(self) -> None:
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

    def _create_engine(self) -> sa.Engine:
        if not self.is_sqlite:
            return sa.create_engine(self.url, pool_pre_ping=True)
        self._make_folder(Path(self.url.database or "").parent)
        self._make_private_file(Path(self.url.database or ""))
        engine = sa.create_engine(
            self.url, connect_args={"timeout": 30.0, "check_same_thread": False}, poolclass=sa.QueuePool
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        return engine

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnavailableError(
                f"The data folder {str(folder)!r} cannot be made: {error.strerror}. Set GUIDANCE_DATA_DIR to a folder "
                "that can be written."
            ) from error

    def _make_private_file(self, path: Path) -> None:
        """Make the file before SQLite does, readable by its user alone: it holds what customers say."""
        with self._typed_errors(), contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise DatabaseUnavailableError(
                f"The database {self._name} cannot be used: {first_line(error)}. Check that it exists, can be written "
                "and has space; GUIDANCE_DATA_DIR or GUIDANCE_DATABASE_URL choose another."
            ) from error


def _identity(url: sa.URL) -> tuple[int, int] | None:
    try:
        status = os.stat(url.database or "")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line; its class where it says nothing."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return next(iter(str(origin).splitlines()), "") or type(origin).__name__


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()

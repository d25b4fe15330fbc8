"""The database: engine, threads and the schema version.

Statements run on ordinary connections in a few threads of the database's own, a whole unit of work per hop. Measured
against SQLAlchemy's asyncio layer, which hops for every cursor, fetch and commit, a journal commit costs the event loop
about a tenth. One thread writes, so that SQLite's single writer is never contended within the process.

SQLite runs in WAL mode with `synchronous=FULL`, so that what was committed survives the process and the machine. The
schema version is read with one query; Alembic is imported only when a migration is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from guidance_agent.errors import ConfigurationError, DatabaseUnavailableError, SchemaVersionError

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = ["SCHEMA_REVISION", "Database", "Session", "database_url"]

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
    """Return the SQLAlchemy URL of the records; raise `ConfigurationError` when it is not one."""
    if settings.database_url is None:
        return sa.URL.create("sqlite", database=str(settings.data_dir / "guidance.db"))
    try:
        url = sa.make_url(settings.database_url)
    except sa.exc.ArgumentError as error:
        raise ConfigurationError(
            f"database_url {settings.database_url!r} is not a database URL. Use sqlite:///FILE or postgresql://…"
        ) from error
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    backend = url.get_backend_name()
    if backend not in drivers:
        raise ConfigurationError(f"database_url uses {backend!r}. Supported are sqlite and postgresql.")
    return url.set(drivername=drivers[backend])


class Session:
    """A connection whose statements are awaited one by one, each run in one of the database's threads."""

    def __init__(self, connection: sa.Connection, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._connection = connection
        self._in_thread = in_thread

    async def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Run a statement and return its result, with all rows read."""
        run = functools.partial(_execute_buffered, self._connection, statement, parameters)
        return cast("sa.CursorResult[Any]", await self._in_thread(run))


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
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="database-write")
        self._reads: list[tuple[Callable[[sa.Connection], Any], asyncio.Future[Any]]] = []
        self._reading = 0
        # Protects the threads from sessions that wait for a connection while its holder waits for a thread.
        self._sessions = asyncio.Semaphore(_READERS)

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
        try:
            await self._check_schema()
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

    def read(self) -> contextlib.AbstractAsyncContextManager[Session]:
        """A connection for reading, for work that awaits between its statements."""
        return self._session(lambda: self.engine.connect(), writes=False)

    def write(self) -> contextlib.AbstractAsyncContextManager[Session]:
        """A transaction that takes SQLite's write lock at its start and commits at its end."""
        return self._session(self._begin, writes=True)

    @contextlib.asynccontextmanager
    async def _session(self, open_connection: Callable[[], sa.Connection], *, writes: bool) -> AsyncIterator[Session]:
        async with self._sessions:
            connection = await self._in_reader(open_connection)
            try:
                yield Session(connection, self._in_reader)
                if writes:
                    await self._in_reader(connection.commit)
            finally:
                await self._in_reader(connection.close)

    async def _in_reader(self, work: Callable[[], T]) -> T:
        with self._typed_errors():
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)

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
            connection.commit()
        finally:
            connection.close()
        return result

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
        if self.url.database and self.url.database != ":memory:":
            self._make_folder(Path(self.url.database).parent)
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

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise DatabaseUnavailableError(
                f"The database {self._name} cannot be used: {_reason(error)}. Check that it exists, can be written "
                "and has space; GUIDANCE_DATA_DIR or GUIDANCE_DATABASE_URL choose another."
            ) from error


def _execute_buffered(connection: sa.Connection, statement: sa.Executable, parameters: Any) -> sa.CursorResult[Any]:
    result = connection.execute(statement, parameters)
    # Rows are read here, in the thread that ran the statement.
    return cast("sa.CursorResult[Any]", result.freeze()()) if result.returns_rows else result


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def _reason(error: BaseException) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(origin).splitlines()[0]


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()

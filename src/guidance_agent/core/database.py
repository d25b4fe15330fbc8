"""The database: engine, threads and the schema version.

Statements run on ordinary connections in a few threads of the database's own, a whole unit of work per hop, where
SQLAlchemy's asyncio layer hops for every cursor, fetch and commit. On SQLite one thread writes, so that its single
writer is never contended within the process; the journal is next whenever a transaction ends. On PostgreSQL the journal
has a thread and a connection of its own beside it, so that nobody's text waits for other work.

SQLite runs in WAL mode with `synchronous=FULL`, PostgreSQL with `synchronous_commit` on, so that what was committed
survives the process and the machine. The schema version is read with one query; Alembic is imported only when a
migration is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from guidance_agent.core.backend import Backend
from guidance_agent.core.database_url import database_url
from guidance_agent.core.embedding_column import has_vector_type
from guidance_agent.core.postgres import PostgresServer
from guidance_agent.core.sqlite import SqliteFile
from guidance_agent.core.writing_thread import SharedWork, WritingThread
from guidance_agent.errors import DatabaseUnavailableError, SchemaVersionError

__all__ = ["SCHEMA_REVISION", "Database", "SharedWork", "database_url", "first_line"]

T = TypeVar("T")
Result = tuple[Any, Exception | None]

SCHEMA_REVISION = "0014"
"""The newest migration; a test holds it equal to Alembic's head."""

KNOWN_REVISIONS = tuple(f"{number:04}" for number in range(1, int(SCHEMA_REVISION) + 1))

_READERS = 4
_READ_BESIDE_SECONDS = 0.02
"""After so long, reads that wait for a thread that reads are sent to another one."""


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
        self._backend = _backend(url)
        self._engine: sa.Engine | None = None
        self._reading_engine: sa.Engine | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-read")
        self._writer = WritingThread("database-write", self._writing)
        self._journal = self._writer
        if self._backend.journal_writes_apart:
            self._journal = WritingThread("database-journal", self._writing)
        self._reads: list[tuple[Callable[[sa.Connection], Any], asyncio.Future[Any]]] = []
        self._reading = 0
        self._overdue: asyncio.TimerHandle | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def compares_vectors(self) -> bool:
        """Whether the database itself can compare vectors, with `core.embedding_column.similarity`."""
        return has_vector_type(self.engine.dialect)

    @property
    def engine(self) -> sa.Engine:
        if self._engine is None:
            raise DatabaseUnavailableError("The database is not open. Use it inside `async with`.")
        return self._engine

    async def __aenter__(self) -> Database:
        try:
            with self._typed_errors():
                # Importing a driver and making a file take too long for the event loop.
                self._engine = await asyncio.to_thread(self._backend.create_engine)
            self._reading_engine = self._backend.for_reading(self._engine)
            await self._check_schema()
            await self.run(self._backend.opened)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        engine, self._engine, self._reading_engine = self._engine, None, None
        if engine is not None:
            # What still runs gives its connection back first.
            for threads in (self._readers, self._writer, self._journal):
                await asyncio.to_thread(threads.shutdown)
            await asyncio.to_thread(engine.dispose)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` with a connection for reading, in a thread.

        Works that wait at the same time share a hop and a connection: threads that read beside each other mostly wait
        for each other. Only works that have waited for a while get a thread beside the one that reads.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        self._reads.append((work, waiting))
        if not self._reading:
            self._read_next()
        elif self._overdue is None:
            self._overdue = loop.call_later(_READ_BESIDE_SECONDS, self._read_beside)
        with self._typed_errors():
            return await waiting

    async def transaction(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one transaction, in one hop to the writing thread.

        On SQLite it holds the write lock from its start; on PostgreSQL it is `READ COMMITTED`. A cancelled caller
        leaves the transaction to end by itself. `work` is called a second time when its connection had gone stale or
        another transaction was in the way: nothing of the first call is left then. `SharedWork` shares its transaction
        with others of its kind that wait at the same time; where one of them fails, each is tried by itself.
        """
        with self._typed_errors():
            return await asyncio.wrap_future(self._writer.submit(work))

    def submit(self, work: Callable[[sa.Connection], T]) -> asyncio.Future[T]:
        """Begin what `transaction` does, for the journal: before all that waits there. Errors are the driver's own."""
        return asyncio.wrap_future(self._journal.submit(work, urgent=True))

    def _read_beside(self) -> None:
        self._overdue = None
        if self._reading < _READERS:
            self._read_next()

    def _read_next(self) -> None:
        """Send all reads that wait to a thread, and the next ones after them."""
        reads = [(work, waiting) for work, waiting in self._reads if not waiting.done()]
        self._reads = []
        if not reads:
            return
        if self._engine is None:
            for _, waiting in reads:
                waiting.set_exception(DatabaseUnavailableError("The database was closed while it was read."))
            return
        self._reading += 1
        hop = asyncio.get_running_loop().run_in_executor(self._readers, self._read_all, [work for work, _ in reads])
        hop.add_done_callback(functools.partial(self._read_done, [waiting for _, waiting in reads]))

    def _read_done(self, waiting: Sequence[asyncio.Future[Any]], hop: asyncio.Future[list[Result]]) -> None:
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

    def _read_all(self, works: Sequence[Callable[[sa.Connection], Any]]) -> list[Result]:
        with (self._reading_engine or self.engine).connect() as connection:
            answered = self._read_together(connection, works)
            return [
                answered[place] if place in answered else self._read(connection, work)
                for place, work in enumerate(works)
            ]

    def _read_together(
        self, connection: sa.Connection, works: Sequence[Callable[[sa.Connection], Any]]
    ) -> dict[int, Result]:
        """Return the answers, by place, of reads that have others of their kind beside them.

        Where a kind cannot be answered together, each of its reads is left to succeed or fail by itself.
        """
        kinds: dict[Callable[..., Any], dict[int, Any]] = {}
        for place, work in enumerate(works):
            if isinstance(work, SharedWork):
                kinds.setdefault(work.together, {})[place] = work.asked
        answered: dict[int, Result] = {}
        for together, asked in kinds.items():
            if len(asked) < 2:
                continue
            answers, error = self._read(connection, functools.partial(together, asked=list(asked.values())))
            if error is None:
                answered.update(zip(asked, [(answer, None) for answer in answers], strict=True))
        return answered

    def _read(self, connection: sa.Connection, work: Callable[[sa.Connection], Any], *, again: bool = True) -> Result:
        try:
            return work(connection), None
        except Exception as error:
            # A broken connection is replaced by this.
            connection.rollback()
            if again and self._backend.is_passing(error):
                return self._read(connection, work, again=False)
            return None, error

    def _writing(self, work: Callable[[sa.Connection], T]) -> T:
        connection = self.engine.connect()
        try:
            result = self._attempt(connection, work)
            self._backend.before_commit()
            connection.commit()
        finally:
            connection.close()
        return result

    def _attempt(self, connection: sa.Connection, work: Callable[[sa.Connection], T], *, again: bool = True) -> T:
        try:
            self._backend.begin(connection)
            return work(connection)
        except DBAPIError as error:
            if not (again and self._backend.is_passing(error)):
                raise
            connection.rollback()
        return self._attempt(connection, work, again=False)

    async def revision(self) -> str | None:
        """Return the schema's revision, or None for an empty database."""
        return await self.run(_revision)

    async def migrate(self) -> None:
        """Bring the schema to `SCHEMA_REVISION`; other processes that try the same wait."""
        from guidance_agent.core.migrations import upgrade

        def work(connection: sa.Connection) -> None:
            self._backend.before_migration(connection)
            upgrade(connection)

        await self.transaction(work)
        # Connections that are made from now on know what the migration brought.
        await asyncio.to_thread(self.engine.dispose)

    async def _check_schema(self) -> None:
        revision = await self.revision()
        if revision == SCHEMA_REVISION:
            return
        if revision is not None and revision not in KNOWN_REVISIONS:
            raise SchemaVersionError(
                f"The database {self._backend.name} has schema {revision!r}, which this version does not know (it has "
                f"{SCHEMA_REVISION!r}). Use the version of guidance-agent that made it, or a newer one."
            )
        if not self.auto_migrate:
            raise SchemaVersionError(
                f"The database {self._backend.name} has schema {revision!r}, this version needs {SCHEMA_REVISION!r}. "
                "Run `guidance-agent doctor --migrate`."
            )
        await self.migrate()

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise DatabaseUnavailableError(
                f"The database {self._backend.name} cannot be used: {first_line(error)}. "
                f"{self._backend.next_step(error)}"
            ) from error


def _backend(url: sa.URL) -> Backend:
    return SqliteFile(url) if url.get_backend_name() == "sqlite" else PostgresServer(url)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line; its class where it says nothing."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return next(iter(str(origin).splitlines()), "") or type(origin).__name__

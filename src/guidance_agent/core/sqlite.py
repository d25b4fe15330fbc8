"""SQLite for the records: one file, in WAL mode, that is its user's alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.stored_json import stored_json
from guidance_agent.errors import DatabaseUnavailableError

__all__ = ["SqliteFile"]

_PATIENCE_SECONDS = 30
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    f"PRAGMA busy_timeout={_PATIENCE_SECONDS * 1000}",
    "PRAGMA foreign_keys=ON",
)


class SqliteFile:
    """The `Backend` of a file."""

    journal_writes_apart = False

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._path = Path(url.database or "")
        self._identity: tuple[int, int] | None = None
        self.name = repr(url.database)

    def create_engine(self) -> sa.Engine:
        self._identity = None
        self._make_folder()
        self._make_private_file()
        arguments = {"timeout": float(_PATIENCE_SECONDS), "check_same_thread": False}
        engine = sa.create_engine(
            self._url, connect_args=arguments, poolclass=sa.QueuePool, json_serializer=stored_json
        )
        sa.event.listen(engine, "connect", _prepare)
        return engine

    def for_reading(self, engine: sa.Engine) -> sa.Engine:
        return engine

    def opened(self, connection: sa.Connection) -> None:
        self._identity = self._identity_now()

    def begin(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def before_commit(self) -> None:
        """Refuse to write into a file that has been deleted or replaced under the program: nobody would find it."""
        if self._identity is not None and self._identity_now() != self._identity:
            raise FileNotFoundError(f"the file {str(self._path)!r} was deleted or replaced while it was in use")

    def before_migration(self, connection: sa.Connection) -> None:
        """Nothing: no statement of SQLite is given up."""

    def is_passing(self, error: BaseException) -> bool:
        return False

    def next_step(self, error: BaseException) -> str:
        return (
            "Check that it exists, can be written and has space; GUIDANCE_DATA_DIR or GUIDANCE_DATABASE_URL choose "
            "another."
        )

    def _make_folder(self) -> None:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnavailableError(
                f"The data folder {str(folder)!r} cannot be made: {error.strerror}. Set GUIDANCE_DATA_DIR to a folder "
                "that can be written."
            ) from error

    def _make_private_file(self) -> None:
        """Make the file before SQLite does, readable by its user alone: it holds what customers say."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()

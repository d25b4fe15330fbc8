"""The database of files and batches: its tables, and how it is opened."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

__all__ = ["open_database"]

_BUSY = 30.0
_LOG = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workspace TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    expires_at REAL,
    ready INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS chunks (
    file INTEGER NOT NULL,
    position INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (file, position)
);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    wire TEXT NOT NULL,
    workspace TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    duration REAL NOT NULL,
    endpoint TEXT NOT NULL DEFAULT '',
    model TEXT,
    input_file INTEGER,
    input_name TEXT NOT NULL DEFAULT '',
    metadata TEXT,
    output_life REAL,
    doomed TEXT,
    ending TEXT,
    starts_at REAL,
    finalizing_at REAL,
    ended_at REAL,
    cancelling_at REAL,
    deleted_at REAL,
    read_to INTEGER NOT NULL DEFAULT 0,
    lines INTEGER NOT NULL DEFAULT 0,
    errors TEXT NOT NULL DEFAULT '[]',
    enqueued INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    output_file INTEGER,
    error_file INTEGER,
    uncached INTEGER NOT NULL DEFAULT 0,
    read INTEGER NOT NULL DEFAULT 0,
    written_5m INTEGER NOT NULL DEFAULT 0,
    written_1h INTEGER NOT NULL DEFAULT 0,
    output INTEGER NOT NULL DEFAULT 0,
    reasoning INTEGER NOT NULL DEFAULT 0,
    usd REAL NOT NULL DEFAULT 0,
    interactive_usd REAL NOT NULL DEFAULT 0,
    unpriced INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS items (
    batch INTEGER NOT NULL,
    line INTEGER NOT NULL,
    wave INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    request TEXT,
    outcome TEXT,
    PRIMARY KEY (batch, line)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS items_by_custom_id ON items (custom_id, batch);
CREATE INDEX IF NOT EXISTS items_in_turn ON items (batch, wave, line DESC) WHERE outcome IS NULL;
CREATE TABLE IF NOT EXISTS prefixes (
    key TEXT PRIMARY KEY,
    ttl REAL NOT NULL,
    expires REAL NOT NULL,
    readable_at REAL NOT NULL,
    born REAL NOT NULL,
    wave TEXT NOT NULL
) WITHOUT ROWID;
"""


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open the database, or a private one that vanishes with its connection; made on first use.

    A file that is no database is put aside: what a simulator keeps can be done again.
    """
    if path is None:
        return _prepared(sqlite3.connect("", isolation_level=None))
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        return _prepared(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise OSError(f"the simulator's batches in {str(path)!r} cannot be opened: {error}") from error
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        _LOG.warning("%s is no database of batches; it is kept as %s and an empty one is used", path, aside.name)
        return _prepared(sqlite3.connect(path, timeout=_BUSY, isolation_level=None))


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY * 1_000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_TABLES)
    return connection

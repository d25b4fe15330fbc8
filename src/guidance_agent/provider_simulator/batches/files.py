"""Files in the database, written and read in pieces."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "StoredFile",
    "append_bytes",
    "delete_file",
    "file_named",
    "file_number",
    "listed_files",
    "new_file",
    "piece_at",
    "publish_file",
    "read_lines",
]

LIFE = 30 * 86_400.0
_FIELDS = "number, id, workspace, purpose, filename, bytes, created_at, expires_at, ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file; one that is not `ready` is still being written and cannot be seen from outside."""

    number: int
    id: str
    workspace: str
    purpose: str
    filename: str
    bytes: int
    created_at: float
    expires_at: float | None
    ready: int


def new_file(
    connection: sqlite3.Connection,
    *,
    workspace: str,
    purpose: str,
    filename: str,
    now: float,
    life: float | None = LIFE,
) -> int:
    """Begin a file; returns its number."""
    cursor = connection.execute(
        "INSERT INTO files (id, workspace, purpose, filename, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        (f"file-{uuid.uuid4().hex[:22]}", workspace, purpose, filename, now, None if life is None else now + life),
    )
    return int(cursor.lastrowid or 0)


def append_bytes(connection: sqlite3.Connection, number: int, data: bytes) -> None:
    """Add to the end of a file."""
    if not data:
        return
    connection.execute(
        "INSERT INTO chunks (file, position, data) SELECT number, bytes, ? FROM files WHERE number = ?", (data, number)
    )
    connection.execute("UPDATE files SET bytes = bytes + ? WHERE number = ?", (len(data), number))


def publish_file(connection: sqlite3.Connection, number: int, *, now: float, life: float | None = LIFE) -> None:
    """Show a finished file; its life begins."""
    connection.execute(
        "UPDATE files SET ready = 1, created_at = ?, expires_at = ? WHERE number = ?",
        (now, None if life is None else now + life, number),
    )


def file_number(connection: sqlite3.Connection, number: int) -> StoredFile | None:
    row = connection.execute(f"SELECT {_FIELDS} FROM files WHERE number = ?", (number,)).fetchone()  # noqa: S608
    return None if row is None else StoredFile(**row)


def file_named(connection: sqlite3.Connection, name: str, *, workspace: str, now: float) -> StoredFile | None:
    """A file that can be seen in a workspace."""
    row = connection.execute(
        f"SELECT {_FIELDS} FROM files WHERE id = ? AND workspace = ? AND ready "  # noqa: S608
        "AND coalesce(expires_at > ?, 1)",
        (name, workspace, now),
    ).fetchone()
    return None if row is None else StoredFile(**row)


def listed_files(
    connection: sqlite3.Connection,
    *,
    workspace: str,
    now: float,
    purpose: str | None,
    after: int | None,
    newest_first: bool,
    limit: int,
    before: float,
) -> list[StoredFile]:
    """Up to `limit` files of a workspace created before a moment, from the one numbered `after` on."""
    direction, comparison = ("DESC", "<") if newest_first else ("ASC", ">")
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM files WHERE workspace = ? AND ready "  # noqa: S608
        "AND coalesce(expires_at > ?, 1) AND created_at <= ? AND coalesce(purpose = ?, 1) "
        f"AND coalesce(number {comparison} ?, 1) ORDER BY number {direction} LIMIT ?",
        (workspace, now, before, purpose, after, limit),
    )
    return [StoredFile(**row) for row in rows]


def delete_file(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("DELETE FROM chunks WHERE file = ?", (number,))
    connection.execute("DELETE FROM files WHERE number = ?", (number,))


def piece_at(connection: sqlite3.Connection, number: int, position: int) -> bytes:
    """The stored piece that holds `position`, from there on; empty at the end of the file."""
    row = connection.execute(
        "SELECT position, data FROM chunks WHERE file = ? AND position <= ? ORDER BY position DESC LIMIT 1",
        (number, position),
    ).fetchone()
    return b"" if row is None else bytes(row["data"][position - row["position"] :])


def read_lines(connection: sqlite3.Connection, number: int, position: int) -> Iterator[tuple[bytes, int]]:
    """The lines from `position` on without their ends, each with the position of the next."""
    pieces: list[bytes] = []
    while piece := piece_at(connection, number, position + sum(map(len, pieces))):
        *complete, rest = piece.split(b"\n")
        for line in complete:
            whole = b"".join((*pieces, line))
            pieces.clear()
            position += len(whole) + 1
            yield whole, position
        if rest:
            pieces.append(rest)
    if pieces:
        whole = b"".join(pieces)
        yield whole, position + len(whole)

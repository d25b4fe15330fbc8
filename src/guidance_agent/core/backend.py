"""What the two databases do differently; everything else about them is the same code."""

from __future__ import annotations

from typing import Protocol

import sqlalchemy as sa

__all__ = ["Backend"]


class Backend(Protocol):
    """One database program. All methods but `next_step` and the properties run in the database's threads.

    Attributes:
        name: How an error message calls this database.
        journal_writes_apart: Whether the journal can write while other transactions do.
    """

    name: str
    journal_writes_apart: bool

    def create_engine(self) -> sa.Engine:
        """Return an engine; raise `ConfigurationError` or `OSError` when there cannot be one."""

    def for_reading(self, engine: sa.Engine) -> sa.Engine:
        """Return the engine, or a view of it, for connections that only read."""

    def opened(self, connection: sa.Connection) -> None:
        """Note what must be known of a database whose schema is the program's."""

    def begin(self, connection: sa.Connection) -> None:
        """Begin a transaction that writes."""

    def before_commit(self) -> None:
        """Raise `OSError` when a commit would write where nobody will find it."""

    def before_migration(self, connection: sa.Connection) -> None:
        """Prepare a transaction that may take long."""

    def is_passing(self, error: BaseException) -> bool:
        """Whether the same work may succeed at once: a stale connection, or another transaction in the way."""

    def next_step(self, error: BaseException) -> str:
        """Return what to do about an error."""

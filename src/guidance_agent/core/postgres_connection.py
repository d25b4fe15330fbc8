"""Connections to PostgreSQL that never wait for ever, and what they need to know of their server.

A statement that takes too long, or waits too long for a lock, is ended by the server; a server that says nothing at
all, because it hangs or the network swallows everything, is given up by the client. So no thread of the program is
lost to it. Time-outs that the server, the role or the URL set themselves are left as they are.

Imported only where the records are on PostgreSQL, and never on the event loop: the driver is an extra, and large.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
import psycopg.conninfo
import sqlalchemy as sa
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.sql import SQL

from guidance_agent.core.embedding_column import VectorBytes
from guidance_agent.errors import ConfigurationError, DatabaseUnavailableError

__all__ = ["LOCK_SECONDS", "SILENCE_SECONDS", "STATEMENT_SECONDS", "PatientConnection", "ServerSilentError", "use_for"]

T = TypeVar("T")

STATEMENT_SECONDS = 30
LOCK_SECONDS = 10
SILENCE_SECONDS = 10.0
"""How long a server may say nothing beyond the time in which it should have ended the statement by itself."""

# A server that acknowledges commits before they are on its disk is asked not to.
_PREPARE = SQL(
    """
    SELECT to_regtype('vector')::oid, (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'), (
        SELECT count(set_config(wanted.name, wanted.value, false))
        FROM (VALUES ('statement_timeout', '0', {statement}), ('lock_timeout', '0', {lock}),
                     ('idle_in_transaction_session_timeout', '0', {idle}), ('synchronous_commit', 'off', 'on'))
            AS wanted (name, unset, value)
        WHERE current_setting(wanted.name) = wanted.unset
    )
    """
).format(statement=f"{STATEMENT_SECONDS}s", lock=f"{LOCK_SECONDS}s", idle=f"{2 * STATEMENT_SECONDS}s")


class PatientConnection(psycopg.Connection[Any]):
    """A connection that gives up a server which says nothing."""

    silence_seconds = STATEMENT_SECONDS + SILENCE_SECONDS

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        limit = self.silence_seconds if timeout is None else timeout
        began = time.monotonic()
        try:
            return super().wait(gen, interval=interval, timeout=limit)
        except psycopg.OperationalError as error:
            if time.monotonic() - began < limit:
                raise
            # What was asked may still come: nobody may use the connection after this.
            self.pgconn.finish()
            raise ServerSilentError(f"the server has said nothing for {limit:g} s") from error


class ServerSilentError(psycopg.OperationalError):
    """Raised when a server gave no answer in time; asking again would only double the wait."""


class _VectorDumper(Dumper):
    """Sends vectors in pgvector's binary format; a subclass knows the number that the server gave the type."""

    format = Format.BINARY

    def dump(self, obj: VectorBytes) -> Buffer:
        return obj


def use_for(engine: sa.Engine) -> None:
    """Have the engine make such connections; raise `ConfigurationError` when its URL has an option that is none."""
    _check_options(engine)
    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine, "connect", _prepare)


def _check_options(engine: sa.Engine) -> None:
    arguments = engine.dialect.create_connect_args(engine.url)[1]
    arguments.pop("context", None)
    try:
        psycopg.conninfo.make_conninfo("", **arguments)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"database_url cannot be used: {str(error).strip()}. Its options are those of PostgreSQL's own URLs, such "
            "as ?sslmode=require or ?host=/FOLDER_OF_THE_SOCKET."
        ) from error


def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> PatientConnection:
    return PatientConnection.connect(*arguments, **options)


def _prepare(connection: PatientConnection, _record: object) -> None:
    """Check a new connection and set what it must have, in one round trip."""
    told = connection.info.parameter_status
    if (encoding := told("server_encoding")) != "UTF8":
        raise ConfigurationError(
            f"The database {connection.info.dbname!r} has the encoding {encoding}, which cannot hold every text. "
            "Create one with ENCODING 'UTF8'."
        )
    if "on" in (told("in_hot_standby"), told("default_transaction_read_only")):
        raise DatabaseUnavailableError(
            f"The database {connection.info.dbname!r} is read-only. Name the server that takes writes in "
            "GUIDANCE_DATABASE_URL."
        )
    connection.autocommit = True
    vector_type, own_timeout_ms = connection.execute(_PREPARE).fetchall()[0][:2]
    connection.autocommit = False
    if own_timeout_ms:
        connection.silence_seconds = own_timeout_ms / 1000 + SILENCE_SECONDS
    if vector_type is not None:
        connection.adapters.register_dumper(VectorBytes, type("_Dumper", (_VectorDumper,), {"oid": vector_type}))

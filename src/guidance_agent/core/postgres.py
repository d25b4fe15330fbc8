"""PostgreSQL for the records: what is different from a file."""

from __future__ import annotations

import os

import sqlalchemy as sa

from guidance_agent.core.database_url import shown_url
from guidance_agent.core.embedding_column import know_when_reflected, store_vectors
from guidance_agent.core.stored_json import stored_json
from guidance_agent.errors import DatabaseUnavailableError

__all__ = ["PostgresServer"]

_CONNECTIONS = 4
"""Connections of a process at work: one or two that read, the journal's, one for other writing."""
_FURTHER_CONNECTIONS = 4
_A_DAY = 86_400.0

_CONNECTION_OPTIONS = {
    # What libpq calls it: our value, and the variable that sets it for all programs of a user.
    "connect_timeout": ("10", "PGCONNECT_TIMEOUT"),
    "application_name": ("guidance-agent", "PGAPPNAME"),
    # Finds out within a minute that the other side is gone, and keeps firewalls from forgetting idle connections.
    "keepalives_idle": ("30", None),
    "keepalives_interval": ("10", None),
    "keepalives_count": ("3", None),
    "tcp_user_timeout": ("30000", None),
}

_PASSING = ("40001", "40P01")
"""Serialisation failure and deadlock."""

_NEXT_STEPS = {
    "25006": "Name the server that takes writes in GUIDANCE_DATABASE_URL.",
    "42501": "Grant the role what specs/postgresql.md names.",
    "53100": "Free some space on the server's disk.",
    "53300": "Raise the server's max_connections, or run fewer processes.",
    "55P03": "Find the session that holds the lock in pg_stat_activity.",
    "57014": "Find what holds the server up in pg_stat_activity and its log.",
}


class PostgresServer:
    """The `Backend` of a database on a server."""

    journal_writes_apart = True

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self.name = repr(shown_url(url))

    def create_engine(self) -> sa.Engine:
        from guidance_agent.core import postgres_connection

        know_when_reflected()
        defaults = {
            name: value
            for name, (value, variable) in _CONNECTION_OPTIONS.items()
            if name not in self._url.query and (variable is None or variable not in os.environ)
        }
        engine = sa.create_engine(
            self._url,
            connect_args=defaults,
            isolation_level="READ COMMITTED",
            pool_size=_CONNECTIONS,
            max_overflow=_FURTHER_CONNECTIONS,
            json_serializer=stored_json,
        )
        postgres_connection.use_for(engine)
        return engine

    def for_reading(self, engine: sa.Engine) -> sa.Engine:
        """Read without a transaction: beginning and ending one are two more round trips."""
        return engine.execution_options(isolation_level="AUTOCOMMIT")

    def opened(self, connection: sa.Connection) -> None:
        """Note whether the columns of vectors have pgvector's type."""
        in_bytes, in_type = connection.exec_driver_sql(
            "SELECT atttypid = 'bytea'::regtype, atttypid IS NOT DISTINCT FROM to_regtype('vector') FROM pg_attribute "
            "WHERE attrelid = to_regclass('memories') AND attname = 'embedding'"
        ).one()
        if not in_bytes and not in_type:
            raise DatabaseUnavailableError(
                f"The database {self.name} keeps vectors in pgvector's type, and the type is not found. Add the schema "
                "of the extension to the role's search_path."
            )
        store_vectors(connection.dialect, in_type=in_type)

    def begin(self, connection: sa.Connection) -> None:
        """Nothing: the driver begins with the first statement."""

    def before_commit(self) -> None:
        """Nothing: a server that is gone refuses by itself."""

    def before_migration(self, connection: sa.Connection) -> None:
        """Let the transaction take as long as it needs; it may rewrite tables, or wait for another that does."""
        from guidance_agent.core.postgres_connection import PatientConnection

        for limit in ("statement_timeout", "lock_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
        driver = connection.connection.driver_connection
        if isinstance(driver, PatientConnection):
            driver.silence_seconds = _A_DAY

    def is_passing(self, error: BaseException) -> bool:
        from guidance_agent.core.postgres_connection import ServerSilentError

        if not isinstance(error, sa.exc.DBAPIError) or isinstance(error.orig, ServerSilentError):
            return False
        return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _PASSING

    def next_step(self, error: BaseException) -> str:
        state = getattr(error.orig if isinstance(error, sa.exc.DBAPIError) else error, "sqlstate", None)
        return _NEXT_STEPS.get(state or "", "Check that the server runs, and what GUIDANCE_DATABASE_URL says of it.")

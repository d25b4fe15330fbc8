"""Alembic's entry: runs on the connection it is given, or on `GUIDANCE_DATABASE_URL` for developers' commands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from guidance_agent.core.database import database_url
from guidance_agent.core.embedding_column import know_when_reflected
from guidance_agent.core.schema import metadata
from guidance_agent.settings import Settings


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        include_object=lambda _object, name, kind, _reflected, _compare: (
            kind != "table" or name in metadata.tables or name == "alembic_version"
        ),
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    know_when_reflected()
    url = database_url(Settings.load())
    with sa.create_engine(url).begin() as own:
        _run(own)

"""The schema: made by migrations, one revision for the program, on each database, with and without pgvector."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
import sqlalchemy as sa

from guidance_agent.core.database import KNOWN_REVISIONS, SCHEMA_REVISION, Database, database_url
from guidance_agent.core.migrations import MIGRATION_LOCK, alembic_config, downgrade
from guidance_agent.core.schema import memories, metadata
from guidance_agent.errors import DatabaseUnavailableError, SchemaVersionError
from guidance_agent.settings import Settings
from tests.postgres_server import OutsideServer

on_postgresql = pytest.mark.only_on("postgresql")


async def test_the_revision_of_the_program_is_the_head_of_the_migrations(database: Database) -> None:
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(alembic_config())
    assert script.get_current_head() == SCHEMA_REVISION == await database.revision()
    assert {revision.revision for revision in script.walk_revisions()} == set(KNOWN_REVISIONS)


def differences(connection: sa.Connection) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_schema_of_the_tables(database: Database) -> None:
    assert await database.run(differences) == []


async def test_the_migrations_lead_back_to_nothing_and_forth_again(database: Database) -> None:
    def tables(connection: sa.Connection) -> set[str]:
        return set(sa.inspect(connection).get_table_names())

    await database.transaction(lambda connection: downgrade(connection, "base"))
    assert await database.run(tables) == {"alembic_version"}
    assert await database.revision() is None
    await database.migrate()
    assert await database.revision() == SCHEMA_REVISION
    assert await database.run(differences) == []


async def test_processes_that_start_at_once_on_an_empty_database_all_find_the_schema(empty: Settings) -> None:
    url = database_url(empty)

    async def start() -> str | None:
        async with Database(url) as database:
            return await database.revision()

    assert await asyncio.gather(*(start() for _ in range(5))) == [SCHEMA_REVISION] * 5


async def _with_revision(settings: Settings, revision: str) -> None:
    async with Database(database_url(settings)) as database:
        await database.transaction(
            lambda connection: connection.execute(
                sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
            )
        )


async def test_a_newer_schema_is_refused_with_the_next_step(settings: Settings) -> None:
    await _with_revision(settings, "9999")
    with pytest.raises(SchemaVersionError, match="newer one"):
        async with Database(database_url(settings)):
            pytest.fail("a newer schema was opened")


async def test_an_older_schema_is_refused_when_it_may_not_be_migrated(empty: Settings) -> None:
    with pytest.raises(SchemaVersionError, match="--migrate"):
        async with Database(database_url(empty), auto_migrate=False):
            pytest.fail("an empty database was opened")


@on_postgresql
async def test_a_process_waits_for_another_that_migrates_for_longer_than_a_lock_may_take(
    empty: Settings, postgres: OutsideServer
) -> None:
    impatient = empty.model_copy(update={"database_url": f"{empty.database_url}&options=-c%20lock_timeout%3D100ms"})
    name = sa.make_url(empty.database_url or "").database
    with psycopg.connect(postgres.url(name)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        opening = asyncio.create_task(Database(database_url(impatient)).__aenter__())
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(postgres.execute, waiting, database=name):  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert not opening.done()
    opened = await opening
    assert await opened.revision() == SCHEMA_REVISION
    await opened.close()


class Plain(NamedTuple):
    """An empty database of a role that may make tables in it and nothing else."""

    settings: Settings
    name: str


@pytest.fixture
def plain(settings: Settings, postgres: OutsideServer) -> Iterator[Plain]:
    name = postgres.create_database()
    role = f"plain_{name}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    postgres.execute(f"GRANT CREATE ON SCHEMA public TO {role}", database=name)
    url = sa.make_url(postgres.url(name)).set(username=role, password="plain")
    try:
        yield Plain(settings.model_copy(update={"database_url": url.render_as_string(hide_password=False)}), name)
    finally:
        postgres.drop_database(name)
        postgres.execute(f"DROP ROLE {role}")


async def column_type(database: Database) -> str:
    query = "SELECT atttypid::regtype FROM pg_attribute WHERE attrelid = 'memories'::regclass AND attname = 'embedding'"
    return str(await database.run(lambda connection: connection.exec_driver_sql(query).scalar_one()))


@on_postgresql
async def test_vectors_have_their_own_type_where_the_server_has_it(database: Database) -> None:
    assert database.compares_vectors
    assert await column_type(database) == "vector"


@on_postgresql
async def test_a_role_that_may_not_create_the_extension_gets_bytes(
    plain: Plain, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(database_url(plain.settings)) as database:
        assert not database.compares_vectors
        assert await column_type(database) == "bytea"
        assert await database.run(differences) == []
        values = b"\x00\x00\x80?\x00\x00\x00\xc0"
        row = _memory_row(values)
        await database.transaction(lambda connection: connection.execute(sa.insert(memories).values(row)))
        stored = await database.run(lambda connection: connection.execute(sa.select(memories.c.embedding)).scalar_one())
    assert stored == values
    assert "the extension vector cannot be created" in caplog.text


@on_postgresql
async def test_an_extension_that_the_operator_made_is_used_by_a_plain_role(
    plain: Plain, postgres: OutsideServer
) -> None:
    postgres.execute("CREATE EXTENSION vector", database=plain.name)
    async with Database(database_url(plain.settings)) as database:
        assert database.compares_vectors


@on_postgresql
async def test_a_type_that_the_search_path_does_not_lead_to_is_named(plain: Plain, postgres: OutsideServer) -> None:
    postgres.execute("CREATE SCHEMA extensions", database=plain.name)
    postgres.execute(f"GRANT USAGE ON SCHEMA extensions TO plain_{plain.name}", database=plain.name)
    postgres.execute("CREATE EXTENSION vector SCHEMA extensions", database=plain.name)
    async with Database(database_url(plain.settings)) as database:
        assert await column_type(database) == "bytea"
        await database.transaction(lambda connection: downgrade(connection, "base"))
    found = plain.settings.model_copy(
        update={"database_url": f"{plain.settings.database_url}&options=-csearch_path%3Dpublic,extensions"}
    )
    async with Database(database_url(found)) as database:
        assert database.compares_vectors
    with pytest.raises(DatabaseUnavailableError, match="search_path"):
        async with Database(database_url(plain.settings)):
            pytest.fail("vectors of an unknown type were opened")


@on_postgresql
async def test_a_role_without_rights_is_told_where_they_are_named(plain: Plain, postgres: OutsideServer) -> None:
    postgres.execute(f"REVOKE CREATE ON SCHEMA public FROM plain_{plain.name}", database=plain.name)
    with pytest.raises(DatabaseUnavailableError, match=r"permission denied.+specs/postgresql\.md"):
        async with Database(database_url(plain.settings)):
            pytest.fail("tables were made without the right to")


def _memory_row(embedding: bytes) -> dict[str, Any]:
    from datetime import UTC, datetime

    return {
        "id": "m",
        "customer_id": "c",
        "consultation_id": "k",
        "turn_id": "t",
        "kind": "observation",
        "text": "x",
        "created_at": datetime(2026, 11, 21, tzinfo=UTC),
        "simulated": False,
        "embedding": embedding,
        "embedding_model": "m",
        "embedding_dimensions": len(embedding) // 4,
    }

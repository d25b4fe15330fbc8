"""The page on PostgreSQL is true: its statements run on a server and do what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime
from guidance_agent.core.database import Database
from guidance_agent.core.migrations import downgrade
from guidance_agent.core.schema import memories
from guidance_agent.settings import Settings
from tests.postgres_server import OutsideServer
from tests.storage import Storage

pytestmark = pytest.mark.only_on("postgresql")
PAGE = Path(__file__).parents[3] / "specs" / "postgresql.md"


class Block(NamedTuple):
    mark: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```psql ?(\S*)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)]
QUESTIONS = [block.text for block in BLOCKS if not block.mark]


def statement(mark: str) -> str:
    (block,) = (block for block in BLOCKS if block.mark == mark)
    return block.text


def name_of(storage: Storage) -> str:
    return str(sa.make_url(storage.url or "").database)


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
async def test_each_question_is_answered_by_a_finished_turn(
    question: str, advisor: AdvisorAgent, settings: Settings, janet: CustomerProfile
) -> None:
    async with advisor.consult(janet) as turn:
        _ = [event async for event in turn]
    query = re.sub(r"(?<!:):(\w+)", r"%(\1)s", question)
    with psycopg.connect(settings.database_url or "") as connection:
        assert connection.execute(query.encode(), {"turn_id": turn.turn_id}).fetchall()


@pytest.fixture
def service(storage: Storage, settings: Settings, postgres: OutsideServer) -> Iterator[Settings]:
    """Settings of a service whose role has the rights of the page and no others."""
    role = f"service_{name_of(storage)}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'service'")
    for line in statement("rights").strip().splitlines():
        postgres.execute(line.replace("TO service", f"TO {role}"), database=name_of(storage))
    url = sa.make_url(storage.url or "").set(username=role, password="service")
    address = url.render_as_string(hide_password=False)
    try:
        yield settings.model_copy(update={"database_url": address, "auto_migrate": False})
    finally:
        postgres.execute(f"DROP OWNED BY {role}", database=name_of(storage))
        postgres.execute(f"DROP ROLE {role}")


async def test_a_service_works_with_the_rights_of_the_page(service: Settings, janet: CustomerProfile) -> None:
    async with Runtime(service) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        assert await advisor.provide_guidance(janet)
        assert await runtime.close_dead_turns() == ()


async def test_a_database_of_bytes_is_converted_and_its_memories_are_embedded_again(
    settings: Settings, storage: Storage, postgres: OutsideServer, janet: CustomerProfile
) -> None:
    name = name_of(storage)
    back = statement("convert").replace("TYPE vector", "TYPE bytea")
    postgres.execute(back, database=name)
    async with Runtime(settings) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        assert not runtime.database.compares_vectors
        await advisor.provide_guidance(janet)
    postgres.execute(statement("convert"), database=name)
    async with Runtime(settings) as runtime:
        assert runtime.database.compares_vectors
        query = sa.select(memories.c.embedding.is_not(None))
        assert await runtime.database.run(lambda c: c.execute(query).scalars().all()) == [False]
        assert await runtime.memory.embed_pending() == 1
        assert await runtime.database.run(lambda c: c.execute(query).scalars().all()) == [True]
        assert await runtime.memory.recall(janet.customer_id, janet.presenting_question, include_simulated=True)


async def test_downgrading_leaves_the_extension(database: Database) -> None:
    await database.transaction(lambda connection: downgrade(connection, "base"))
    query = "SELECT count(*) FROM pg_extension WHERE extname = 'vector'"
    assert await database.run(lambda connection: connection.exec_driver_sql(query).scalar_one()) == 1

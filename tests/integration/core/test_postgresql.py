"""What the records rely on at a PostgreSQL server, whatever its operator has set, and the addresses it can have."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.database_url import shown_url
from guidance_agent.core.journal import Journal
from guidance_agent.core.ledger import UsageLedger
from guidance_agent.core.records import Records
from guidance_agent.core.schema import consultations, model_calls
from guidance_agent.llm.messages import ModelCall, Timing, Usage
from guidance_agent.settings import Settings
from tests.postgres_server import OutsideServer
from tests.storage import Storage

pytestmark = pytest.mark.only_on("postgresql")


def name_of(storage: Storage) -> str:
    return str(sa.make_url(storage.url or "").database)


async def shown(database: Database, setting: str) -> str:
    return str(await database.run(lambda connection: connection.exec_driver_sql(f"SHOW {setting}").scalar_one()))


async def test_a_commit_is_on_the_disk_also_where_the_server_would_not_wait_for_it(
    settings: Settings, storage: Storage, postgres: OutsideServer
) -> None:
    postgres.execute(f"ALTER DATABASE {name_of(storage)} SET synchronous_commit = off")
    async with Database(database_url(settings)) as database:
        assert await shown(database, "synchronous_commit") == "on"


async def test_a_stricter_commit_of_the_operator_stays(
    settings: Settings, storage: Storage, postgres: OutsideServer
) -> None:
    postgres.execute(f"ALTER DATABASE {name_of(storage)} SET synchronous_commit = remote_apply")
    async with Database(database_url(settings)) as database:
        assert await shown(database, "synchronous_commit") == "remote_apply"


async def test_no_statement_and_no_lock_is_waited_for_without_end(database: Database) -> None:
    assert await shown(database, "statement_timeout") == "30s"
    assert await shown(database, "lock_timeout") == "10s"


async def test_time_limits_of_the_operator_stay(settings: Settings, storage: Storage, postgres: OutsideServer) -> None:
    postgres.execute(f"ALTER DATABASE {name_of(storage)} SET statement_timeout = '90s'")
    address = f"{settings.database_url}&options=-c%20lock_timeout%3D2s"
    async with Database(database_url(settings.model_copy(update={"database_url": address}))) as database:
        assert await shown(database, "statement_timeout") == "90s"
        assert await shown(database, "lock_timeout") == "2s"


async def test_a_transaction_sees_what_is_committed_whatever_isolation_the_server_prefers(
    settings: Settings, storage: Storage, postgres: OutsideServer
) -> None:
    postgres.execute(f"ALTER DATABASE {name_of(storage)} SET default_transaction_isolation = serializable")
    query = "SELECT current_setting('transaction_isolation')"
    async with Database(database_url(settings)) as database:
        isolation = await database.transaction(lambda c: c.exec_driver_sql(query).scalar_one())
    assert isolation == "read committed"


async def test_a_process_needs_few_connections(database: Database, storage: Storage, postgres: OutsideServer) -> None:
    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(0.01)")

    ways = (database.run, database.transaction, database.submit)
    await asyncio.gather(*(way(work) for way in ways for _ in range(20)))
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'guidance-agent' AND datname = '{}'"
    ((connections,),) = postgres.execute(query.format(name_of(storage)))
    assert connections in (3, 4)


@pytest.mark.parametrize("form", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
async def test_an_address_may_have_any_usual_form(settings: Settings, form: str) -> None:
    address = str(settings.database_url).replace("postgresql://", f"{form}://")
    async with Database(database_url(settings.model_copy(update={"database_url": address}))) as database:
        assert await database.revision() is not None


async def test_the_folder_of_a_socket_may_stand_in_the_place_of_the_host(
    settings: Settings, storage: Storage, postgres: OutsideServer
) -> None:
    folder = sa.make_url(postgres.url()).query.get("host")
    if not isinstance(folder, str):
        pytest.skip("The server of GUIDANCE_TEST_POSTGRES_URL does not listen on a socket.")
    address = f"postgresql://postgres@{quote(folder, safe='')}/{name_of(storage)}?sslmode=prefer&connect_timeout=3"
    async with Database(database_url(settings.model_copy(update={"database_url": address}))) as database:
        assert await database.revision() is not None


def test_nothing_secret_of_an_address_is_shown(tmp_path: Path) -> None:
    address = "postgres://u:secret@h:1/n?password=secret&sslpassword=secret&sslmode=require"
    url = database_url(Settings.load(data_dir=tmp_path, database_url=address))
    assert "secret" not in shown_url(url)
    assert "secret" not in url.set(query={}).render_as_string(hide_password=True)
    assert shown_url(url).startswith("postgresql://u:***@h:1/n?")


async def test_json_comes_back_in_the_order_and_with_the_numbers_it_was_written(
    database: Database, clock: SystemClock
) -> None:
    profile = {"zeta": 1.0, "a": [3, 1.50, 1e22], "middle": {"b": None, "aa": "x\u0000\ud800"}, "B": -0.0}
    row = {
        "id": "cons-1",
        "customer_id": "c",
        "advisor_id": "a",
        "opened_at": clock.now(),
        "profile": profile,
        "transcript_hash": "0" * 64,
        "turn_count": 1,
        "outcome": "open",
        "simulated": True,
    }
    await database.transaction(lambda connection: connection.execute(sa.insert(consultations).values(row)))
    record = await Records(database, clock).consultation("cons-1")
    assert record is not None
    assert repr(record.profile) == repr(profile)


async def test_no_row_of_the_ledger_is_lost_to_what_a_provider_says(database: Database, clock: SystemClock) -> None:
    odd = ModelCall(
        id="call-1",
        operation="o" * 300,
        model="m\x00" * 300,
        requested_model="\ud800",
        provider="p" * 300,
        transport="native",
        started_at=clock.now(),
        outcome="error:ModelError",
        finish_reason=None,
        attempts=1,
        timing=Timing(total=float("inf")),
        usage=Usage(input_tokens=2**60, output_tokens=2**60),
        cost=None,
        cache_outcome="unknown",
        cache_parts={"conduct": "\x00"},
        cache_use={},
        simulated=False,
        request_id="r" * 5_000,
        error="\x00\udfff" * 1_000,
        metadata={"turn_id": "t\x00", "consultation_id": "c" * 400},
    )
    async with Journal(database, clock, owner="o" * 500) as journal:
        UsageLedger(journal).record(odd)
        UsageLedger(journal).record(dataclasses.replace(odd, id="call-2"))
    rows = await database.run(lambda connection: connection.execute(sa.select(model_calls)).mappings().all())
    assert [row["input_tokens"] for row in rows] == [2**60] * 2
    assert rows[0]["error"] == "\ufffd" * 2_000
    assert rows[0]["cache_parts"] == {"conduct": "\x00"}


async def test_an_id_that_no_row_can_have_is_not_found(database: Database, clock: SystemClock) -> None:
    for odd in ("a\x00b", "\ud800", "x" * 10_000):
        assert await Records(database, clock).turn(odd) is None
        assert await Records(database, clock).consultation(odd) is None

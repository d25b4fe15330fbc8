"""Fixtures that every test may use: a scrubbed environment, real settings, a real database, a real advisor.

A test that uses `storage`, directly or through `settings` and what is built on it, runs on SQLite. In the folders of
`ON_BOTH` it runs on PostgreSQL too, unless it is marked `only_on` for one of them. Where a test also has a `wire`, it
runs with one wire on SQLite and with the other on PostgreSQL; GUIDANCE_TEST_PAIRS=all has it run with every pair.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from tests.postgres_server import OutsideServer, PostgresMissing, PostgresServer
from tests.storage import Storage, migrated_database

_PROVIDER_VARIABLES = ("_API_KEY", "_BASE_URL", "_API_BASE")
_OUTSIDE_SERVER = os.environ.get("GUIDANCE_TEST_POSTGRES_URL")

ON_BOTH = (
    "integration/core",
    "integration/advisor",
    "integration/attacks",
    "integration/retrieval",
    "integration/learning",
    "unit/core/test_memory.py",
    "unit/advisor/test_consultations.py",
)
WIRED = ("integration/advisor", "integration/attacks", "integration/learning")
ON_ONE_WORKER = ("tests/integration/phoenix/",)
"""Folders whose tests share a server that takes long to start."""
DATABASES = ("sqlite", "postgresql")
WIRES = ("anthropic", "openai")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_on(database): the test is about what this database does")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With `--dist loadfile`, give each folder of `ON_ONE_WORKER` to one worker."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            folder = next((each for each in ON_ONE_WORKER if nodeid.startswith(each)), None)
            return folder or str(super()._split_scope(nodeid))

    return FolderScheduling(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    place = metafunc.definition.path.relative_to(Path(__file__).parent).as_posix()
    wires = WIRES if "wire" in metafunc.fixturenames and place.startswith(WIRED) else ()
    databases = _databases_of(metafunc, place) if "storage" in metafunc.fixturenames else ()
    if wires and databases:
        every = len(databases) == 1 or os.environ.get("GUIDANCE_TEST_PAIRS") == "all"
        pairs = itertools.product(wires, databases) if every else zip(wires, databases, strict=True)
        metafunc.parametrize(("wire", "storage"), list(pairs), indirect=True)
    elif wires:
        metafunc.parametrize("wire", wires, indirect=True)
    elif databases:
        metafunc.parametrize("storage", databases, indirect=True)


def _databases_of(metafunc: pytest.Metafunc, place: str) -> tuple[str, ...]:
    marker = metafunc.definition.get_closest_marker("only_on")
    if marker is not None:
        return (str(marker.args[0]),)
    return DATABASES if place.startswith(ON_BOTH) else DATABASES[:1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[OutsideServer]:
    """A PostgreSQL server for all tests of this process: the one of `GUIDANCE_TEST_POSTGRES_URL`, else its own."""
    if _OUTSIDE_SERVER:
        yield OutsideServer(_OUTSIDE_SERVER)
        return
    try:
        server = PostgresServer()
    except PostgresMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: OutsideServer) -> Iterator[str]:
    """The name of a database with the schema and no rows, to make others from."""
    with migrated_database(postgres) as name:
        yield name


@pytest.fixture
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """The database of this test: what settings and child processes find, unless they are told another."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield Storage("sqlite", None)
        return
    server: OutsideServer = request.getfixturevalue("postgres")
    with server.database(template=request.getfixturevalue("migrated_template")) as url:
        monkeypatch.setenv("GUIDANCE_DATABASE_URL", url)
        yield Storage("postgresql", url)


@pytest.fixture(autouse=True)
def scrubbed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, address or setting of the machine reaches a test, and nothing is written outside its folder.

    The program adds no closing material and asks no model about sentences: a test that dictates an answer is about that
    answer and the requests for it. Tests of the closing and of the asking switch them on.
    """
    for name in list(os.environ):
        if name.startswith(("GUIDANCE_", "OTEL_", "PHOENIX_")) or name.endswith(_PROVIDER_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("GUIDANCE_GATE__CLOSING", "off")
    monkeypatch.setenv("GUIDANCE_GATE__ASK", "off")


@pytest_asyncio.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """A task that outlives its test is owned by nobody."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        # A generator that an earlier test dropped may be collected, and closed by the loop, only now.
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()}
    assert not left, f"tasks left running: {left}"


@pytest.fixture
def settings(storage: Storage, tmp_path: Path) -> Settings:
    """Settings of a fresh data folder, with an embedded simulator that answers at once and no background work."""
    return Settings.load(data_dir=tmp_path / "data", simulator="instant", background=False)


@pytest.fixture
def empty(storage: Storage, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings whose database has no schema yet."""
    if storage.is_sqlite:
        yield settings
        return
    with request.getfixturevalue("postgres").database() as url:
        yield settings.model_copy(update={"database_url": url})


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with Database(database_url(settings)) as opened:
        yield opened


@pytest_asyncio.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    async with Runtime(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def advisor(runtime: Runtime) -> AsyncIterator[AdvisorAgent]:
    async with AdvisorAgent(runtime=runtime) as opened:
        yield opened


@pytest.fixture
def janet() -> CustomerProfile:
    return CustomerProfile.parse(
        {
            "customer_id": "janet-56",
            "first_name": "Janet",
            "age": 56,
            "financial_literacy": "low",
            "pensions": [{"kind": "dc", "value_gbp": 38_000}],
            "presenting_question": "Can I take all of my pension to mend my roof?",
        }
    )

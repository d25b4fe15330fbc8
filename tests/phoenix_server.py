"""A real Phoenix server for the tests that read traces back: installed once per checkout, started once per run.

`tests/integration/phoenix/` has these fixtures. Its tests stay on one worker of pytest-xdist, so one server is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guidance_agent.phoenix import LocalPhoenix
from guidance_agent.phoenix.environment import Environment, install_phoenix
from guidance_agent.phoenix.launch import PhoenixServer
from guidance_agent.phoenix.ports import choose_ports

__all__ = ["MINUTES", "phoenix", "phoenix_environment"]

MINUTES = 20
"""The first test of a checkout waits for the installation, and the first of a run for the start."""

CACHE = Path(__file__).parents[1] / ".venv" / "phoenix-test"


@pytest.fixture(scope="session")
def phoenix_environment() -> Environment:
    """The server's environment, made by the same code as a user's."""
    install_phoenix(CACHE, tell=lambda _line: None)
    return Environment.of(CACHE)


@pytest.fixture(scope="session")
def phoenix(phoenix_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPhoenix]:
    """A running Phoenix server with an empty database, for all tests of the run; `phoenix.endpoint` is its address.

    Its tests share the database: they look for their own trace, session or project, and never count everything.
    """
    folder = tmp_path_factory.mktemp("phoenix")
    with PhoenixServer(folder, choose_ports(0, 0), environment=phoenix_environment) as server:
        yield server.local

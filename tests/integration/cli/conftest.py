"""The real command line, as a child process with a data folder of its own and no key in its environment."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

COMMAND = (sys.executable, "-m", "guidance_agent.cli.main")
PROVIDER_VARIABLES = ("_API_KEY", "_BASE_URL", "_API_BASE")


def scrubbed(folder: Path, **more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GUIDANCE_") and not name.endswith(PROVIDER_VARIABLES)
    }
    own = {
        "GUIDANCE_DATA_DIR": str(folder),
        "GUIDANCE_SIMULATOR": "instant",
        "GUIDANCE_BACKGROUND": "false",
        # Tests of the gate say so: here an answer is what the model says, and a request is one that a test expects.
        "GUIDANCE_GATE__ASK": "false",
        "GUIDANCE_GATE__CLOSING": "false",
        "PYTHONWARNINGS": "error",
    }
    return {**kept, **own, **more}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the tests of a file: making the schema takes longer than an answer."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def run(data_dir: Path) -> Run:
    """Run a command to its end: `run("ask", "…", stdin="…", GUIDANCE_MODEL="…")`."""

    def run_cli(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            env=scrubbed(data_dir, **environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
        )

    return run_cli


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    """Start a command whose output is read while it runs; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_cli(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=scrubbed(data_dir, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_cli
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def rows(data_dir: Path) -> Rows:
    """Read the records: `rows("select state from turns")`."""

    def read(query: str) -> list[dict[str, Any]]:
        connection = sqlite3.connect(data_dir / "guidance.db")
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]
        finally:
            connection.close()

    return read

"""`guidance-agent phoenix`, as a process, with a stand-in for the server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from guidance_agent.cli.checks.phoenix import check_phoenix
from guidance_agent.phoenix.launch import stop_phoenix
from guidance_agent.phoenix.local import local_phoenix, written_word
from tests.fake_phoenix import LAST_WORDS, fake_environment

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
ANY_PORTS = ("--port", "0", "--grpc-port", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder of its own; what runs for it at the end is stopped."""
    yield tmp_path
    stop_phoenix(tmp_path)


def runs(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be counted does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def told(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_in_the_foreground_until_a_signal_and_takes_the_server_along(
    start: Start, folder: Path, number: signal.Signals
) -> None:
    fake_environment(folder)
    process = start("phoenix", *ANY_PORTS, "--json", "--data-dir", str(folder))
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    running = local_phoenix(folder)
    assert running is not None
    assert line == {
        "endpoint": running.endpoint,
        "project": running.project_url("guidance-agent"),
        "traces": running.traces_endpoint,
        "grpc": running.grpc_endpoint,
        "pid": running.pid,
        "version": running.version,
        "started": True,
    }
    process.send_signal(number)
    assert process.wait(20) == 0
    assert not runs(running.pid)
    assert written_word(folder) is None


def test_it_runs_in_the_background_once_until_it_is_stopped(run: Run, folder: Path) -> None:
    fake_environment(folder)
    arguments = ("phoenix", "--background", *ANY_PORTS, "--json", "--data-dir", str(folder))
    first = told(run(*arguments))
    assert first["started"] is True
    assert runs(first["pid"])
    second = told(run(*arguments, GUIDANCE_TRACE__PROJECT="my project"))
    page = f"{first['endpoint']}/redirects/projects/my%20project"
    assert second == first | {"started": False, "project": page}
    third = run("phoenix", "--data-dir", str(folder))
    assert third.returncode == 0 and "running already" in third.stdout and first["endpoint"] in third.stdout
    other = run("phoenix", "--port", "1", "--data-dir", str(folder))
    assert other.returncode == 2 and "running already" in other.stderr and "--stop" in other.stderr
    doctor = run("doctor", "--data-dir", str(folder))
    assert f"is running on {first['endpoint']}" in doctor.stdout
    assert told(run("phoenix", "--stop", "--json", "--data-dir", str(folder))) == {"stopped": True, "pid": first["pid"]}
    assert not runs(first["pid"])
    assert told(run("phoenix", "--stop", "--json", "--data-dir", str(folder))) == {"stopped": False, "pid": None}


def test_stopping_it_elsewhere_ends_the_one_in_the_foreground(run: Run, start: Start, folder: Path) -> None:
    fake_environment(folder)
    process = start("phoenix", *ANY_PORTS, "--data-dir", str(folder))
    assert process.stdout is not None
    assert "for this machine only" in process.stdout.readline()
    stopped = run("phoenix", "--stop", "--data-dir", str(folder))
    assert stopped.returncode == 0 and "ended" in stopped.stdout
    assert process.wait(20) == 0


def test_without_the_installation_it_says_so(run: Run, folder: Path) -> None:
    result = run("phoenix", "--data-dir", str(folder))
    assert result.returncode == 2
    assert result.stdout == ""
    assert "not installed" in result.stderr and "guidance-agent phoenix install" in result.stderr


def test_a_port_that_is_taken_is_told(run: Run, folder: Path) -> None:
    fake_environment(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("phoenix", "--port", port, "--data-dir", str(folder))
    assert result.returncode == 2
    assert port in result.stderr and "Traceback" not in result.stderr


def test_a_server_that_does_not_start_ends_with_its_last_words(run: Run, folder: Path) -> None:
    fake_environment(folder, "ends_early")
    result = run("phoenix", *ANY_PORTS, "--data-dir", str(folder))
    assert result.returncode == 3
    assert LAST_WORDS in result.stderr and "Traceback" not in result.stderr


def test_installing_needs_a_yes_when_there_is_nobody_to_ask(run: Run, folder: Path) -> None:
    result = run("phoenix", "install", "--data-dir", str(folder))
    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert not (folder / "phoenix").exists()


def test_installing_again_does_nothing(run: Run, folder: Path) -> None:
    environment = fake_environment(folder)
    before = sorted(folder.rglob("*"))
    expected = {"version": environment.pinned.version, "environment": str(environment.folder), "changed": False}
    assert told(run("phoenix", "install", "--json", "--data-dir", str(folder))) == expected
    assert "installed already" in run("phoenix", "install", "--data-dir", str(folder)).stdout
    assert sorted(folder.rglob("*")) == before


def test_options_before_the_command_are_refused_and_not_forgotten(run: Run, folder: Path) -> None:
    result = run("phoenix", "--data-dir", str(folder), "install", "--yes")
    assert result.returncode == 2
    assert "after the command" in result.stderr


def test_doctor_says_what_there_is(folder: Path) -> None:
    missing = check_phoenix(folder)
    assert missing.status == "ok" and "not installed" in missing.message
    environment = fake_environment(folder)
    ready = check_phoenix(folder)
    assert ready.status == "ok" and "is installed and not running" in ready.message
    environment.folder.rename(environment.folder.with_name("of-another-list"))
    outdated = check_phoenix(folder)
    assert outdated.status == "warn" and "guidance-agent phoenix install" in str(outdated.next_step)

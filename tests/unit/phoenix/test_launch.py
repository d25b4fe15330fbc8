"""The launcher, with a stand-in that misbehaves: nothing that is unsafe or unwell is left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from guidance_agent.errors import PhoenixError, PhoenixNotInstalledError
from guidance_agent.phoenix import launch, local_phoenix
from guidance_agent.phoenix.environment import Environment, PinnedList
from guidance_agent.phoenix.launch import PhoenixServer, log_file, stop_phoenix
from guidance_agent.phoenix.local import phoenix_folder, write_word, written_word
from guidance_agent.phoenix.ports import choose_ports
from tests.fake_phoenix import END, LAST_WORDS, Behaviour, fake_environment

DEADLINE = 30.0


def server(folder: Path) -> PhoenixServer:
    return PhoenixServer(folder, choose_ports(0, 0))


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_runs_for_as_long_as_its_block(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path) as running:
        assert local_phoenix(tmp_path) == running.local
        assert running.local.alive()
        assert psutil.Process(running.local.pid).ppid() == os.getpid()
    assert not running.local.alive()
    assert written_word(tmp_path) is None


def test_a_server_that_was_kept_outlives_its_block_until_it_is_stopped(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path) as running:
        kept = running.keep()
    assert local_phoenix(tmp_path) == kept
    assert stop_phoenix(tmp_path) == kept
    assert not kept.alive()
    assert local_phoenix(tmp_path) is written_word(tmp_path) is None
    assert stop_phoenix(tmp_path) is None


def test_the_environment_of_the_launcher_stays_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_environment(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PHOENIX_HOST", "0.0.0.0")  # noqa: S104 - what must not arrive
    monkeypatch.setenv("PHOENIX_SQL_DATABASE_URL", "postgresql://elsewhere/db")
    with server(tmp_path) as running:
        variables = psutil.Process(running.local.pid).environ()
    assert "sk-secret" not in variables.values()
    assert variables["PHOENIX_HOST"] == "127.0.0.1"
    assert "PHOENIX_SQL_DATABASE_URL" not in variables


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("ends_early", f"status 3.*\n.*{LAST_WORDS}"),
        ("listens_beyond", r"listened on 192\.0\.2\.7:\d+, which others can reach, and was stopped"),
        ("untold", "cannot be told where.*not permitted"),
        ("answers_every_host", "answered 200 to a request for the host 'phoenix.invalid'"),
        ("no_grpc", "does not listen on"),
    ],
)
def test_a_server_that_is_unwell_or_can_be_reached_is_stopped_and_said(
    tmp_path: Path, behaviour: Behaviour, words: str
) -> None:
    fake_environment(tmp_path, behaviour)
    before = children()
    with pytest.raises(PhoenixError, match=f"(?s){words}"):
        server(tmp_path).__enter__()
    assert children() == before
    assert written_word(tmp_path) is None


def test_a_server_that_never_answers_is_stopped_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_environment(tmp_path, "never_answers")
    monkeypatch.setattr(launch, "_READY_WITHIN", 1.0)
    monkeypatch.setattr(launch, "_TOLD_EVERY", 0.2)
    told: list[str] = []
    before = children()
    with pytest.raises(PhoenixError, match="did not answer on port"):
        PhoenixServer(tmp_path, choose_ports(0, 0), tell=told.append).__enter__()
    assert children() == before
    assert any("Still starting" in line for line in told)


def test_a_server_that_ends_by_itself_is_said(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with pytest.raises(PhoenixError, match="status 7"), server(tmp_path) as running:
        with socket.create_connection(("127.0.0.1", running.local.port), timeout=10) as asking:
            asking.sendall(f"GET {END} HTTP/1.0\r\n\r\n".encode())
        running.wait()
    assert written_word(tmp_path) is None


def test_waiting_ends_when_another_process_stops_it(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path) as running:
        program = (
            "import sys; from pathlib import Path\n"
            "from guidance_agent.phoenix.launch import stop_phoenix\n"
            "stop_phoenix(Path(sys.argv[1]))\n"
        )
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]):
            running.wait()
    assert written_word(tmp_path) is None


def test_the_server_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    program = (
        "import sys; from pathlib import Path\n"
        "from guidance_agent.phoenix.launch import PhoenixServer\n"
        "from guidance_agent.phoenix.ports import choose_ports\n"
        "with PhoenixServer(Path(sys.argv[1]), choose_ports(0, 0)) as server:\n"
        "    print(server.local.pid, flush=True)\n"
        "    server.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        assert local_phoenix(tmp_path) is not None
        launcher.send_signal(signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert local_phoenix(tmp_path) is None


def test_a_word_of_a_dead_server_does_not_hinder_the_next_start(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path) as first:
        word = first.local
    write_word(tmp_path, word)
    assert local_phoenix(tmp_path) is None
    with server(tmp_path) as second:
        assert local_phoenix(tmp_path) == second.local != word


def test_stopping_leaves_a_process_alone_that_has_the_number_now(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path) as running:
        old = running.local
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        phoenix_folder(tmp_path).mkdir(exist_ok=True)
        write_word(tmp_path, type(old)(**{name: getattr(old, name) for name in old.__slots__} | {"pid": other.pid}))
        assert stop_phoenix(tmp_path) is None
        assert other.poll() is None
        assert written_word(tmp_path) is None
        other.kill()


def test_only_one_runs_for_a_data_folder(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path) as running:
        with pytest.raises(PhoenixError, match=f"already running on {running.local.endpoint}"):
            server(tmp_path).__enter__()
        assert running.local.alive()


def test_without_an_installation_the_command_to_make_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhoenixNotInstalledError, match="guidance-agent phoenix install"):
        server(tmp_path).__enter__()


def test_an_installation_of_another_list_is_not_started(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("arize-phoenix==1.2.3 \\\n    --hash=sha256:00\n")
    fake_environment(tmp_path, pinned=PinnedList(other))
    with pytest.raises(PhoenixNotInstalledError, match=r"1\.2\.3 is.*guidance-agent phoenix install"):
        server(tmp_path).__enter__()
    assert Environment.of(tmp_path).state().other_version == "1.2.3"


def test_the_log_is_for_its_owner_only(tmp_path: Path) -> None:
    fake_environment(tmp_path)
    with server(tmp_path):
        assert log_file(tmp_path).stat().st_mode & 0o077 == 0

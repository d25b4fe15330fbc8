"""The word that a launcher leaves in the data folder: found while the server runs, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.phoenix.local import LocalPhoenix, local_phoenix, phoenix_folder, write_word, written_word
from guidance_agent.phoenix.processes import process_mark


@pytest.fixture
def own_process(tmp_path: Path) -> LocalPhoenix:
    """A word that names this very process, which certainly runs."""
    phoenix_folder(tmp_path).mkdir()
    mark = process_mark(os.getpid())
    assert mark is not None
    return LocalPhoenix(
        pid=os.getpid(), mark=mark, port=6007, grpc_port=4318, version="20.26.1", started_at=datetime.now(UTC)
    )


def test_a_running_server_is_found_with_its_addresses(tmp_path: Path, own_process: LocalPhoenix) -> None:
    write_word(tmp_path, own_process)
    found = local_phoenix(tmp_path)
    assert found == own_process
    assert found.endpoint == "http://127.0.0.1:6007"
    assert found.traces_endpoint == "http://127.0.0.1:6007/v1/traces"
    assert found.grpc_endpoint == "127.0.0.1:4318"
    assert found.project_url("a b/c") == "http://127.0.0.1:6007/redirects/projects/a%20b%2Fc"
    assert found.trace_url("0af7") == "http://127.0.0.1:6007/redirects/traces/0af7"
    assert found.span_url("b7ad") == "http://127.0.0.1:6007/redirects/spans/b7ad"
    assert found.session_url("cons_1") == "http://127.0.0.1:6007/redirects/sessions/cons_1"


def test_without_a_word_there_is_none(tmp_path: Path) -> None:
    assert local_phoenix(tmp_path) is None
    assert local_phoenix(tmp_path / "missing") is None


def test_a_server_that_has_ended_is_not_found(tmp_path: Path, own_process: LocalPhoenix) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        mark = process_mark(child.pid)
        assert mark is not None
        word = LocalPhoenix(
            pid=child.pid, mark=mark, port=1, grpc_port=2, version="1", started_at=own_process.started_at
        )
        write_word(tmp_path, word)
        assert local_phoenix(tmp_path) == word
        child.kill()
    assert local_phoenix(tmp_path) is None
    assert written_word(tmp_path) == word


def test_a_number_that_another_process_has_now_is_not_taken_for_the_server(
    tmp_path: Path, own_process: LocalPhoenix
) -> None:
    write_word(tmp_path, own_process)
    path = phoenix_folder(tmp_path) / "server.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mark": "an earlier boot/1"}))
    assert local_phoenix(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        b"[]",
        b'{"pid": 1}',
        b"x" * 1_000_000,
    ],
)
def test_a_damaged_word_names_no_server(tmp_path: Path, own_process: LocalPhoenix, content: bytes) -> None:
    write_word(tmp_path, own_process)
    (phoenix_folder(tmp_path) / "server.json").write_bytes(content)
    assert local_phoenix(tmp_path) is None


@pytest.mark.parametrize(
    "wrong", [{"pid": 0}, {"pid": 1}, {"pid": -1}, {"port": 0}, {"port": 70_000}, {"grpc_port": "x"}, {"mark": ""}]
)
def test_values_that_no_start_writes_name_no_server(
    tmp_path: Path, own_process: LocalPhoenix, wrong: dict[str, Any]
) -> None:
    write_word(tmp_path, own_process)
    path = phoenix_folder(tmp_path) / "server.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    assert local_phoenix(tmp_path) is None


def test_the_word_cannot_send_spans_to_another_machine(tmp_path: Path, own_process: LocalPhoenix) -> None:
    write_word(tmp_path, own_process)
    path = phoenix_folder(tmp_path) / "server.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "evil.example", "endpoint": "http://evil"}))
    found = local_phoenix(tmp_path)
    assert found is not None
    assert found.endpoint == "http://127.0.0.1:6007"


def test_the_word_is_for_its_owner_only_and_leaves_nothing_beside_it(tmp_path: Path, own_process: LocalPhoenix) -> None:
    write_word(tmp_path, own_process)
    folder = phoenix_folder(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["server.json"]
    assert (folder / "server.json").stat().st_mode & 0o077 == 0
    write_word(tmp_path, None)
    assert not list(folder.iterdir())
    write_word(tmp_path, None)


def test_looking_loads_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from guidance_agent.phoenix import local_phoenix;"
        f"local_phoenix(Path({str(tmp_path)!r}));"
        "heavy = {'aiohttp', 'http.client', 'urllib.request', 'opentelemetry', 'typer', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

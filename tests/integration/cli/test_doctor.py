"""`guidance-agent doctor` and `guidance-agent simulator`, as processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


def checks(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def test_a_fresh_machine_is_fit_and_nothing_is_changed(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json", "--data-dir", str(tmp_path / "new"))
    found = checks(result)
    assert result.returncode == 0, result.stdout
    assert {check["status"] for check in found.values()} <= {"ok", "warn"}
    assert found["Keys"]["status"] == "warn" and "ANTHROPIC_API_KEY" in found["Keys"]["next_step"]
    assert "simulator" in found["Models"]["message"]
    assert "--data-dir" in found["Settings"]["message"] and "GUIDANCE_SIMULATOR" in found["Settings"]["message"]
    assert not (tmp_path / "new").exists()


def test_a_key_is_found_and_never_shown(run: Run, tmp_path: Path) -> None:
    result = run("doctor", OPENAI_API_KEY="sk-very-secret", OPENAI_BASE_URL="https://gateway.example/v1")
    assert result.returncode == 0, result.stdout
    assert "sk-very-secret" not in result.stdout + result.stderr
    assert "OPENAI_API_KEY" in result.stdout and "gateway.example" in result.stdout


def test_a_chosen_model_without_a_key_fails(run: Run) -> None:
    result = run("doctor", "--json", "--model", "openai/gpt-6-luna")
    assert result.returncode == 3
    assert checks(result)["Models"]["status"] == "fail"
    assert "OPENAI_API_KEY" in checks(result)["Models"]["message"]


def test_migrate_makes_the_schema_and_online_asks_the_model(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json", "--migrate", "--online", "--data-dir", str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "guidance.db").exists()
    assert "schema" in checks(result)["Database"]["message"]
    assert "(simulated)" in checks(result)["Online"]["message"]


def test_a_damaged_database_fails_as_storage(run: Run, tmp_path: Path) -> None:
    (tmp_path / "guidance.db").write_bytes(b"this is no database" * 100)
    result = run("doctor", "--json", "--data-dir", str(tmp_path))
    assert result.returncode == 5
    assert checks(result)["Database"]["status"] == "fail"


def test_the_simulator_serves_until_it_is_stopped(start: Start) -> None:
    process = start("simulator", "--port", "0", "--instant", "--json")
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())
    with urllib.request.urlopen(f"{address['anthropic']}/_simulator/health", timeout=10) as answer:  # noqa: S310
        assert json.load(answer)["simulated"] is True
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


def test_a_port_in_use_is_told(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run("simulator", "--port", port)
    assert result.returncode == 2
    assert port in result.stderr and "Traceback" not in result.stderr

"""The simulator as a process of its own: start, service, end, and what outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from guidance_agent.provider_simulator import (
    SIMULATOR_HEADER,
    SIMULATOR_VERSION,
    Fault,
    ManualClock,
    ProviderSimulator,
    ProviderSimulatorProcess,
    SimulatorSettings,
)
from tests.integration.simulator.conftest import Client

COMMAND = [sys.executable, "-m", "guidance_agent.provider_simulator", "--instant"]
LONG = "Guidance explains the options and their risks without a steer. " * 90
CACHED: dict[str, Any] = {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    port_file = tmp_path / "port"
    with subprocess.Popen([*COMMAND, "--port-file", str(port_file)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port_file.read_text()}"
        child.send_signal(number)
        assert child.wait(5) == 0
        assert child.stdout.read() == ""


def test_a_taken_port_is_said_in_one_sentence(process: ProviderSimulatorProcess) -> None:
    port = process.base_url.rsplit(":", 1)[1]
    done = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "cannot serve on port" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_helper_ends_its_process() -> None:
    with ProviderSimulatorProcess() as running:
        pid = running.pid
        assert running.control("GET", "health")["status"] == "ok"
    assert not psutil.pid_exists(pid)


def test_the_helper_says_when_the_process_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="did not become ready"):
        ProviderSimulatorProcess(["--port", "70000"]).start()


async def test_a_process_serves_faults_and_shows_its_log(process: ProviderSimulatorProcess) -> None:
    process.control("DELETE", "requests")
    process.add_faults(Fault(kind="status", status=500))
    body = {"model": "claude-sonnet-5-5", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
    async with aiohttp.ClientSession(process.base_url) as session:
        for expected in (500, 200):
            async with session.post("/v1/messages", json=body, headers={"x-api-key": "sk-secret-1234"}) as response:
                assert response.status == expected
                assert response.headers[SIMULATOR_HEADER] == SIMULATOR_VERSION
    failed, answered = process.wait_for(2)[-2:]
    assert (failed["status"], failed["fault"]) == (500, "status")
    assert (answered["status"], answered["finished"], answered["body"]) == (200, True, body)
    assert answered["headers"]["x-api-key"] == "***1234"
    assert answered["usage"]["output_tokens"] == 20


async def test_cache_entries_outlive_the_simulator(tmp_path: Path) -> None:
    settings = SimulatorSettings.instant().but(state_path=tmp_path / "deep" / "state.json")
    clock = ManualClock()
    reads = []
    for pause in (0, 200, 301):
        clock.advance(pause)
        async with ProviderSimulator(settings, clock=clock) as running, aiohttp.ClientSession() as session:
            reads.append((await Client(session, running).anthropic(**CACHED)).usage["cache_read_input_tokens"])
    assert reads[0] == 0
    assert reads[1] > 900
    assert reads[2] == 0


async def test_a_killed_process_leaves_its_entries_to_the_next(tmp_path: Path) -> None:
    arguments = ["--instant", "--state", str(tmp_path / "state.json")]
    usage = []
    for _ in range(2):
        with ProviderSimulatorProcess(arguments) as running:
            async with aiohttp.ClientSession(running.base_url) as session:
                body = {"model": "claude-sonnet-5-5", "max_tokens": 5, **CACHED}
                body["messages"] = [{"role": "user", "content": "?"}]
                async with session.post("/v1/messages", json=body, headers={"x-api-key": "k"}) as response:
                    usage.append((await response.json())["usage"])
            if not usage[1:]:
                while not (tmp_path / "state.json").exists():
                    running.control("GET", "health")
                os.kill(running.pid, signal.SIGKILL)
    assert usage[1]["cache_read_input_tokens"] == usage[0]["cache_creation_input_tokens"] > 900


async def test_forgetting_the_cache_also_empties_its_file(tmp_path: Path) -> None:
    settings = SimulatorSettings.instant().but(state_path=tmp_path / "state.json")
    for forget in (False, True, False):
        async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
            usage = (await Client(session, running).anthropic(**CACHED)).usage
            if forget:
                async with session.delete(f"{running.base_url}/_simulator/cache") as response:
                    assert response.status == 200
    assert usage["cache_read_input_tokens"] == 0


async def test_a_damaged_state_file_is_an_empty_cache(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("{ not json")
    async with (
        ProviderSimulator(SimulatorSettings.instant().but(state_path=path)) as running,
        aiohttp.ClientSession() as session,
    ):
        assert (await Client(session, running).anthropic(**CACHED)).status == 200


def test_an_address_is_only_known_while_it_runs() -> None:
    with pytest.raises(RuntimeError, match="no address yet"):
        _ = ProviderSimulator().base_url
    with pytest.raises(RuntimeError, match="not running"):
        _ = ProviderSimulatorProcess().base_url

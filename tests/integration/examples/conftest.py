"""The example backend as a process of its own, in front of a simulator that the test can watch."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest_asyncio

from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.advisor.wiring import AUTHOR, FAST

ROOT = Path(__file__).parents[3]


class Backend(NamedTuple):
    """The running backend and the simulator that it asks."""

    url: str
    process: asyncio.subprocess.Process
    simulator: ProviderSimulator
    data_dir: Path


@pytest_asyncio.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as simulator:
        environ = os.environ | {
            "GUIDANCE_DATA_DIR": str(tmp_path / "data"),
            "GUIDANCE_MODEL": AUTHOR["anthropic"],
            "GUIDANCE_REASONING_MODEL": FAST["anthropic"],
            "ANTHROPIC_BASE_URL": simulator.base_url,
            "ANTHROPIC_API_KEY": "key-of-the-test",
        }
        command = ["-m", "uvicorn", "examples.fastapi_chat:app", "--host", "127.0.0.1", "--port", "0"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env=environ, stderr=asyncio.subprocess.PIPE
        )
        try:
            yield Backend(await _address(process), process, simulator, tmp_path / "data")
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(30):
        async for line in process.stderr:
            said += line
            if found := re.search(rb"http://127\.0\.0\.1:\d+", line):
                return found[0].decode()
    raise AssertionError(f"the backend did not start: {said.decode()}")

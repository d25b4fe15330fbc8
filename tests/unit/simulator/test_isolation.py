"""The simulator judges the rest of the package, so it must not lean on it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import guidance_agent.provider_simulator as simulator

FOLDER = Path(simulator.__file__).parent


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_it_imports_nothing_from_the_rest_of_the_package(path: Path) -> None:
    ours = {name for name in imported(path) if name.split(".")[0] == "guidance_agent"}
    assert {name for name in ours if not name.startswith("guidance_agent.provider_simulator")} == set()


def test_running_it_loads_nothing_from_the_rest_of_the_package() -> None:
    code = (
        "import sys, guidance_agent\n"
        "before = set(sys.modules)\n"
        "import guidance_agent.provider_simulator.server, guidance_agent.provider_simulator.process\n"
        "print([m for m in set(sys.modules) - before if m.startswith('guidance_agent.')"
        " and not m.startswith('guidance_agent.provider_simulator')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_its_settings_and_process_come_without_a_web_server() -> None:
    code = (
        "import sys, guidance_agent.provider_simulator as s\n"
        "s.SimulatorSettings.instant(); s.ProviderSimulatorProcess\n"
        "print('aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "False"


def test_the_public_names_are_these() -> None:
    assert sorted(simulator.__all__) == [
        "Clock",
        "Fault",
        "LatencyProfile",
        "ManualClock",
        "ProviderSimulator",
        "ProviderSimulatorProcess",
        "SIMULATOR_HEADER",
        "SIMULATOR_VERSION",
        "Script",
        "SimulatorSettings",
        "SystemClock",
    ]
    assert all(getattr(simulator, name) is not None for name in simulator.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = simulator.no_such_name

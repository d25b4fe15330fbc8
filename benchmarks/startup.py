"""What it takes to begin: importing the public names, and `guidance-agent ask` from process start to first text.

The floor of each is the bare interpreter of the same run. The simulator is the embedded one at zero latency. Every
process runs from bytecode, as an installed package has it: where `PYTHONDONTWRITEBYTECODE` keeps a checkout without
any, each start would compile the whole package again.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row

__all__ = ["run"]

IMPORT = "from guidance_agent import AdvisorAgent, AdvisorProfile, CustomerProfile"


def _timed(action: Callable[[], object], rounds: int) -> float:
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _environment() -> dict[str, str]:
    left_out = ("_API_KEY", "_BASE_URL", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.endswith(left_out)}


def _python(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, env=_environment())


def _first_text(folder: str, *extra: str) -> float:
    """Seconds from process start to the first byte of text."""
    environment = _environment() | {"GUIDANCE_DATA_DIR": folder, "GUIDANCE_SIMULATOR": "instant"}
    command = [sys.executable, "-m", "guidance_agent.cli.main", "ask", *extra]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        if process.stdout is None or not process.stdout.read(1):
            raise RuntimeError("`guidance-agent ask` printed no text")
        taken = time.perf_counter() - began
        process.stdout.read()
    return taken


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    rounds = 3 if quick else 9
    with tempfile.TemporaryDirectory() as folder:
        _first_text(folder)  # writes the bytecode
    bare = _timed(lambda: _python("pass"), rounds)
    imported = _timed(lambda: _python(IMPORT), rounds) - bare
    with tempfile.TemporaryDirectory() as folder:
        fresh = statistics.median(_first_text(str(Path(folder) / str(number))) for number in range(rounds))
        warm = statistics.median(_first_text(str(Path(folder) / "0")) for _ in range(rounds))
    return [
        _row("import of the public names", imported, bare, "≤ 0.35"),
        _row("process start to first text, warm database", warm, bare, "≤ 1.5"),
        _row("process start to first text, first run with migrations", fresh, bare, "≤ 2.5"),
    ]


def _row(name: str, value: float, floor: float, target: str) -> Row:
    return Row(
        name=name, unit="s", value=round(value, 3), floor=round(floor, 3), ratio=round(value / floor, 1), target=target
    )

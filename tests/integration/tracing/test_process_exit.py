"""A process that has answered ends soon, whatever its collector does, and loses nothing to one that is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.collector import Collector, black_hole, free_port

EXIT_SECONDS, OURS = 3.0, 2.4
"""What a process may take to end, and how much of that tracing may take; on a busy machine the rest takes longer."""
CHILD = Path(__file__).with_name("exit_child.py")


def run_child(data_dir: Path, url: str | None, how: str = "closes") -> tuple[float, str]:
    """Return how many seconds the child took to end after its answer, and what it told the log."""
    environ = {**os.environ, **({} if url is None else {"OTEL_EXPORTER_OTLP_ENDPOINT": url})}
    result = subprocess.run(
        [sys.executable, str(CHILD), str(data_dir), how], capture_output=True, text=True, env=environ, timeout=50
    )
    ended = time.time()
    assert result.returncode == 0, result.stderr
    return ended - float(result.stdout.split()[-1]), result.stderr


@pytest.mark.parametrize("how", ["closes", "raises"])
def test_what_has_ended_arrives_before_the_process_is_gone(how: str, tmp_path: Path) -> None:
    with Collector() as collector:
        run_child(tmp_path, collector.url, how)
        assert len(collector.named("more")) == 300
        (root,), (answer,) = collector.named("turn"), collector.named("guidance")
        assert answer.parent_id == root.span_id


@pytest.mark.parametrize("how", ["closes", "raises"])
@pytest.mark.parametrize("kind", ["away", "silent", "slow", "refusing"])
def test_no_collector_keeps_a_process_for_long(kind: str, how: str, tmp_path: Path) -> None:
    with Collector() as collector, black_hole() as hole:
        collector.delay = 60.0 if kind == "slow" else 0.0
        collector.status = 401 if kind == "refusing" else 200
        url = {"away": f"http://127.0.0.1:{free_port()}", "silent": hole}.get(kind, collector.url)
        without, _ = run_child(tmp_path / "without", None, how)
        took, told = run_child(tmp_path / "with", url, how)
    assert took <= max(EXIT_SECONDS, 1.5 * without + OURS)
    assert told.count("Traces cannot be delivered") + told.count("Traces are refused") <= 1
    assert "Traceback" not in told

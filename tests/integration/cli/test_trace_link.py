"""`guidance-agent ask` says where the trace of its answer is, to people only and only where a Phoenix has it."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from tests.integration.cli.conftest import COMMAND, scrubbed
from tests.integration.cli.test_trace import Backend

QUESTION = "Can I take my pension at 55?"


def told_beside_the_answer(folder: Path, **environment: str) -> list[str]:
    """Ask as somebody at a terminal does, and return the lines that stand beside the answer."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, "ask", QUESTION],
            env=scrubbed(folder, **environment),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, told = process.communicate(timeout=50)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, told
    return told.splitlines()


def test_the_page_of_the_trace_is_named_at_the_end(tmp_path: Path) -> None:
    with Backend() as backend:
        lines = told_beside_the_answer(tmp_path, GUIDANCE_TRACE__ENDPOINT=backend.url)
    (link,) = [line for line in lines if line.startswith("Trace: ")]
    assert link.startswith(f"Trace: {backend.url}/redirects/traces/")
    assert len(link.rpartition("/")[2]) == 32
    assert lines[-1].startswith("Next: ")


def test_no_page_is_named_where_there_is_none(tmp_path: Path) -> None:
    with Backend() as backend:
        backend.is_phoenix = False
        assert "Trace: " not in "\n".join(told_beside_the_answer(tmp_path, GUIDANCE_TRACE__ENDPOINT=backend.url))
    assert "Trace: " not in "\n".join(told_beside_the_answer(tmp_path))

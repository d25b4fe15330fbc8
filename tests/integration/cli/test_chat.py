"""`guidance-agent chat`: piped and at a terminal, one consultation whose history is what was delivered."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guidance_agent.testing import scripted_simulator

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

TURNS = "select consultation_id, ordinal, state, delivered_length from turns order by started_at"


def test_piped_questions_continue_one_consultation(run: Run, rows: Rows) -> None:
    result = run("chat", "--json", stdin="Can I take it all?\n\nWhat about tax?\n/new\nAnd my State Pension?\n")
    assert result.returncode == 0
    started = [json.loads(line) for line in result.stdout.splitlines() if '"turn_started"' in line]
    turns = rows(TURNS)
    assert [turn["ordinal"] for turn in turns] == [1, 2, 1]
    assert turns[0]["consultation_id"] == turns[1]["consultation_id"] != turns[2]["consultation_id"]
    assert [event["consultation_id"] for event in started] == [turn["consultation_id"] for turn in turns]


def test_usage_is_told_when_asked_for(run: Run) -> None:
    result = run("chat", stdin="Can I take it all?\n/usage\n/quit\nNever asked\n")
    assert result.returncode == 0
    assert "1 answer · " in result.stderr
    assert "not charged" in result.stderr


def test_an_empty_input_is_an_error(run: Run) -> None:
    result = run("chat", stdin="\n")
    assert result.returncode == 2
    assert "no question" in result.stderr


class Terminal:
    """A child process whose input and output are a terminal."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._file, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "guidance_agent.cli.main", "chat"],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._file)

    def wait_for(self, words: str, *, after: int = 0, within: float = 20.0) -> int:
        """Read until `words` are shown behind position `after`; returns the position behind them."""
        deadline = time.monotonic() + within
        while words not in self.seen[after:]:
            ready, _, _ = select.select([self._file], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{words!r} was not shown: {self.seen!r}"
            self.seen += os.read(self._file, 65_536).decode(errors="replace")
        return self.seen.index(words, after) + len(words)

    def type(self, keys: str) -> None:
        os.write(self._file, keys.encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        return self._process.wait(20)


def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on(rows: Rows, data_dir: Path) -> None:
    pieces = [f"Line {number}.\n" for number in range(60)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUIDANCE_")}
    with scripted_simulator(pieces=pieces, interval_ms=15) as scripted:
        environment = {**kept, **scripted.env, "GUIDANCE_DATA_DIR": str(data_dir), "TERM": "dumb"}
        with Terminal(environment) as terminal:
            terminal.wait_for("Janet> ")
            terminal.type("First question\n")
            terminal.wait_for("Line 3.")
            terminal.interrupt()
            prompt = terminal.wait_for("Janet> ", after=terminal.wait_for("Stopped."))
            terminal.type("Second question\n")
            terminal.wait_for("Janet> ", after=terminal.wait_for("Line 59.", after=prompt))
            terminal.type("\x04")
            terminal.wait_for("In all: 1 answer")
            status = terminal.end()
    first, second = rows(TURNS)[-2:]
    assert status == 0
    assert (first["state"], second["state"]) == ("closed_early", "completed")
    assert first["consultation_id"] == second["consultation_id"]
    assert 0 < first["delivered_length"] < second["delivered_length"]

"""`guidance-agent ask --simulate-breach` shows a breach withheld and a correction delivered, and asks no real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

BREACH = "If I were you, I would take the whole pot out now."


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guidance_agent.cli.main", "ask", "--simulate-breach", *arguments]
    environment = {**os.environ, "GUIDANCE_SIMULATOR": "instant", **variables}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=55, check=False
    )


def test_the_breach_is_withheld_behind_the_gate_and_corrected_without_it(tmp_path: Path) -> None:
    scripted = (resources.files("guidance_agent.cli") / "demonstrations" / "breach.txt").read_text(encoding="utf-8")
    assert BREACH in scripted
    done = run(GUIDANCE_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    behind, without = done.stdout.strip().split("\n", 1)
    assert BREACH not in behind
    assert BREACH in without
    told = done.stderr
    assert told.startswith("Demonstration:")
    assert f"Withheld (advice_boundary): {BREACH}" in told
    assert "Shown instead:" in told
    assert "Correction:" in told[told.index("2. Without the gate") :]
    assert not (tmp_path / "data" / "guidance.db").exists()


def test_the_events_of_both_answers_can_be_read_by_a_program() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    turns = list(dict.fromkeys(event["turn_id"] for event in events))
    assert len(turns) == 2
    withheld = [event for event in events if event["type"] == "withheld"]
    assert withheld and {event["turn_id"] for event in withheld} == {turns[0]}
    assert BREACH not in json.dumps([event for event in events if event["turn_id"] == turns[0]])


def test_a_real_provider_is_never_told_to_break_the_rules() -> None:
    done = run(ANTHROPIC_API_KEY="no-real-key")
    assert done.returncode == 3
    assert "--simulate-breach works with the embedded simulator only" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""

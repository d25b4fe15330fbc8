"""`guidance-agent rules`, as processes, over an answer that really failed and that a person upheld as failed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.testing import scripted_simulator

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

STEER = "If I were you, I would take the whole pot out now."


@pytest.fixture(scope="module")
def failed(run: Run, rows: Rows) -> str:
    """The id of a turn that was shown, failed, and was upheld as failed."""
    with scripted_simulator(text=f"You can leave the pot invested. {STEER}") as scripted:
        environment = {name: value for name, value in scripted.env.items() if name != "GUIDANCE_DATA_DIR"}
        environment["GUIDANCE_GATE__MODE"] = "off"
        assert run("ask", "--persona", "janet", "-q", **environment).returncode == 0
        assert run("worker", "--once", "-q", **environment).returncode == 0
    (turn,) = rows("select id, simulated from turns")
    by = ("--reviewer", "A. Patel", "--reason", "It steers.")
    assert run("review", "decide", turn["id"], "uphold", *by).returncode == 0
    return str(turn["id"])


def in_json(run: Run, *arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_before_anything_is_on_record_there_is_no_rule_and_nothing_is_made(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    listed = run("rules", "list", "--data-dir", str(folder))
    assert (listed.returncode, listed.stdout) == (0, "Version 0 is in force.\nNo such rule.\n")
    for command in (("show", "rule_x"), ("rollback", "1")):
        result = run("rules", *command, "--data-dir", str(folder))
        assert result.returncode == ExitCode.USAGE
        assert "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.timeout(180)
def test_a_failure_is_learned_from_once_released_and_rolled_back(run: Run, failed: str) -> None:
    (learned,) = in_json(run, "rules", "learn")["learned"]
    assert (learned["turn_id"], learned["simulated"], learned["outcome"]) == (failed, True, "draft")
    assert in_json(run, "rules", "learn")["learned"] == []
    assert "no failure" in run("rules", "learn").stdout

    (rule,) = in_json(run, "rules", "list")["rules"]
    assert (rule["id"], rule["status"], rule["failures"]) == (learned["rule_id"], "draft", [failed])
    assert "(simulated)" in run("rules", "list").stdout
    shown = in_json(run, "rules", "show", rule["id"])
    assert [step["step"] for step in shown["evidence"][0]["steps"]] == ["reflect", "validate", "refine", "value"]
    assert f"From turn {failed} (review)" in run("rules", "show", rule["id"]).stdout

    made = in_json(run, "rules", "release", "--note", "first")
    assert (made["version"], made["added"], made["questions"]) == (1, [rule["id"]], 13)
    assert run("rules", "release").stdout == "There is nothing to release.\n"
    assert in_json(run, "rules", "list", "--status", "released")["version"] == 1

    assert run("rules", "rollback", "0").stdout == "Version 2 has 0 rules: back to version 0.\n"
    assert in_json(run, "rules", "list", "--status", "released")["rules"] == []
    assert "no version 9" in run("rules", "rollback", "9").stderr

"""`guidance-agent check` judges any text by the rules of the gate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STEER = "If I were you, I would take the whole pot out now."
PLAIN = "A provider sends a statement once a year."


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guidance_agent.cli.main", "check", *arguments]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )


def test_every_line_is_a_text_of_its_own() -> None:
    done = run("--lines", text=f"{PLAIN}\n{STEER}\n\nÇa va? {STEER}")
    assert done.returncode == 0, done.stderr
    first, second, empty, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert (first["decision"], first["cued"], first["findings"]) == ("pass", False, [])
    assert (second["decision"], second["cued"]) == ("replace", True)
    assert (empty["decision"], last["decision"]) == ("pass", "replace")
    for verdict, text in ((second, STEER), (last, f"Ça va? {STEER}")):
        assert verdict["findings"]
        for found in verdict["findings"]:
            assert text[found["start"] : found["end"]] == found["cue"]
            assert found["check"] and found["requirement"]
            assert 0 <= found["score"] <= 3


def test_a_file_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "answer.txt").write_text(f"{PLAIN}\n\n{STEER}\n", encoding="utf-8")
    done = run(str(tmp_path / "answer.txt"), "--json")
    assert json.loads(done.stdout)["decision"] == "replace"
    told = run(str(tmp_path / "answer.txt"))
    assert told.stdout.startswith("replace")
    assert "advice_boundary" in told.stdout


def test_a_wrong_figure_is_found_and_a_right_one_passes() -> None:
    right, wrong = "The annual allowance is £60,000.", "The annual allowance is £50,000."
    first, second = [json.loads(line) for line in run("--lines", text=f"{right}\n{wrong}\n").stdout.splitlines()]
    assert (first["decision"], first["cued"]) == ("pass", False)
    assert second["decision"] == "replace"
    (found,) = [each for each in second["findings"] if each["score"] > 0]
    assert found["check"].startswith("figure_")
    assert wrong[found["start"] : found["end"]] == "£50,000"


def test_a_greeting_is_no_decision_point() -> None:
    greeting, choice = (
        json.loads(line)
        for line in run(
            "--lines", text="Good morning, Janet.\nYour pot can buy an annuity or stay invested in drawdown.\n"
        ).stdout.splitlines()
    )
    assert not greeting["decision_point"]
    assert choice["decision_point"]


@pytest.mark.parametrize("text", ["", "\x00\x00", "‮‭", "🙂" * 500, "<p>If</p>", "“" * 300])
def test_odd_text_is_judged_without_a_crash(text: str) -> None:
    done = run("--json", text=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decision"] == "pass"


def test_a_file_that_is_not_there_is_a_clear_error() -> None:
    done = run("no-such-file.txt")
    assert done.returncode == 5
    assert "no-such-file.txt" in done.stderr
    assert "Traceback" not in done.stderr

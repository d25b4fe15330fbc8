"""`guidance-agent review` and `guidance-agent audit`, as processes, over an answer that really failed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.testing import scripted_simulator

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

STEER = "If I were you, I would take the whole pot out now."
BY = ("--reviewer", "A. Patel", "--reason", "It steers.")


@pytest.fixture(scope="module")
def failed(run: Run, rows: Rows) -> Iterator[str]:
    """The id of a turn whose answer was shown and then failed."""
    with scripted_simulator(text=f"You can leave the pot invested. {STEER}") as scripted:
        environment = {name: value for name, value in scripted.env.items() if name != "GUIDANCE_DATA_DIR"}
        environment["GUIDANCE_GATE__MODE"] = "off"
        asked = run("ask", "--persona", "janet", "-q", **environment)
        assert (asked.returncode, STEER in asked.stdout) == (0, True), asked.stderr
        judged = run("worker", "--once", "-q", **environment)
        assert judged.returncode == 0, judged.stderr
    (turn,) = rows("select id, judgement from turns")
    assert turn["judgement"] == "failed"
    yield turn["id"]


def in_json(run: Run, *arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(result: subprocess.CompletedProcess[str], *told: str) -> None:
    assert result.returncode == ExitCode.USAGE
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for words in told:
        assert words in result.stderr


def test_before_anything_is_on_record_nothing_waits_and_nothing_is_made(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    listed = run("review", "list", "--data-dir", str(folder))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "Nothing waits" in listed.stdout
    for command in (
        ("audit", "show", "turn_x"),
        ("review", "show", "review_x"),
        ("review", "decide", "review_x", "uphold", *BY),
    ):
        refused(run(*command, "--data-dir", str(folder)), "_x'", str(folder))
    assert not folder.exists()


@pytest.mark.timeout(180)
def test_a_failed_answer_goes_through_the_queue_to_a_decision(run: Run, failed: str) -> None:
    (waiting,) = in_json(run, "review", "list")["reviews"]
    assert (waiting["turn_id"], waiting["cause"], waiting["status"]) == (failed, "fail", "open")
    assert waiting["simulated"] is True
    listed = run("review", "list").stdout
    assert waiting["id"] in listed and "simulated" in listed and "advice_boundary" in listed

    shown = in_json(run, "review", "show", waiting["id"])
    assert STEER in shown["answer"]
    assert shown["verdict"]["passed"] is False
    text = run("review", "show", failed)
    assert text.returncode == 0
    assert STEER in text.stdout and f"guidance-agent audit show {failed}" in text.stdout

    claimed = in_json(run, "review", "claim", waiting["id"], "--reviewer", "A. Patel")
    assert (claimed["status"], claimed["claimed_by"]) == ("claimed", "A. Patel")
    refused(run("review", "claim", waiting["id"], "--reviewer", "B. Jones"), "A. Patel", "--take-over")
    assert in_json(run, "review", "list", "--status", "open")["reviews"] == []

    decided = in_json(run, "review", "decide", waiting["id"], "uphold", "--check", "scam", *BY)
    assert (decided["decision"], decided["decided_by"], decided["judgement"]) == ("uphold", "A. Patel", "failed")
    refused(run("review", "decide", waiting["id"], "approve", *BY), "--again")
    again = run("review", "decide", failed, "approve", "--again", *BY)
    assert (again.returncode, again.stderr) == (0, "")
    assert "passed" in again.stdout
    assert in_json(run, "review", "list")["reviews"] == []
    (kept,) = in_json(run, "review", "list", "--status", "all", "--cause", "fail", "-r", "A. Patel")["reviews"]
    assert (kept["status"], kept["decision"], kept["judgement"]) == ("decided", "approve", "passed")


def test_the_evidence_behind_an_answer_is_shown_and_holds(run: Run, failed: str) -> None:
    bundle = in_json(run, "audit", "show", failed)
    assert bundle["turn"]["id"] == failed
    assert bundle["deterministic"]["outcome"] == "identical"
    assert STEER in bundle["answer"]["text"]
    once, again = (run("audit", "show", failed, "--json").stdout for _ in range(2))
    assert once == again
    text = run("audit", "show", failed)
    assert (text.returncode, text.stderr) == (0, "")
    for told in ("SIMULATED", "Question", "Total cost", "UTC", "byte for byte", "advice boundary: fail", STEER):
        assert told in text.stdout
    assert "\x1b" not in text.stdout


def test_records_that_contradict_themselves_end_with_a_status_of_their_own(
    run: Run, failed: str, data_dir: Path, tmp_path: Path
) -> None:
    import sqlite3

    with sqlite3.connect(data_dir / "guidance.db") as source, sqlite3.connect(tmp_path / "guidance.db") as copy:
        source.backup(copy)
        copy.execute("update turn_events set text = replace(text, 'I would take', 'you might take')")
    source.close()
    copy.close()
    result = run("audit", "show", failed, "--data-dir", str(tmp_path))
    assert result.returncode == ExitCode.DEFECT
    assert "contradict" in result.stderr and "Traceback" not in result.stderr
    assert "ANOTHER ONE" in result.stdout


def test_what_does_not_exist_is_named(run: Run, failed: str) -> None:
    refused(run("audit", "show", "turn_unknown"), "'turn_unknown'")
    refused(run("review", "show", "review_unknown"), "'review_unknown'", "review list")
    refused(run("review", "decide", "review_unknown", "uphold", *BY), "'review_unknown'")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--status", "lost"),
        ("list", "--cause", "mood"),
        ("list", "--since", "yesterday"),
        ("list", "--limit", "0"),
        ("decide", "review_x", "maybe", *BY),
        ("decide", "review_x", "uphold", "--reviewer", "A"),
        ("decide", "review_x", "uphold", "--reason", "r"),
        ("decide", "review_x", "uphold", "--check", "mood", *BY),
        ("claim", "review_x"),
        ("show",),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    refused(run("review", *arguments), "Error")


def test_an_empty_reason_is_refused(run: Run, failed: str) -> None:
    refused(run("review", "decide", failed, "uphold", "--again", "--reviewer", "A", "--reason", " "), "reason")


def test_without_a_command_the_commands_are_shown(run: Run) -> None:
    for group, commands in (("review", ("list", "show", "claim", "decide")), ("audit", ("show",))):
        result = run(group)
        assert result.returncode == 0
        assert all(command in result.stdout for command in commands)

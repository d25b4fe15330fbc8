"""`guidance-agent ask`, from the process's start to its exit status and the records."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from guidance_agent.testing import scripted_simulator

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

LAST_TURN = "select * from turns order by started_at desc limit 1"
SHOWN = "select text from turn_events where turn_id = '{}' and type = 'text_delta' order by sequence"
LONG = [f"Sentence {number} of a long answer.\n" for number in range(400)]


@pytest.fixture(scope="module")
def as_text(run: Run) -> subprocess.CompletedProcess[str]:
    return run("ask", "Can I take it all at once?")


@pytest.fixture(scope="module")
def as_json(run: Run, as_text: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    return run("ask", "--persona", "dev", "--json", "--all-events")


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_answer_is_all_that_stands_on_standard_output(
    as_text: subprocess.CompletedProcess[str], rows: Rows
) -> None:
    turn = rows("select id from turns where question = 'Can I take it all at once?'")[0]
    assert as_text.returncode == 0
    assert as_text.stdout == "".join(row["text"] for row in rows(SHOWN.format(turn["id"]))) + "\n"


def test_a_simulated_answer_says_so_once_and_how_to_get_a_real_one(as_text: subprocess.CompletedProcess[str]) -> None:
    assert as_text.stderr.count("Simulated:") == 1
    assert "ANTHROPIC_API_KEY" in as_text.stderr
    assert len(as_text.stderr.splitlines()) == 2


def test_public_events_are_numbered_without_gaps(as_json: subprocess.CompletedProcess[str]) -> None:
    public = [event for event in lines(as_json) if event.get("public", True)]
    assert [event["sequence"] for event in public] == list(range(len(public)))
    assert public[0]["type"] == "turn_started"
    assert public[-1]["type"] == "completed"


def test_the_text_deltas_join_to_the_completed_text(as_json: subprocess.CompletedProcess[str]) -> None:
    events = lines(as_json)
    joined = "".join(event["text"] for event in events if event["type"] == "text_delta")
    assert joined == events[-1]["text"] != ""


def test_private_events_are_marked(as_json: subprocess.CompletedProcess[str]) -> None:
    private = {event["type"] for event in lines(as_json) if event.get("public") is False}
    assert private == {"context_retrieved", "reasoning_delta"}


def test_a_second_run_uses_the_same_records(as_json: subprocess.CompletedProcess[str], rows: Rows) -> None:
    assert {row["customer_id"] for row in rows("select customer_id from consultations")} >= {"janet-56", "dev-61"}


def test_a_customer_file_and_a_question_on_standard_input_are_used(run: Run, rows: Rows, tmp_path: Any) -> None:
    file = tmp_path / "customer.yaml"
    file.write_text("customer_id: c-77\nage: 61\n")
    result = run("ask", "-", "--customer", str(file), "--no-reasoning", "--json", stdin="What is an annuity?\n")
    assert result.returncode == 0
    assert rows(LAST_TURN)[0]["question"].strip() == "What is an annuity?"
    assert {event["type"] for event in lines(result)} == {"turn_started", "text_delta", "completed"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_answer_and_keeps_what_was_shown(start: Start, rows: Rows, number: signal.Signals) -> None:
    with scripted_simulator(pieces=LONG, interval_ms=20) as scripted:
        process = start("ask", "Tell me a lot", **{**scripted.env, "GUIDANCE_DATA_DIR": _folder(rows)})
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        shown = first + process.stdout.read()
        assert process.wait(20) == 130
    turn = rows(LAST_TURN)[0]
    recorded = "".join(row["text"] for row in rows(SHOWN.format(turn["id"])))
    assert turn["state"] == "closed_early"
    assert shown == recorded[: turn["delivered_length"]]
    assert 0 < turn["delivered_length"] < sum(map(len, LONG))


def test_a_closed_pipe_ends_the_answer_quietly(start: Start, rows: Rows) -> None:
    with scripted_simulator(pieces=LONG, interval_ms=20) as scripted:
        process = start("ask", "Tell me a lot", "-q", **{**scripted.env, "GUIDANCE_DATA_DIR": _folder(rows)})
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(20) == 0
    assert "Traceback" not in said and "Error" not in said
    assert rows(LAST_TURN)[0]["state"] == "closed_early"


def _folder(rows: Rows) -> str:
    database = rows("select file from pragma_database_list")[0]["file"]
    return str(database).removesuffix("/guidance.db")

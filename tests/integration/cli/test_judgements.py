"""What the command line says of verdicts: after an answer, in a conversation, and of answers that have none yet."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

JUDGES = {"GUIDANCE_BACKGROUND": "true"}


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_ask_tells_the_verdict_as_the_next_event(run: Run, rows: Rows) -> None:
    result = run("ask", "--json", "--no-reasoning", **JUDGES)
    assert result.returncode == 0
    events = lines(result)
    assert [event["sequence"] for event in events] == list(range(len(events)))
    judged = next(event for event in events if event["type"] == "judged")
    stored = {row["id"]: row for row in rows("select * from verdicts")}[judged["verdict_id"]]
    assert json.loads(stored["verdict"]) == judged["verdict"]
    states = {row["id"]: row["judgement"] for row in rows("select id, judgement from turns")}
    assert states[judged["turn_id"]] == ("passed" if judged["verdict"]["passed"] else "failed")


def test_chat_tells_the_verdict_on_each_answer(run: Run) -> None:
    result = run("chat", "--json", "--no-reasoning", stdin="What is drawdown?\nAnd the tax?\n", **JUDGES)
    assert result.returncode == 0
    kinds = [event["type"] for event in lines(result) if event["type"] in ("completed", "judged")]
    assert kinds == ["completed", "judged"] * 2


def test_an_answer_that_is_not_judged_here_is_in_the_backlog_until_a_worker_comes(run: Run, rows: Rows) -> None:
    assert run("ask", "--no-reasoning").returncode == 0
    assert "1 answers wait for their verdict" in run("doctor").stdout
    worked = run("worker", "--once", "--json")
    assert (worked.returncode, lines(worked)[0]["judged"]) == (0, 1)
    assert "0 answers wait for their verdict" in run("doctor").stdout
    assert rows("select count(*) as number from turns where judgement = 'pending'")[0]["number"] == 0

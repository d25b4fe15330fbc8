"""`guidance-agent insights`: the report of a day, its forms, and what the status says."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer

from guidance_agent import Settings
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.insights import insights
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.insight_counts import DayCounts, RuleEffect, VerdictRate, VersionRate
from guidance_agent.core.schema import consultations, insight_reports, turns
from guidance_agent.errors import FileWriteError

Run = Callable[..., "subprocess.CompletedProcess[str]"]

DAY = "2026-11-20"
COUNTS = DayCounts(
    consultations=1_200,
    turns=1_500,
    simulated_turns=0,
    states={"completed": 1_499, "failed": 1},
    judgements={"passed": 1_400, "failed": 100},
    failed_checks={"advice_boundary": 90, "figures": 10},
    errors={"ProviderTimeoutError": 1},
    gate_actions={"withheld": {"advice_boundary": 7}, "closing": {"": 3}},
    outcomes={"open": 1_200},
    corrections=4,
    reviews=0,
    read=1_198,
    topics={"tax": 700, "taking_money": 500},
    causes={"agreed_with_customer": 60},
    versions=(VersionRate(version=0, rate=VerdictRate(passed=80, failed=20)),),
    rules=(
        RuleEffect(
            rule_id="r1",
            text="When a customer leans one way, set out both sides.",
            with_rule=VerdictRate(passed=99, failed=1),
            without_rule=VerdictRate(),
        ),
    ),
)
WORDS: dict[str, Any] = {
    "summary": "Tax on cash was the subject of the day.",
    "topics": [{"topic": "tax", "words": "Many feared <b>emergency</b> tax.", "evidence": ["c1", "c2", "c3", "c4"]}],
    "misunderstandings": [
        {"topic": "tax", "words": "The tax-free share is taken for a yearly one | again.", "evidence": ["c1", "c2"]}
    ],
    "causes": [{"cause": "agreed_with_customer", "words": "Replies praised plans.", "evidence": ["c9"]}],
}


@pytest.fixture
def folder(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDANCE_DATA_DIR", str(settings.data_dir))
    return settings.data_dir


def store(settings: Settings, *statements: sa.Executable) -> None:
    async def work() -> None:
        async with Database(database_url(settings)) as database:

            def write(connection: sa.Connection) -> None:
                for statement in statements:
                    connection.execute(statement)

            await database.transaction(write)

    asyncio.run(work())


def report(**values: Any) -> sa.Executable:
    row: dict[str, Any] = {
        "id": "insight_1", "day": DAY, "revision": 1, "fingerprint": "f", "note_ids": ["n1", "n2"], "stage": "ended",
        "outcome": "written", "counts": COUNTS.model_dump(mode="json"), "words": WORDS, "refused": 2,
        "model": "some/model", "cost_usd": 0.25, "simulated": False, "created_at": datetime(2026, 11, 21, tzinfo=UTC),
        "ended_at": datetime(2026, 11, 21, 3, tzinfo=UTC),
    }  # fmt: skip
    return sa.insert(insight_reports).values(**row | values)


def turn(day: date) -> tuple[sa.Executable, sa.Executable]:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return (
        sa.insert(consultations).values(
            id="c", customer_id="x", advisor_id="a", opened_at=at, profile={}, transcript_hash="h", turn_count=1,
            outcome="open", simulated=True,
        ),
        sa.insert(turns).values(
            id="t", consultation_id="c", ordinal=0, state="completed", question="?", model="m", simulated=True,
            owner="o", lease_until=0.0, started_at=at, ended_at=at, last_sequence=1, context={},
        ),
    )  # fmt: skip


def test_the_newest_report_is_shown_with_counts_words_and_consultations(
    settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(settings, report(), report(id="insight_2", revision=2, fingerprint="g", refused=0))
    assert insights() == ExitCode.DONE
    shown = capsys.readouterr().out
    for words in (
        "Friday 20 November 2026",
        "Revision 2; 1,200 consultations; 1,500 turns; 1,198 of 1,200 consultations read; words by some/model.",
        "Tax on cash was the subject of the day.",
        "c1, c2, c3 and 1 more",
        "Agreed with the customer",
        "Advice boundary",
        "When a customer leans one way, set out both sides.",
        "no proof",
    ):
        assert words in shown
    assert "For people" not in shown.partition("FOR PEOPLE")[0]


def test_json_has_everything_and_nothing_else(
    settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(settings, report())
    assert insights(day=DAY, as_json=True) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == COUNTS.model_dump(mode="json")
    assert told["words"] == WORDS
    assert (told["day"], told["revision"], told["statements_left_out"], told["cost_usd"]) == (DAY, 1, 2, 0.25)


def test_words_are_no_marks_of_markdown(settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(settings, report())
    assert insights(markdown=True) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# Insights: Friday 20 November 2026"
    (row,) = [line for line in lines if "yearly one" in line]
    assert row == r"| The tax-free share is taken for a yearly one \| again. | Tax | 2 | c1, c2 |"
    assert any(r"\<b\>emergency\</b\>" in line for line in lines)


def test_a_page_is_written_whole_and_no_word_of_a_model_is_markup(
    settings: Settings, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(settings, report(simulated=True))
    file = tmp_path / "insights.html"
    assert insights(html=file) == ExitCode.DONE
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    assert "<b>" not in page
    assert "&lt;b&gt;emergency" in page
    assert "<svg" in page
    assert "says nothing about customers" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert capsys.readouterr().out == f"{file}\n"


def test_a_page_that_cannot_be_written_is_told(settings: Settings, folder: Path, tmp_path: Path) -> None:
    store(settings, report())
    with pytest.raises(FileWriteError, match="Name a file"):
        insights(html=tmp_path / ("x" * 300))


def test_a_report_without_words_needs_a_person(
    settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(settings, report(outcome="counts_only", words=None, reason="invalid: no JSON", model=None))
    assert insights() == ExitCode.NEEDS_PERSON
    shown = capsys.readouterr()
    assert "There are counts and no words. invalid: no JSON" in shown.out
    assert "could not be put into words" in shown.err


def test_what_is_not_ready_is_told_with_a_status_that_says_try_later(
    settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yesterday = SystemClock().today() - timedelta(days=1)
    store(settings, *turn(yesterday))
    assert insights() == ExitCode.TRY_LATER
    assert "guidance-agent batch nightly" in capsys.readouterr().out
    store(settings, report(day=yesterday.isoformat(), stage="reading", outcome=None, counts=None, words=None))
    assert insights(as_json=True) == ExitCode.TRY_LATER
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "day": None,
        "report": None,
        "reason": f"The report on {yesterday.isoformat()} is being made: 0 of 2 consultations are read.",
    }
    assert insights(day=SystemClock().today().isoformat()) == ExitCode.TRY_LATER
    assert "not over" in capsys.readouterr().out


def test_a_day_without_consultations_is_no_failure(
    settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert insights() == ExitCode.DONE
    assert "Nothing is on record" in capsys.readouterr().out
    store(settings)
    assert insights(day="2026-01-01") == ExitCode.DONE
    assert capsys.readouterr().out == "There were no consultations on 2026-01-01.\n"


@pytest.mark.parametrize(
    "wrong",
    [{"day": "yesterday"}, {"day": "2999-01-01"}, {"as_json": True, "markdown": True}, {"html": Path("/no/such/x")}],
    ids=str,
)
def test_wrong_use_is_told(wrong: dict[str, Any], folder: Path) -> None:
    with pytest.raises(typer.BadParameter):
        insights(**wrong)


def test_the_command_is_there_with_its_statuses(run: Run) -> None:
    helped = run("insights", "--help")
    assert helped.returncode == 0
    assert "75   try later" in helped.stdout
    wrong = run("insights", "--day", "soon")
    assert (wrong.returncode, wrong.stdout) == (ExitCode.USAGE, "")
    assert "2026-11-20" in wrong.stderr

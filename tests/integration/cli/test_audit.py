"""`guidance-agent audit run` and `report`: what they tell, in which forms, and with which exit status."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.async_api import async_playwright, expect
from typer import TyperException
from typer.testing import CliRunner

from guidance_agent import Runtime, Settings
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.main import app
from guidance_agent.compliance.audit import AuditPlan
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.schema import verdicts
from guidance_agent.errors import InputError, UnknownAuditError
from tests.integration.advisor.auditing import STEER, add_turn
from tests.integration.cli.conftest import scrubbed
from tests.integration.compliance.judging import REPLY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

Audit = Callable[..., tuple[int, str]]


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Run a command in this process: exit status and standard output."""
    for name, value in scrubbed(tmp_path / "data").items():
        monkeypatch.setenv(name, value)

    def run_command(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["audit", *arguments], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return int(result.return_value or 0), result.stdout

    return run_command


def settings_of(tmp_path: Path) -> Settings:
    return Settings.load(data_dir=tmp_path / "data", simulator="instant", background=False)


@pytest.fixture
def delivered(tmp_path: Path) -> None:
    """Three answers on record, one of which the live verdict let pass and the rules do not."""

    async def add() -> None:
        async with Runtime(settings_of(tmp_path), environ={}) as runtime:
            await add_turn(runtime, "turn-a", simulated=True)
            await add_turn(runtime, "turn-b", simulated=True, days=7)
            await add_turn(runtime, "turn-c", simulated=True, days=14, text=f"{REPLY} Winnie, {STEER}")

    asyncio.run(add())


def in_json(told: tuple[int, str]) -> Any:
    return json.loads(told[1])


def test_looking_makes_no_records(audit: Audit, tmp_path: Path) -> None:
    assert audit("report")[1].startswith("Nothing is on record")
    assert audit("report", "--json") == (0, "null\n")
    with pytest.raises(UnknownAuditError):
        audit("report", "--run", "audit_x")
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("delivered")
def test_answers_are_audited_once_and_a_person_is_asked_about_the_one_that_failed(audit: Audit, tmp_path: Path) -> None:
    code, told = audit("run", "--wait", "20", "--json")
    assert code == ExitCode.DONE
    run = json.loads(told)["run"]
    assert (run["turns"], run["waiting"], run["outcomes"]) == (3, 0, {"failed": 1, "passed": 2})
    assert run["simulated"]
    assert audit("run", "--wait", "20") == (0, "There is nothing new to audit.\n")

    code, told = audit("report", "--json")
    assert code == ExitCode.NEEDS_PERSON
    report = json.loads(told)
    assert report["total"]["failed"] == 1
    assert report["reviews"] == {"open": 1}
    assert list(report["by"]["week"]) == ["2026-W45", "2026-W46", "2026-W47"]
    (turn,) = report["disagreements"]
    assert (turn["turn_id"], turn["first"], turn["audit"]) == ("turn-c", "passed", "failed")
    (check,) = [each for each in turn["checks"] if each["check"] == "advice_boundary"]
    assert STEER[:20] in check["statements"][0]["quote"]

    code, told = audit("report", "--since", "2026-11-09", "--until", "2026-11-09", "--json")
    assert (code, json.loads(told)["total"]["audited"]) == (0, 1)
    assert audit("report", "--run", run["id"])[0] == ExitCode.NEEDS_PERSON
    page = tmp_path / "audit.html"
    assert audit("report", "--html", str(page)) == (ExitCode.NEEDS_PERSON, f"{page}\n")
    assert "turn-c" in page.read_text(encoding="utf-8")
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["audit.html"]


@pytest.mark.usefixtures("delivered")
def test_personal_data_is_told_where_it_was_asked_for_only(audit: Audit, tmp_path: Path) -> None:
    audit("run", "--wait", "20")

    async def tell_of_winnie() -> None:
        query = sa.select(verdicts.c.id, verdicts.c.verdict).where(verdicts.c.turn_id == "turn-c")
        async with Database(database_url(settings_of(tmp_path))) as database:
            for verdict_id, said in await database.run(lambda connection: connection.execute(query).all()):
                told = [{**check, "explanation": "Winnie is told what to do."} for check in said["checks"]]
                change = sa.update(verdicts).where(verdicts.c.id == verdict_id).values(verdict={**said, "checks": told})
                await database.transaction(methodcaller("execute", change))

    asyncio.run(tell_of_winnie())
    page = tmp_path / "audit.html"
    for full, there, missing in (((), "[NAME] is told", "Winnie"), (("--full",), "Winnie is told", "[NAME]")):
        audit("report", "--html", str(page), *full)
        forms = (audit("report", *full)[1], audit("report", "--json", *full)[1], page.read_text(encoding="utf-8"))
        assert all(there in form and missing not in form for form in forms)


@pytest.mark.usefixtures("delivered")
def test_a_part_is_audited_first_and_the_rest_later(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_json(audit("run", "--limit", "1", "--wait", "20", "--json"))["run"]["turns"] == 1
    assert in_json(audit("run", "--until", "2026-11-09", "--wait", "20", "--json"))["run"]["turns"] == 1
    assert in_json(audit("run", "--share", "0", "--wait", "20", "--json"))["run"] is None
    monkeypatch.setenv("GUIDANCE_AUDIT__SHARE", "0")
    assert in_json(audit("run", "--json"))["run"] is None
    monkeypatch.setenv("GUIDANCE_AUDIT__SHARE", "1")
    assert in_json(audit("run", "--wait", "20", "--json"))["run"]["turns"] == 1
    assert len(in_json(audit("report", "--json"))["runs"]) == 3


@pytest.mark.usefixtures("delivered")
def test_a_run_that_has_not_ended_is_to_be_looked_at_later(audit: Audit, tmp_path: Path) -> None:
    async def begin() -> str:
        async with Runtime(settings_of(tmp_path), environ={}) as runtime:
            run = await runtime.audit_rounds().open_run(AuditPlan())
            assert run is not None
            return run.id

    run_id = asyncio.run(begin())
    code, told = audit("report", "--run", run_id)
    assert code == ExitCode.TRY_LATER
    assert "3 wait" in told
    # Whoever calls next sends what is not on its way yet, and waits for it.
    told = audit("run", "--wait", "20")[1]
    assert told == "There is nothing new to audit.\n"
    assert audit("report", "--run", run_id)[0] == ExitCode.NEEDS_PERSON


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--share", "1.5"),
        ("run", "--limit", "0"),
        ("run", "--since", "yesterday"),
        ("report", "--until", "32 May"),
        ("report", "--html", "no/such/folder/page.html"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_noted(
    audit: Audit, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises((TyperException, InputError)):
        audit(*arguments)
    assert not (tmp_path / "data" / "guidance.db").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("delivered")
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
def test_the_page_shows_charts_in_a_browser_and_fits_its_window(audit: Audit, tmp_path: Path) -> None:
    audit("run", "--wait", "20")
    page = tmp_path / "audit.html"
    audit("report", "--html", str(page))

    async def look() -> None:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            opened = await browser.new_page(viewport={"width": 1_100, "height": 900})
            asked: list[str] = []
            told: list[str] = []
            opened.on("request", lambda request: asked.append(request.url))
            opened.on("console", lambda message: told.append(message.text))
            for width in (1_100, 400):
                await opened.set_viewport_size({"width": width, "height": 900})
                await opened.goto(page.as_uri())
                assert await opened.evaluate("document.documentElement.scrollWidth") <= width
            await opened.set_viewport_size({"width": 1_100, "height": 900})
            await expect(opened.get_by_role("heading", name="By week")).to_be_visible()
            chart = opened.get_by_role("img", name="Audited answers by week. 2026-W45: 1 passed")
            box = await chart.bounding_box()
            assert box is not None
            assert box["width"] > 600
            assert box["height"] > 150
            colour = "getComputedStyle(document.querySelector('svg.chart rect.passed')).fill"
            assert await opened.evaluate(colour) == "rgb(44, 127, 134)"
            await expect(opened.get_by_text("turn-c")).to_be_visible()
            assert asked == [page.as_uri()] * 2
            assert told == []
            await browser.close()

    asyncio.run(look())

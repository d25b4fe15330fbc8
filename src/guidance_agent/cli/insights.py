"""`guidance-agent insights`: what a day's consultations were about, from the report that the batch jobs made."""

from __future__ import annotations

import asyncio
import os
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.files import write_whole
from guidance_agent.cli.margin import show_error
from guidance_agent.cli.output import json_line, write_output
from guidance_agent.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from guidance_agent.core.insight_records import InsightRecords, StoredReport
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "EXIT_CODES", "insights"]

EXAMPLES = (
    "guidance-agent insights",
    "guidance-agent insights --day 2026-11-20 --html insights.html",
    "guidance-agent insights --json > insights.json",
)

EXIT_CODES = """Exit status:
  0    done: the report was shown, or the day had no consultations
  1    something needs a person: the report has counts and no words
  2    the command line cannot be used
  5    the file of --html cannot be written
  75   try later: the report is being made, or its jobs have not run
  130  interrupted"""


def insights(
    day: Annotated[
        str | None, typer.Option("--day", metavar="DATE", help="A day in the United Kingdom; otherwise the newest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the report as one JSON object.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write the report as Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", dir_okay=False, help="Write a page with charts to a file.")
    ] = None,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show the report on a day's consultations: topics, misunderstandings, verdicts, failures, effects of rules.

    Counts are the program's, words a model's; each statement names its consultations. Asks no model.
    """
    if as_json and markdown:
        raise typer.BadParameter("choose one of --json and --markdown", param_hint="--json")
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(html.parent)!r}", param_hint="--html")
    wanted = None if day is None else _day(day)
    settings = options.load_settings(data_dir=data_dir)
    try:
        report, told, status = asyncio.run(_find(settings, wanted))
    except DatabaseUnavailableError as error:
        show_error(str(error))
        return ExitCode.TRY_LATER
    if report is None:
        if as_json:
            write_output(
                json_line({"day": None if wanted is None else wanted.isoformat(), "report": None, "reason": told})
            )
        else:
            write_output(f"{told}\n")
        return status
    if html is not None:
        from guidance_agent.cli.insight_page import report_as_page

        write_whole(html, report_as_page(report))
    if as_json:
        from guidance_agent.cli.insight_sections import report_as_json

        write_output(json_line(report_as_json(report)))
    elif markdown or html is None:
        from guidance_agent.cli.insight_text import report_as_markdown, report_as_text

        write_output(report_as_markdown(report) if markdown else report_as_text(report))
    else:
        write_output(f"{html}\n")
    if told:
        show_error(told)
    return status


async def _find(settings: Settings, day: date | None) -> tuple[StoredReport | None, str, ExitCode]:
    """Return the report, what else is to be said, and the status."""
    from guidance_agent.cli.records import place_of_records, records_to_read
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.core.insight_records import InsightRecords
    from guidance_agent.llm.endpoints import default_models

    clock = SystemClock()
    if day is not None and day > clock.today():
        raise typer.BadParameter(f"{day.isoformat()} has not come yet", param_hint="--day")
    async with records_to_read(settings) as database:
        if database is None:
            return None, f"Nothing is on record in {place_of_records(settings)} yet.", ExitCode.DONE
        simulated = not default_models(settings, os.environ).configured
        records = InsightRecords(database, clock, include_simulated=simulated)
        report = await records.latest(day)
        if report is None:
            return None, *await _why_none(records, day, clock.today())
        if report.outcome == "counts_only":
            return report, f"The report could not be put into words. {report.reason or ''}", ExitCode.NEEDS_PERSON
        if await records.under_way(report.day) is not None:
            return report, "A newer revision of this report is being made.", ExitCode.DONE
        return report, "", ExitCode.DONE


async def _why_none(records: InsightRecords, day: date | None, today: date) -> tuple[str, ExitCode]:
    looked = day or today - timedelta(days=1)
    if (being_made := await records.under_way(looked)) is not None:
        read, whole = await records.read_notes(being_made), len(being_made.note_ids)
        told = f"The report on {looked.isoformat()} is being made: {read:,} of {whole:,} consultations are read."
        return told, ExitCode.TRY_LATER
    if looked == today:
        return "The day is not over. Its report is made in the night that follows.", ExitCode.TRY_LATER
    if await records.turn_ids(looked):
        told = f"There is no report on {looked.isoformat()} yet. `guidance-agent batch nightly` makes it."
        return told, ExitCode.TRY_LATER
    return f"There were no consultations on {looked.isoformat()}.", ExitCode.DONE


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day. Write it as 2026-11-20", param_hint="--day") from error

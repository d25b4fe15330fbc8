"""`guidance-agent cache report`: what prompt caching read, wrote and saved."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options, period
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import write_output

if TYPE_CHECKING:
    from datetime import datetime

    from guidance_agent.core.cache_report import CacheReport
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "Breakdown", "cache", "report"]

EXAMPLES = (
    "guidance-agent cache report",
    "guidance-agent cache report --since 7d --by day",
    "guidance-agent cache report --model anthropic/claude-sonnet-5-5 --by part --json",
)


class Breakdown(StrEnum):
    """What the figures can be broken down by."""

    PART = "part"
    MODEL = "model"
    DAY = "day"
    OPERATION = "operation"
    TRANSPORT = "transport"


def cache(context: typer.Context) -> None:
    """Look at what prompt caching did."""
    if context.invoked_subcommand is None:
        write_output(context.get_help() + "\n")


def report(
    since: period.Since = None,
    until: period.Until = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Only calls of this model, as recorded.")
    ] = None,
    by: Annotated[
        list[Breakdown] | None,
        typer.Option(
            "--by",
            metavar="part|model|day|operation|transport",
            help="Break the figures down; may be repeated. Otherwise by part and by model.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the report as one JSON object.")] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show what prompt caching read, wrote and saved, from the record of every model call.

    Real and simulated calls are reported apart. A saving is what the input would have cost without caching, minus what
    it did cost, writes included.
    """
    import asyncio

    from guidance_agent.core.clock import SystemClock

    settings = options.load_settings(data_dir=data_dir)
    now = SystemClock().now()
    bounds = (period.first_moment(since, now), period.moment_after(until, now))
    chosen = tuple(dict.fromkeys(by)) if by else (Breakdown.PART, Breakdown.MODEL)
    found, hint = asyncio.run(_find(settings, bounds, model, chosen))
    if as_json:
        from guidance_agent.cli.cache_tables import report_as_json

        write_output(json.dumps(report_as_json(found, chosen), ensure_ascii=False, indent=2) + "\n")
    elif not found.sections:
        write_output(hint + "\n")
    else:
        from guidance_agent.cli.cache_tables import report_as_text

        write_output(report_as_text(found, chosen))
    return ExitCode.DONE


async def _find(
    settings: Settings, bounds: tuple[datetime | None, datetime | None], model: str | None, by: tuple[Breakdown, ...]
) -> tuple[CacheReport, str]:
    """Return the report and, where it is empty, a sentence that says what to do."""
    from guidance_agent.cli.records import place_of_records, records_to_read
    from guidance_agent.core.cache_report import DIMENSIONS, CacheReport, cache_report

    since, until = bounds
    async with records_to_read(settings) as records:
        if records is not None:
            lines = tuple(each for each in DIMENSIONS if each in by)
            found = await cache_report(records, since=since, until=until, model=model, by=lines)
            if found.sections:
                return found, ""
            everything = await cache_report(records, by=("model",))
            if everything.sections:
                return found, _nothing_chosen(everything)
    nothing = (
        f"No model call is on record in {place_of_records(settings)} yet. Ask something first: guidance-agent ask "
        '"What is drawdown?"'
    )
    return CacheReport(since=since, until=until, sections=()), nothing


def _nothing_chosen(everything: CacheReport) -> str:
    models = sorted({model for section in everything.sections for model in section.lines["model"]})
    return (
        "No model call on record fits --since, --until and --model. Leave one of them out. On record are calls of "
        f"{', '.join(models)}."
    )

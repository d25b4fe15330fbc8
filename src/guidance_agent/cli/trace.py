"""`guidance-agent trace`: a turn from its question to its verdict, and where Phoenix shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import json_line, write_output

if TYPE_CHECKING:
    from guidance_agent.cli.trace_report import Pages
    from guidance_agent.core.evidence import RecordedTurn
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "trace"]

EXAMPLES = (
    "guidance-agent trace turn_019a8b2c3d4e5f60718293a4b5",
    "guidance-agent trace turn_019a8b2c3d4e5f60718293a4b5 --json | jq '.calls[].first_token_seconds'",
)


def trace(
    turn: Annotated[str, typer.Argument(metavar="TURN", help="Id of the turn, as its first event told it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show how one answer came about: retrieval, calls of models, gate, verdict; times, tokens and cost.

    All of it is read from the records, so it is there without Phoenix and for turns that were never traced. Where the
    turn was traced and Phoenix answers, its page is named. The output holds ids and figures, and
    nothing that customer or model said.
    """
    import asyncio

    from guidance_agent.cli.trace_report import report_of_turn

    recorded, pages = asyncio.run(_find(options.load_settings(data_dir=data_dir), turn))
    report = report_of_turn(recorded, pages)
    if as_json:
        write_output(json_line(report))
        return ExitCode.DONE
    from guidance_agent.cli.trace_text import report_as_text

    write_output(report_as_text(report))
    return ExitCode.DONE


async def _find(settings: Settings, turn_id: str) -> tuple[RecordedTurn, Pages]:
    from guidance_agent.cli.records import place_of_records, records_to_read
    from guidance_agent.cli.trace_report import find_pages
    from guidance_agent.core.evidence import read_turn
    from guidance_agent.errors import UnknownTurnError

    async with records_to_read(settings) as records:
        if records is None:
            raise UnknownTurnError(
                f"There is no turn {turn_id!r}: nothing is on record in {place_of_records(settings)} yet. Name the "
                "folder of the records with --data-dir."
            )
        recorded = await read_turn(records, turn_id)
    if recorded is None:
        raise UnknownTurnError(
            f"There is no turn {turn_id!r} in the records. Use the id that its first event told, or one that "
            "`guidance-agent review list --status all` shows."
        )
    return recorded, await find_pages(settings, recorded)

"""`guidance-agent audit show`: everything behind an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import show_error
from guidance_agent.cli.output import write_output

if TYPE_CHECKING:
    from guidance_agent.core.types import JsonObject
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "audit", "show"]

EXAMPLES = (
    "guidance-agent audit show turn_019a8b2c3d4e5f60718293a4b5",
    "guidance-agent audit show turn_019a8b2c3d4e5f60718293a4b5 --json > evidence.json",
)


def audit(context: typer.Context) -> None:
    """Judge delivered answers once more, see what came of it, and look at what is on record about one."""
    if context.invoked_subcommand is None:
        write_output(context.get_help() + "\n")


def show(
    turn: Annotated[str, typer.Argument(metavar="TURN", help="Id of the turn, as its first event told it.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the bundle as one JSON object, the same bytes for the same records.")
    ] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show everything behind one answer, and compute its deterministic checks again.

    The output holds personal data and what was withheld. Status 1 says that the records contradict themselves: the text
    has not its recorded hash, or the same rules say something else of it than they said.
    """
    import asyncio

    bundle = asyncio.run(_find(options.load_settings(data_dir=data_dir), turn))
    from guidance_agent.compliance.evidence import canonical_json, is_sound

    if as_json:
        write_output(canonical_json(bundle) + "\n")
    else:
        from guidance_agent.cli.audit_text import bundle_as_text

        write_output(bundle_as_text(bundle))
    if is_sound(bundle):
        return ExitCode.DONE
    show_error(f"The records of turn {turn!r} contradict themselves. See the sections on the answer and on the rules.")
    return ExitCode.DEFECT


async def _find(settings: Settings, turn_id: str) -> JsonObject:
    from guidance_agent.cli.records import place_of_records, records_to_read
    from guidance_agent.compliance.evidence import evidence_of_turn
    from guidance_agent.errors import UnknownTurnError
    from guidance_agent.knowledge.loader import load_knowledge

    async with records_to_read(settings) as records:
        if records is None:
            raise UnknownTurnError(
                f"There is no turn {turn_id!r}: nothing is on record in {place_of_records(settings)} yet. Name the "
                "folder of the records with --data-dir."
            )
        return await evidence_of_turn(records, load_knowledge(settings.knowledge_dir), turn_id)

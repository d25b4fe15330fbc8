"""The entry point: the commands, and one place where every error becomes a message and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from guidance_agent.cli import ask
from guidance_agent.cli.exit_codes import ExitCode, exit_code_of
from guidance_agent.cli.interrupts import raise_on_sigterm
from guidance_agent.cli.margin import show_error
from guidance_agent.cli.output import OutputClosed, prepare_streams
from guidance_agent.errors import GuidanceAgentError

__all__ = ["app", "main", "run"]

EXIT_CODES = (
    "Exit status: 0 done, 2 unusable command line, question or customer, 3 settings, keys or models, 4 the provider, "
    "5 the records, 130 interrupted."
)


def _epilogue(examples: Sequence[str]) -> str:
    return "\n\n".join(("Examples:", *(f"  {line}" for line in examples), EXIT_CODES))


app = typer.Typer(
    name="guidance-agent",
    help="UK pension guidance, streamed from language models, with a record of everything that was said.",
    epilog=_epilogue(("guidance-agent ask", "guidance-agent chat --persona dev", "guidance-agent doctor")),
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("ask", epilog=_epilogue(ask.EXAMPLES))(ask.ask)


def _show_version(wanted: bool) -> None:
    if wanted:
        from guidance_agent import __version__

        typer.echo(f"guidance-agent {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    prepare_streams()
    raise_on_sigterm()
    try:
        status = app(args=arguments, prog_name="guidance-agent", standalone_mode=False)
    except typer.TyperException as error:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)
        return ExitCode.USAGE
    except GuidanceAgentError as error:
        show_error(str(error))
        return exit_code_of(error)
    except OutputClosed:
        return ExitCode.DONE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    return int(status or ExitCode.DONE)


def main() -> None:
    """Run the command that the process was started with, and end it with the command's exit status."""
    sys.exit(run())


if __name__ == "__main__":
    main()

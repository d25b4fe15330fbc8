"""The entry point: the commands, and one place where every error becomes a message and an exit status."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from guidance_agent.cli import (
    ask,
    audit,
    audit_rounds,
    batch,
    cache,
    chat,
    check,
    doctor,
    insights,
    models,
    phoenix,
    review,
    rules,
    simulator,
    stats,
    trace,
    worker,
)
from guidance_agent.cli.exit_codes import ExitCode, exit_code_of
from guidance_agent.cli.interrupts import raise_on_sigterm
from guidance_agent.cli.margin import show_error
from guidance_agent.cli.output import OutputClosed, prepare_streams
from guidance_agent.errors import GuidanceAgentError

__all__ = ["app", "main", "run"]

EXIT_CODES = """Exit status:
  0    done
  2    the command line, the question or the customer cannot be used
  3    settings, keys or models do not work together
  4    the provider failed
  5    the records cannot be read or written
  130  interrupted"""


def _epilogue(examples: Sequence[str], exit_codes: str = EXIT_CODES) -> str:
    # A paragraph that begins with the character of "\\b" keeps its lines as they are.
    listed = "\n".join(("Examples:", *(f"  {line}" for line in examples)))
    return f"\b\n{listed}\n\n\b\n{exit_codes}"


app = typer.Typer(
    name="guidance-agent",
    epilog=_epilogue(("guidance-agent ask", "guidance-agent chat --persona dev", "guidance-agent doctor")),
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("ask", epilog=_epilogue(ask.EXAMPLES))(ask.ask)
app.command("chat", epilog=_epilogue(chat.EXAMPLES))(chat.chat)
_cache = typer.Typer(invoke_without_command=True, epilog=_epilogue(cache.EXAMPLES))
_cache.callback()(cache.cache)
_cache.command("report", epilog=_epilogue(cache.EXAMPLES))(cache.report)
app.add_typer(_cache, name="cache")
_audit = typer.Typer(invoke_without_command=True, epilog=_epilogue(audit.EXAMPLES))
_audit.callback()(audit.audit)
_audit.command("show", epilog=_epilogue(audit.EXAMPLES))(audit.show)
_rounds_epilogue = _epilogue(audit_rounds.EXAMPLES, audit_rounds.EXIT_CODES)
_audit.command("run", epilog=_rounds_epilogue)(audit_rounds.run)
_audit.command("report", epilog=_rounds_epilogue)(audit_rounds.report)
app.add_typer(_audit, name="audit")
_batch_epilogue = _epilogue(batch.EXAMPLES, batch.EXIT_CODES)
_batch = typer.Typer(invoke_without_command=True, epilog=_batch_epilogue)
_batch.callback()(batch.batch)
_batch.command("nightly", epilog=_batch_epilogue)(batch.nightly)
_batch.command("afternoon", epilog=_batch_epilogue)(batch.afternoon)
_batch.command("status", epilog=_batch_epilogue)(batch.status)
_batch.command("cancel", epilog=_batch_epilogue)(batch.cancel)
_batch.command("list", epilog=_batch_epilogue)(batch.list_jobs)
_batch.command("decide", epilog=_batch_epilogue)(batch.decide)
_batch.command("results", epilog=_batch_epilogue)(batch.results)
app.add_typer(_batch, name="batch")
app.command("insights", epilog=_epilogue(insights.EXAMPLES, insights.EXIT_CODES))(insights.insights)
_review = typer.Typer(invoke_without_command=True, epilog=_epilogue(review.EXAMPLES))
_review.callback()(review.review)
_review.command("list", epilog=_epilogue(review.EXAMPLES))(review.list_reviews)
_review.command("show", epilog=_epilogue(review.EXAMPLES))(review.show)
_review.command("claim", epilog=_epilogue(review.EXAMPLES))(review.claim)
_review.command("decide", epilog=_epilogue(review.EXAMPLES))(review.decide)
app.add_typer(_review, name="review")
_rules = typer.Typer(invoke_without_command=True, epilog=_epilogue(rules.EXAMPLES))
_rules.callback()(rules.rules)
_rules.command("list", epilog=_epilogue(rules.EXAMPLES))(rules.list_rules)
_rules.command("show", epilog=_epilogue(rules.EXAMPLES))(rules.show)
_rules.command("learn", epilog=_epilogue(rules.EXAMPLES))(rules.learn)
_rules.command("release", epilog=_epilogue(rules.EXAMPLES))(rules.release)
_rules.command("rollback", epilog=_epilogue(rules.EXAMPLES))(rules.rollback)
app.add_typer(_rules, name="rules")
app.command("trace", epilog=_epilogue(trace.EXAMPLES))(trace.trace)
app.command("check", epilog=_epilogue(check.EXAMPLES))(check.check)
app.command("worker", epilog=_epilogue(worker.EXAMPLES))(worker.worker)
app.command("simulator", epilog=_epilogue(simulator.EXAMPLES))(simulator.simulator)
_phoenix = typer.Typer(invoke_without_command=True, epilog=_epilogue(phoenix.EXAMPLES))
_phoenix.callback()(phoenix.phoenix)
_phoenix.command("install", epilog=_epilogue(phoenix.INSTALL_EXAMPLES))(phoenix.install)
app.add_typer(_phoenix, name="phoenix")
app.command("models", epilog=_epilogue(models.EXAMPLES))(models.models)
app.command("stats", epilog=_epilogue(stats.EXAMPLES))(stats.stats)
app.command("doctor", epilog=_epilogue(doctor.EXAMPLES))(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        from guidance_agent import __version__

        typer.echo(f"guidance-agent {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Write the log to standard error.")] = False,
) -> None:
    """UK pension guidance, streamed from language models, with a record of everything that was said."""
    _set_up_log(verbose=verbose)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _set_up_log(*, verbose: bool) -> None:
    import logging

    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    else:
        # Without any handler Python would write warnings between the lines of an answer.
        logging.getLogger("guidance_agent").addHandler(logging.NullHandler())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    prepare_streams()
    raise_on_sigterm()
    # Importing makes some hundred thousand objects that stay; looking through them again and again costs a tenth of the
    # time to the first text.
    gc.set_threshold(50_000, 20, 20)
    try:
        status = app(args=arguments, prog_name="guidance-agent", standalone_mode=False)
    except typer.TyperException as error:
        _show_usage_error(error)
        return ExitCode.USAGE
    except GuidanceAgentError as error:
        show_error(str(error))
        return exit_code_of(error)
    except OSError as error:
        if error.filename is None:
            raise
        show_error(
            f"{str(error.filename)!r} cannot be used: {error.strerror}. Correct the path, or choose another one."
        )
        return ExitCode.STORAGE
    except OutputClosed:
        return ExitCode.DONE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    return int(status or ExitCode.DONE)


def _show_usage_error(error: typer.TyperException) -> None:
    context = getattr(error, "ctx", None)
    command = "guidance-agent" if context is None else context.command_path
    show_error(f"{error.format_message().rstrip('.')}. Run `{command} --help`.")


def main() -> None:
    """Run the command that the process was started with, and end it with the command's exit status."""
    sys.exit(run())


if __name__ == "__main__":
    main()

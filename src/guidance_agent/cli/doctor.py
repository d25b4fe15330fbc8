"""`guidance-agent doctor`: is everything in place, and what to do if not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import write_output

if TYPE_CHECKING:
    from guidance_agent.cli.checks.result import Check
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "doctor"]

EXAMPLES = (
    "guidance-agent doctor",
    "guidance-agent doctor --online --model openai/gpt-6-luna",
    "guidance-agent doctor --migrate --json",
)
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as one JSON object.")] = False,
    migrate: Annotated[bool, typer.Option("--migrate", help="Bring the database to this version's schema.")] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Make one tiny call to the model; it may cost money.")
    ] = False,
    model: options.Model = None,
    reasoning_model: options.ReasoningModel = None,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Check keys, models, prices, database and everything else an answer needs.

    Nothing is changed without --migrate, and nothing leaves this machine without --online. Keys are never shown.
    """
    from guidance_agent.cli.checks.result import failed
    from guidance_agent.errors import ConfigurationError

    given = {"model": model, "reasoning_model": reasoning_model, "data_dir": data_dir}
    arguments = {name: f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None}
    settings: Settings | None = None
    first = None
    try:
        settings = options.load_settings(data_dir=data_dir, model=model, reasoning_model=reasoning_model)
    except ConfigurationError as error:
        first = failed("Settings", error)
    results = []
    for check in _checks(settings, first, arguments, migrate=migrate, online=online):
        results.append(check)
        if not as_json:
            write_output(_line(check))
    if as_json:
        write_output(json.dumps(_document(results), ensure_ascii=False, indent=2) + "\n")
    return next((check.code for check in results if check.status == "fail"), ExitCode.DONE)


def _checks(
    settings: Settings | None, first: Check | None, arguments: dict[str, str], *, migrate: bool, online: bool
) -> Iterator[Check]:
    import asyncio

    from guidance_agent.cli.checks import environment

    yield environment.check_python()
    yield environment.check_litellm()
    yield environment.check_start_up_files()
    if first is not None:
        yield first
    if settings is None:
        return
    from guidance_agent.cli.checks import configuration, limits, phoenix, services

    yield configuration.check_settings(settings, arguments)
    yield configuration.check_keys(settings, os.environ)
    models = configuration.check_models(settings, os.environ, arguments)
    yield models
    if models.status != "fail":
        yield configuration.check_transport(settings, os.environ)
        yield configuration.check_prices(settings, os.environ)
        yield configuration.check_cache(settings, os.environ)
    yield environment.check_data_folder(settings.data_dir)
    yield asyncio.run(services.check_database(settings, migrate=migrate))
    yield asyncio.run(limits.check_limits(settings))
    judgements = asyncio.run(services.check_judgements(settings))
    if judgements is not None:
        yield judgements
    yield services.check_knowledge(settings)
    yield asyncio.run(services.check_simulator())
    yield phoenix.check_phoenix(settings.data_dir)
    if online and models.status != "fail":
        yield asyncio.run(services.check_online(settings))


def _line(check: Check) -> str:
    status = f"{check.status:<4}"
    if sys.stdout.isatty():
        status = typer.style(status, fg=_COLOURS[check.status], bold=True)
    step = f"      → {check.next_step}\n" if check.next_step else ""
    return f"{status}  {check.name}: {check.message}\n{step}"


def _document(results: list[Check]) -> dict[str, object]:
    found = {check.status for check in results}
    status = next(status for status in ("fail", "warn", "ok") if status in found)
    return {"status": status, "checks": [check.as_json() for check in results]}

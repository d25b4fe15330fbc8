"""`guidance-agent phoenix`: a trace viewer on this machine, for this machine only."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import Margin
from guidance_agent.cli.output import json_line, write_output
from guidance_agent.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from guidance_agent.phoenix.environment import Environment
    from guidance_agent.phoenix.local import LocalPhoenix
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "INSTALL_EXAMPLES", "install", "phoenix"]

EXAMPLES = (
    "guidance-agent phoenix install",
    "guidance-agent phoenix",
    "guidance-agent phoenix --background --json",
    "guidance-agent phoenix --stop",
)
INSTALL_EXAMPLES = ("guidance-agent phoenix install", "guidance-agent phoenix install --yes --json")

_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No word about the progress.")]


def phoenix(
    context: typer.Context,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="Port on 127.0.0.1, 0 for a free one; else 6006 or a free one."),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65_535, help="The same for OTLP over gRPC; else 4317 or a free one."),
    ] = None,
    background: Annotated[bool, typer.Option("--background", help="Leave it running; end it with --stop.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that runs for this data folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON line.")] = False,
    data_dir: options.DataDir = None,
    quiet: _Quiet = False,
) -> ExitCode | None:
    """Start Arize Phoenix, which shows traces, on 127.0.0.1. Ctrl-C ends it.

    It is installed once, with `guidance-agent phoenix install`. It keeps its traces in the data folder, listens on
    127.0.0.1 only, and sends nothing anywhere.
    """
    if context.invoked_subcommand is not None:
        if port is not None or grpc_port is not None or background or stop or as_json or data_dir or quiet:
            raise InputError(f"Options stand after the command: guidance-agent phoenix {context.invoked_subcommand} …")
        return None
    settings = options.load_settings(data_dir=data_dir)
    folder = settings.data_dir
    if stop:
        return _stop(folder, as_json=as_json)
    margin = Margin(notes=not quiet and not as_json)
    from guidance_agent.phoenix.local import local_phoenix

    said = _Said(_project(settings), as_json=as_json)
    running = local_phoenix(folder)
    if running is not None:
        return _already(running, port, grpc_port, said)
    return _run(folder, (port, grpc_port), margin, said, background=background)


def install(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON line.")] = False,
    data_dir: options.DataDir = None,
    quiet: _Quiet = False,
) -> ExitCode:
    """Install the Phoenix server into an environment of its own, in the data folder.

    Its packages come from the index that pip is configured for, and each must have the hash that this package's list
    names. Once it is there, the command does nothing.
    """
    from guidance_agent.phoenix.environment import Environment, install_phoenix

    folder = options.load_settings(data_dir=data_dir).data_dir
    environment = Environment.of(folder)
    margin = Margin(notes=not quiet and not as_json)
    if not environment.state().ready and not yes and not _agreed(environment):
        margin.say("Nothing was installed.")
        return ExitCode.DONE
    changed = install_phoenix(folder, tell=margin.note)
    told = {"version": environment.pinned.version, "environment": str(environment.folder), "changed": changed}
    if as_json:
        _write_json(told)
    else:
        how = "is installed" if changed else "was installed already"
        write_output(f"Phoenix {environment.pinned.version} {how}. Start it: guidance-agent phoenix\n")
    return ExitCode.DONE


def _agreed(environment: Environment) -> bool:
    if not sys.stdin.isatty():
        raise InputError("There is nobody to ask whether Phoenix may be installed. Say --yes if it may.")
    version = environment.pinned.version
    other = environment.state().other_version
    instead = f" in place of {other}" if other is not None and other != version else ""
    typer.echo(
        f"This installs Arize Phoenix {version}{instead} and what it needs (about 0.8 GB; Elastic License 2.0) into "
        f"{environment.folder}.",
        err=True,
    )
    return typer.confirm("Go on?", default=True, err=True)


def _run(
    folder: Path, ports: tuple[int | None, int | None], margin: Margin, said: _Said, *, background: bool
) -> ExitCode:
    from guidance_agent.phoenix.launch import PhoenixServer
    from guidance_agent.phoenix.ports import choose_ports

    with PhoenixServer(folder, choose_ports(*ports), tell=margin.note) as server:
        if background:
            said.write(server.keep(), started=True)
            margin.note("It runs in the background. To end it: guidance-agent phoenix --stop")
            return ExitCode.DONE
        try:
            said.write(server.local, started=True)
            margin.note("Ctrl-C ends it.")
            server.wait()
        except KeyboardInterrupt:
            margin.note("Ending Phoenix.")
    return ExitCode.DONE


def _already(running: LocalPhoenix, port: int | None, grpc_port: int | None, said: _Said) -> ExitCode:
    if port not in (None, 0, running.port) or grpc_port not in (None, 0, running.grpc_port):
        raise InputError(
            f"Phoenix is running already, on {running.endpoint} and {running.grpc_endpoint}. To have it on other "
            "ports, end it first: guidance-agent phoenix --stop"
        )
    said.write(running, started=False)
    return ExitCode.DONE


def _project(settings: Settings) -> str:
    """Return the project that this package's spans go to, as the tracing decides it."""
    from guidance_agent import __version__
    from guidance_agent.tracing import attributes
    from guidance_agent.tracing.setup import resource_of

    return resource_of(settings, os.environ, version=__version__)[attributes.PROJECT_NAME]


class _Said:
    """Says where a server runs, for people or for programs."""

    def __init__(self, project: str, *, as_json: bool) -> None:
        self._project = project
        self._as_json = as_json

    def write(self, local: LocalPhoenix, *, started: bool) -> None:
        page = local.project_url(self._project)
        if self._as_json:
            _write_json(
                {
                    "endpoint": local.endpoint,
                    "project": page,
                    "traces": local.traces_endpoint,
                    "grpc": local.grpc_endpoint,
                    "pid": local.pid,
                    "version": local.version,
                    "started": started,
                }
            )
            return
        how = "is running, for this machine only" if started else "is running already"
        write_output(
            f"Phoenix {local.version} {how}.\n"
            f"  page     {local.endpoint}\n"
            f"  project  {page}\n"
            f"  traces   {local.traces_endpoint} (OTLP over HTTP), {local.grpc_endpoint} (gRPC)\n"
        )


def _stop(folder: Path, *, as_json: bool) -> ExitCode:
    from guidance_agent.phoenix.launch import stop_phoenix

    stopped = stop_phoenix(folder)
    if as_json:
        _write_json({"stopped": stopped is not None, "pid": None if stopped is None else stopped.pid})
    else:
        write_output("Phoenix is not running.\n" if stopped is None else f"Phoenix ended ({stopped.endpoint}).\n")
    return ExitCode.DONE


def _write_json(values: dict[str, Any]) -> None:
    write_output(json_line(values))

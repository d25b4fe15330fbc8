"""`guidance-agent batch`: the nightly and the afternoon job, and the batches that they work on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import Margin, show_error
from guidance_agent.cli.output import json_line, write_output
from guidance_agent.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    GuidanceAgentError,
    InputError,
    JobLockedError,
    ModelError,
    UnknownBatchError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from guidance_agent.core.batch_jobs import BatchJobs, JobProgress
    from guidance_agent.core.batch_processing import BatchProcessor
    from guidance_agent.core.jobs.reports import JobName
    from guidance_agent.settings import Settings

__all__ = [
    "EXAMPLES",
    "EXIT_CODES",
    "afternoon",
    "batch",
    "cancel",
    "decide",
    "list_jobs",
    "nightly",
    "results",
    "status",
]

EXAMPLES = (
    "guidance-agent batch nightly",
    "guidance-agent batch afternoon --json",
    "guidance-agent batch nightly --wait --limit 50",
    "guidance-agent batch status",
    "guidance-agent batch decide batch_019a8b2c3d4e5f60718293a4b5 --send-again",
)

EXIT_CODES = """Exit status:
  0    done; batches may be on their way
  1    something needs a person
  2    the command line or the settings cannot be used
  75   try later: another run is at work, or a provider or the records cannot be used
  130  interrupted"""

Wait = Annotated[bool, typer.Option("--wait", help="Go on until no batch is on its way any more; that takes days.")]


def batch(context: typer.Context) -> None:
    """Run the jobs of batches, see how they stand, and decide what they cannot."""
    if context.invoked_subcommand is None:
        write_output(context.get_help() + "\n")


def nightly(
    wait: Wait = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, max=options.MOST, help="At most so many new subjects of each kind of work."),
    ] = None,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
    quiet: options.Quiet = False,
) -> ExitCode:
    """Open new work, collect what has ended, move everything on, and submit what is ready."""
    settings = _settings(data_dir)
    return _run("nightly", settings, wait=wait, limit=limit, as_json=as_json, quiet=quiet)


def afternoon(
    wait: Wait = False,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
    quiet: options.Quiet = False,
) -> ExitCode:
    """Collect what has ended, move everything on, and submit what is ready."""
    settings = _settings(data_dir)
    return _run("afternoon", settings, wait=wait, limit=None, as_json=as_json, quiet=quiet)


def _run(job: JobName, settings: Settings, *, wait: bool, limit: int | None, as_json: bool, quiet: bool) -> ExitCode:
    from guidance_agent.cli.batch_progress import shown_progress
    from guidance_agent.cli.batch_text import report_as_text

    margin = Margin(notes=not quiet and not as_json)

    async def work() -> ExitCode:
        with shown_progress(margin) as progress:
            async with _jobs(settings, limit=limit, progress=progress) as jobs:
                report = await (jobs.nightly(wait=wait) if job == "nightly" else jobs.afternoon(wait=wait))
        write_output(json_line(report.as_json()) if as_json else report_as_text(report))
        return _CODES_OF_OUTCOMES[report.outcome]

    return _ended(work)


_CODES_OF_OUTCOMES = {
    "done": ExitCode.DONE,
    "needs_person": ExitCode.NEEDS_PERSON,
    "try_later": ExitCode.TRY_LATER,
}


def status(
    runs: Annotated[
        int, typer.Option("--runs", min=0, max=options.MOST, help="How many of the last runs are shown.")
    ] = 5,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show what waits, what it cost in the last thirty days, what needs a person, and the last runs."""
    from guidance_agent.cli.batch_text import status_as_text
    from guidance_agent.core.batch_jobs import JobsStatus

    settings = _settings(data_dir)
    nothing = JobsStatus(running=None, works=(), batches=(), runs=()).as_json()

    async def work() -> ExitCode:
        if await _no_records(settings, nothing if as_json else None):
            return ExitCode.DONE
        async with _jobs(settings) as jobs:
            found = await jobs.status(runs=runs)
        write_output(json_line(found.as_json()) if as_json else status_as_text(found))
        return ExitCode.NEEDS_PERSON if found.needs_person else ExitCode.DONE

    return _ended(work)


def cancel(
    job_key: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Only this job; `batch list` names them.")
    ] = None,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Cancel what is on its way; what a provider has answered already is kept, and paid for."""
    from guidance_agent.cli.batch_text import cancelled_as_text

    settings = _settings(data_dir)

    async def work() -> ExitCode:
        if job_key is not None:
            await _named_in_records(settings, f"job {job_key!r}")
        elif await _no_records(settings, {"cancelled": []} if as_json else None):
            return ExitCode.DONE
        if job_key is None:
            async with _jobs(settings) as jobs:
                keys = list(await jobs.cancel())
        else:
            async with _processor(settings) as processor:
                await processor.cancel(job_key)
            keys = [job_key]
        write_output(json_line({"cancelled": keys}) if as_json else cancelled_as_text(keys))
        return ExitCode.DONE

    return _ended(work)


def list_jobs(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=options.MOST, help="At most so many, the newest first.")
    ] = 20,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """List jobs and their batches, the newest first."""
    from guidance_agent.cli.batch_text import jobs_as_text, status_as_json

    settings = _settings(data_dir)

    async def work() -> ExitCode:
        if await _no_records(settings, {"jobs": []} if as_json else None):
            return ExitCode.DONE
        async with _processor(settings) as processor:
            found = await processor.list(limit=limit)
        write_output(json_line({"jobs": [status_as_json(each) for each in found]}) if as_json else jobs_as_text(found))
        return ExitCode.DONE

    return _ended(work)


def decide(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="The batch, as `batch status` names it.")],
    adopt: Annotated[
        str | None, typer.Option("--adopt", metavar="ID", help="It is this batch at the provider: take it over.")
    ] = None,
    send_again: Annotated[bool, typer.Option("--send-again", help="The provider does not have it: send it.")] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Decide about a batch of which the program cannot know whether the provider has it."""
    if send_again == (adopt is not None):
        raise typer.BadParameter("Give either --adopt ID or --send-again", param_hint="--adopt")
    settings = _settings(data_dir)

    async def work() -> ExitCode:
        await _named_in_records(settings, f"batch {batch_id!r}")
        async with _processor(settings) as processor:
            await processor.decide(batch_id, adopt=adopt)
        done = "is sent again" if adopt is None else f"is taken over as {adopt}"
        write_output(f"Batch {batch_id} {done} with the next run.\n")
        return ExitCode.DONE

    return _ended(work)


def results(
    job_key: Annotated[str, typer.Argument(metavar="JOB", help="The job, as `batch list` names it.")],
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Write the results of a job that are final so far, one JSON object per line."""
    from guidance_agent.cli.batch_text import result_as_json

    settings = _settings(data_dir)

    async def work() -> ExitCode:
        await _named_in_records(settings, f"job {job_key!r}")
        async with _processor(settings) as processor:
            async for result in processor.results(job_key):
                write_output(json_line(result_as_json(result)))
        return ExitCode.DONE

    return _ended(work)


def _settings(data_dir: Path | None) -> Settings:
    """Read the settings; ones that are not valid are wrong use, as they are once the work has begun."""
    try:
        return options.load_settings(data_dir=data_dir)
    except ConfigurationError as error:
        show_error(str(error))
        raise typer.Exit(_code_of(error)) from error


@contextlib.asynccontextmanager
async def _jobs(
    settings: Settings, *, limit: int | None = None, progress: Callable[[JobProgress], None] | None = None
) -> AsyncIterator[BatchJobs]:
    from guidance_agent.batch_runtime import open_batch_jobs
    from guidance_agent.runtime import Runtime

    async with (
        Runtime(settings.model_copy(update={"background": False})) as runtime,
        open_batch_jobs(runtime, limit=limit, progress=progress) as jobs,
    ):
        yield jobs


@contextlib.asynccontextmanager
async def _processor(settings: Settings) -> AsyncIterator[BatchProcessor]:
    from guidance_agent.batch_runtime import batch_processor, batch_works
    from guidance_agent.runtime import Runtime

    async with (
        Runtime(settings.model_copy(update={"background": False})) as runtime,
        batch_processor(runtime, batch_works(runtime)) as processor,
    ):
        yield processor


async def _no_records(settings: Settings, nothing: dict[str, Any] | None) -> bool:
    """Whether there are no records yet, which looking must not make; it is then told, as `nothing` where JSON is."""
    from guidance_agent.cli.records import place_of_records, records_to_read

    async with records_to_read(settings) as records:
        if records is not None:
            return False
    told = f"Nothing is on record in {place_of_records(settings)} yet.\n"
    write_output(told if nothing is None else json_line(nothing))
    return True


async def _named_in_records(settings: Settings, named: str) -> None:
    from guidance_agent.cli.records import place_of_records, records_to_read

    async with records_to_read(settings) as records:
        if records is None:
            raise UnknownBatchError(
                f"No {named} is on record: there is nothing in {place_of_records(settings)} yet. Name the folder of "
                "the records with --data-dir."
            )


def _ended(work: Callable[[], Awaitable[ExitCode]]) -> ExitCode:
    """Do the work, with errors and signals as the exit status that somebody's cron knows what to do about."""
    try:
        return asyncio.run(_until_signalled(work))
    except GuidanceAgentError as error:
        show_error(str(error))
        return _code_of(error)


async def _until_signalled(work: Callable[[], Awaitable[ExitCode]]) -> ExitCode:
    """Cancel the work at a signal: what was begun is noted, locks are given back, and the next run goes on."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work())
    signalled = False

    def stop() -> None:
        nonlocal signalled
        signalled = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not signalled:
            raise
        return ExitCode.INTERRUPTED


def _code_of(error: GuidanceAgentError) -> ExitCode:
    if isinstance(error, InputError | ConfigurationError):
        return ExitCode.USAGE
    passing = isinstance(error, JobLockedError | DatabaseUnavailableError)
    if passing or (isinstance(error, ModelError) and error.retryable):
        return ExitCode.TRY_LATER
    return ExitCode.NEEDS_PERSON

"""`guidance-agent audit run` and `report`: delivered answers judged once more in batches, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options, period
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.files import write_whole
from guidance_agent.cli.margin import show_error
from guidance_agent.cli.output import json_line, write_output
from guidance_agent.errors import BatchTimeoutError, DatabaseUnavailableError, ModelError

if TYPE_CHECKING:
    from guidance_agent import Runtime
    from guidance_agent.compliance.audit import AuditRounds, AuditRun
    from guidance_agent.compliance.audit_report import AuditReport
    from guidance_agent.core.batch_processing import BatchProcessor
    from guidance_agent.core.batch_work import WorkStanding
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "EXIT_CODES", "report", "run"]

EXAMPLES = (
    "guidance-agent audit run --share 0.1",
    "guidance-agent audit run --since 7d --wait 3600",
    "guidance-agent audit report --since 30d",
    "guidance-agent audit report --html audit.html",
)

EXIT_CODES = """Exit status:
  0    done; a batch may be on its way
  1    something needs a person: a review that an audit asked for, or answers that could not be audited
  2    the command line cannot be used, or there is no such run
  3    settings, keys or models do not work together
  5    the file of --html cannot be written
  75   try later: the run has not ended yet, or a provider or the records cannot be used
  130  interrupted"""

_LOOK_AGAIN = 1.0


def run(
    since: period.Since = None,
    until: period.Until = None,
    share: Annotated[
        float | None,
        typer.Option("--share", min=0.0, max=1.0, help="Which part of the answers; otherwise the setting audit.share."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The judge; otherwise the setting audit.model.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=options.MOST, help="At most so many answers, the oldest first.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also try again what could not be audited before.")] = False,
    wait: Annotated[
        float | None, typer.Option("--wait", min=0.0, metavar="SECONDS", help="Wait for the verdicts, so long at most.")
    ] = None,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Send delivered answers that were not audited under the present policy to a judge, in a batch.

    Called again it collects what has ended, too. What customers saw, and what stands, is not changed; a person is asked
    to look where the audit does not pass what had passed.
    """
    from guidance_agent.compliance.audit_subjects import AuditPlan
    from guidance_agent.core.clock import SystemClock

    now = SystemClock().now()
    first, after = period.first_moment(since, now), period.moment_after(until, now)
    settings = options.load_settings(data_dir=data_dir)
    plan = AuditPlan(
        share=settings.audit.share if share is None else share,
        since=first,
        until=after,
        model=model or settings.audit.model,
        limit=limit,
        retry=retry,
    )

    async def work() -> ExitCode:
        from guidance_agent import Runtime
        from guidance_agent.batch_runtime import batch_processor
        from guidance_agent.compliance.audit import validate_batch
        from guidance_agent.core.batch_processing import BatchOptions

        async with Runtime(settings.model_copy(update={"background": False})) as runtime:
            if model is not None:
                # A wrong name is told before anything is noted.
                await runtime.gateway.address(model)
            rounds = runtime.audit_rounds()
            async with batch_processor(runtime, [rounds], options=BatchOptions()) as batches:
                await batches.resume()
                opened = await validate_batch(rounds, batches, plan)
                late = wait is not None and await _waited(runtime, rounds, batches, wait)
                return await _told(runtime, rounds, opened, late=late, as_json=as_json)

    return _ended(work)


async def _waited(runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, seconds: float) -> bool:
    """Work on what is on its way for a while; True where it has not ended by then."""
    from guidance_agent.core.jobs.figures import jobs_of

    clock, kinds = runtime.clock, [kind.name for kind in rounds.kinds]
    until = clock.monotonic() + seconds
    while (await rounds.standing()).waiting:
        if clock.monotonic() >= until:
            return True
        jobs = [job.id for job in await jobs_of(runtime.database, kinds) if not job.done]
        for job in jobs:
            try:
                await batches.wait(job, timeout=max(0.0, until - clock.monotonic()))
            except BatchTimeoutError:
                return True
        if not await rounds.advance(batches) and not jobs:
            # Another process is about to submit it.
            await asyncio.sleep(_LOOK_AGAIN)
    return False


async def _told(
    runtime: Runtime, rounds: AuditRounds, opened: AuditRun | None, *, late: bool, as_json: bool
) -> ExitCode:
    from guidance_agent.cli.audit_tables import run_as_json
    from guidance_agent.core.jobs.figures import open_batches

    found = None if opened is None else await rounds.subjects.run(opened.id)
    standing = await rounds.standing()
    kinds = [kind.name for kind in rounds.kinds]
    batches = await open_batches(runtime.database, kinds, runtime.clock.now().timestamp())
    needs = [*standing.needs_person, *(batch.told for batch in batches if batch.needs_person)]
    if as_json:
        told = {
            "run": None if found is None else run_as_json(found),
            "waiting": dict(standing.waiting),
            "ended": dict(standing.ended),
            "needs_person": needs,
        }
        write_output(json_line(told))
    else:
        write_output("\n".join([*_of_run(found, standing, simulated=runtime.simulated), *needs]) + "\n")
    return ExitCode.NEEDS_PERSON if needs else ExitCode.TRY_LATER if late else ExitCode.DONE


def _of_run(found: AuditRun | None, standing: WorkStanding, *, simulated: bool) -> Iterator[str]:
    mark = " (simulated)" if simulated else ""
    if found is None:
        yield "There is nothing new to audit."
    else:
        ended = "; ".join(f"{count:,} {outcome}" for outcome, count in found.outcomes.items())
        yield f"{found.id}{mark}: {_answers(found.turns)} for {found.model}{': ' + ended if ended else ''}."
    waiting = sum(standing.waiting.values())
    if waiting:
        yield f"{_answers(waiting)} on the way. Run the command again to collect what has ended."


def _answers(number: int) -> str:
    return "1 answer" if number == 1 else f"{number:,} answers"


def report(
    run_id: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", help="Only this run; otherwise the newest audit of each answer."),
    ] = None,
    since: period.Since = None,
    until: period.Until = None,
    as_json: options.ResultAsJson = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", dir_okay=False, help="Write a page with charts to a file.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Leave personal data in quotes; only for places that may hold it.")
    ] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show what audits found: by check, severity, week, model and version, and every disagreement.

    Personal data is taken out of quotes unless --full is given. Status 1 says that a person is asked to look.
    """
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(html.parent)!r}", param_hint="--html")
    settings = options.load_settings(data_dir=data_dir)

    async def work() -> ExitCode:
        found = await _find(settings, run_id, since, until, full=full)
        if found is None:
            write_output(_no_records(settings, as_json=as_json))
            return ExitCode.DONE
        if html is not None:
            from guidance_agent.cli.audit_page import report_as_page

            await asyncio.to_thread(write_whole, html, report_as_page(found))
        if as_json:
            from guidance_agent.cli.audit_tables import report_as_json

            write_output(json_line(report_as_json(found)))
        elif html is None:
            from guidance_agent.cli.audit_tables import report_as_text

            write_output(report_as_text(found))
        else:
            write_output(f"{html}\n")
        if found.needs_person:
            return ExitCode.NEEDS_PERSON
        return ExitCode.TRY_LATER if run_id is not None and found.waiting else ExitCode.DONE

    return _ended(work)


async def _find(
    settings: Settings, run_id: str | None, since: str | None, until: str | None, *, full: bool
) -> AuditReport | None:
    from guidance_agent.cli.records import records_to_read
    from guidance_agent.compliance.audit_report import audit_report
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.errors import UnknownAuditError

    clock = SystemClock()
    now = clock.now()
    first, after = period.first_moment(since, now), period.moment_after(until, now)
    async with records_to_read(settings) as records:
        if records is None:
            if run_id is not None:
                raise UnknownAuditError(f"There is no audit {run_id!r}: nothing is on record yet.")
            return None
        return await audit_report(records, clock, run_id=run_id, since=first, until=after, full=full)


def _no_records(settings: Settings, *, as_json: bool) -> str:
    from guidance_agent.cli.records import place_of_records

    if as_json:
        return "null\n"
    return f"Nothing is on record in {place_of_records(settings)} yet.\n"


def _ended(work: Callable[[], Awaitable[ExitCode]]) -> ExitCode:
    """Do the work; what may work later has the status that says so."""

    async def begin() -> ExitCode:
        return await work()

    try:
        return asyncio.run(begin())
    except DatabaseUnavailableError as error:
        show_error(str(error))
        return ExitCode.TRY_LATER
    except ModelError as error:
        show_error(str(error))
        return ExitCode.TRY_LATER if error.retryable else ExitCode.MODEL

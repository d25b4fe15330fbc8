"""`guidance-agent worker`: work in the background, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import Margin, show_error
from guidance_agent.cli.output import json_line, write_output

if TYPE_CHECKING:
    from guidance_agent.compliance.judging import BackgroundJudging, Drained
    from guidance_agent.core.annotation_delivery import Delivered
    from guidance_agent.runtime import Runtime
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "worker"]

EXAMPLES = (
    "guidance-agent worker --once",
    "GUIDANCE_DATABASE_URL=postgresql://… guidance-agent worker",
    "guidance-agent worker --once --json --data-dir /srv/guidance",
)
_TELL_SECONDS = 1.0


def worker(
    once: Annotated[
        bool, typer.Option("--once", help="Do what is due and leave; status 4 says that the judge failed for some.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")] = False,
    data_dir: options.DataDir = None,
    quiet: options.Quiet = False,
) -> ExitCode:
    """Judge the answers that wait, send their verdicts to Phoenix, and close the turns of processes that died.

    Every process does that for itself unless GUIDANCE_BACKGROUND is false. Any number of workers may run beside each
    other on PostgreSQL; each answer is judged by one of them. Ctrl-C or SIGTERM stops one; what it was at stays due.
    With GUIDANCE_JOBS__SCHEDULE it runs the jobs of batches at their times too.
    """
    settings = options.load_settings(data_dir=data_dir).model_copy(update={"background": True})
    margin = Margin(notes=not quiet and not as_json)
    return asyncio.run(_work(settings, margin, once=once, as_json=as_json))


async def _work(settings: Settings, margin: Margin, *, once: bool, as_json: bool) -> ExitCode:
    from guidance_agent.runtime import Runtime

    async with Runtime(settings, role="worker", schedules=not once) as runtime:
        judging = runtime.judging
        if judging is None:
            return ExitCode.DEFECT
        if runtime.simulated:
            margin.simulated()
        if once:
            return await _drain(runtime, judging, margin, as_json=as_json)
        return await _serve(judging, margin, as_json=as_json)


async def _drain(runtime: Runtime, judging: BackgroundJudging, margin: Margin, *, as_json: bool) -> ExitCode:
    from guidance_agent.core.annotation_delivery import Delivered

    closed = await runtime.close_dead_turns()
    drained = await judging.drain()
    delivered = Delivered(0, 0) if runtime.annotations is None else await runtime.annotations.drain()
    if as_json:
        told = {"closed": len(closed), **drained._asdict(), "annotations": delivered._asdict()}
        write_output(json_line(told))
    else:
        margin.note(_line(len(closed), drained, delivered))
    if drained.waiting:
        why = next(iter(drained.waiting.values()))
        show_error(
            f"{len(drained.waiting)} answers still wait for their verdict, because the judge failed: {why} Run the "
            "worker again when it can be reached."
        )
    if drained.given_up:
        show_error(
            f"{drained.given_up} answers could not be judged and wait for a person. See `guidance-agent review list`."
        )
    return ExitCode.MODEL if drained.waiting or drained.given_up else ExitCode.DONE


def _line(closed: int, drained: Drained, delivered: Delivered) -> str:
    dead = f"{closed} turns of dead processes closed; " if closed else ""
    left = f", {delivered.waiting} wait for it" if delivered.waiting else ""
    sent = f" {delivered.sent} annotations delivered to Phoenix{left}." if any(delivered) else ""
    return f"{dead}{drained.judged} answers judged, {len(drained.waiting)} still waiting.{sent}"


async def _serve(judging: BackgroundJudging, margin: Margin, *, as_json: bool) -> ExitCode:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if sys.stderr.isatty():
        margin.note("Working in the background; Ctrl-C stops it.")
    told = (-1, -1)
    while not stop.is_set():
        backlog = await judging.backlog()
        if (judging.judged, backlog.pending) != told:
            told = (judging.judged, backlog.pending)
            values = {"judged": judging.judged, "waiting": backlog.pending, "unjudged": backlog.unjudged}
            if as_json:
                write_output(json.dumps(values) + "\n")
            else:
                margin.note(f"{judging.judged} judged, {backlog.pending} waiting, {backlog.unjudged} for a person")
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
    return ExitCode.DONE

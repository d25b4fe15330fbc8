"""`guidance-agent stats`: how model calls went, per provider and model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guidance_agent.cli import options, period
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import write_output

if TYPE_CHECKING:
    from datetime import datetime

    from guidance_agent.core.call_report import CallFigures, CallReport
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "stats"]

EXAMPLES = (
    "guidance-agent stats",
    "guidance-agent stats --since 24h",
    "guidance-agent stats --since 2026-11-01 --until 2026-11-30 --json",
)


def stats(
    since: period.Since = None,
    until: period.Until = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the figures as one JSON object.")] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show pace, retries, waits for limits and savings of model calls, from the record of every one.

    A saving is what the same tokens would have cost without caching, or outside a batch, minus what they did cost.
    """
    import asyncio

    from guidance_agent.core.clock import SystemClock

    settings = options.load_settings(data_dir=data_dir)
    now = SystemClock().now()
    found = asyncio.run(_find(settings, period.first_moment(since, now), period.moment_after(until, now)))
    if as_json:
        write_output(json.dumps(_as_json(found), indent=2) + "\n")
    elif not found.lines:
        from guidance_agent.cli.records import place_of_records

        write_output(
            f"No model call of this period is on record in {place_of_records(settings)}. Leave out --since and "
            '--until, or ask something first: guidance-agent ask "What is drawdown?"\n'
        )
    else:
        write_output("\n".join(_as_text(line) for line in found.lines))
    return ExitCode.DONE


async def _find(settings: Settings, since: datetime | None, until: datetime | None) -> CallReport:
    from guidance_agent.cli.records import records_to_read
    from guidance_agent.core.call_report import CallReport, call_report

    async with records_to_read(settings) as records:
        if records is not None:
            return await call_report(records, since=since, until=until)
    return CallReport(since=since, until=until, lines=())


def _as_json(report: CallReport) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "since": None if report.since is None else report.since.isoformat(),
        "until": None if report.until is None else report.until.isoformat(),
        "models": [{**asdict(line), "retry_success_rate": line.retry_success_rate} for line in report.lines],
    }


def _as_text(line: CallFigures) -> str:
    others = line.calls - line.completed - line.failed
    told = [
        ("calls", f"{line.calls:,}: {line.completed:,} completed, {line.failed:,} failed, {others:,} left early"),
        ("streams", _streams(line)),
        ("retries", _retries(line)),
        ("limits", _limits(line)),
        ("cost", _money(line.cost_usd, "no price known")),
        ("saved by caching", _money(line.cache_saved_usd, "not known")),
        ("saved by batches", _money(line.batch_saved_usd, "no batch")),
    ]
    title = f"{line.model} (simulated: nobody paid)" if line.simulated else line.model
    return "\n".join([title, *(f"  {name:<17} {value}" for name, value in told)]) + "\n"


def _streams(line: CallFigures) -> str:
    if line.first_token_seconds is None:
        return "none"
    pace = "" if line.tokens_per_second is None else f", then {line.tokens_per_second:,.0f} tokens a second"
    return f"first token after {line.first_token_seconds:.2f} s on average{pace}"


def _retries(line: CallFigures) -> str:
    if line.retry_success_rate is None:
        return "none"
    return f"{line.retried:,} calls were sent again, {line.retry_success_rate:.0%} of them with success"


def _limits(line: CallFigures) -> str:
    refused = f"{line.refused:,} refusals (429)" if line.refused else "no refusal (429)"
    if not line.waited:
        return f"{refused}, nobody queued"
    mean = line.waited_seconds / line.waited
    return f"{refused}, {line.waited:,} calls queued for {mean:.2f} s on average, {line.longest_wait:.2f} s at most"


def _money(usd: float | None, unknown: str) -> str:
    return unknown if usd is None else f"${usd:,.4f}"

"""Reports of the jobs, their status and lists of jobs, for a person; and as plain values where they have none."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from guidance_agent.core.batch_jobs import JobReport, JobsStatus, Money, WorkReport
from guidance_agent.core.batch_processing import BatchResult, BatchStatus
from guidance_agent.core.jobs.figures import OpenBatch
from guidance_agent.core.jobs.runs import JobRun

__all__ = ["cancelled_as_text", "jobs_as_text", "report_as_text", "result_as_json", "status_as_json", "status_as_text"]

_WIDTH_OF_A_FILE = 140
_SIMULATED = "Simulated: nobody paid for this; the money is what items of this size would cost at list price."


def report_as_text(report: JobReport) -> str:
    """Return what a run did: a table of works, the money, and what is to be done."""
    if report.idle and report.outcome == "done":
        return f"The {report.job} job had nothing to do: nothing was submitted, and nothing waits.\n"
    page = _Page()
    page.table(_works_table(report.works))
    page.lines(_standings(report.works))
    page.lines(_money_lines(report.money))
    page.lines(_troubles(report.works))
    page.lines([f"The {report.job} job took {report.seconds:.1f} s, in {report.rounds} rounds."])
    return page.text


def status_as_text(status: JobsStatus) -> str:
    """Return how everything stands."""
    page = _Page()
    if status.running is not None:
        page.lines(
            [f"A run is at work since {status.running.taken_at:%Y-%m-%d %H:%M:%S} UTC: {status.running.holder}."]
        )
    page.table(_works_table(status.works, opened=False))
    page.lines(_standings(status.works))
    total = Money()
    for work in status.works:
        total = total.plus(work.money)
    page.lines(_money_lines(total))
    page.lines(_troubles(status.works))
    if status.batches:
        page.table(_batches_table(status.batches))
    page.lines([*map(_run_line, status.runs)] or ["The jobs have not been run yet."])
    return page.text


def cancelled_as_text(keys: Sequence[str]) -> str:
    """Return what was cancelled, in a line."""
    if not keys:
        return "No job is open.\n"
    jobs = "1 job is" if len(keys) == 1 else f"{len(keys)} jobs are"
    return f"{jobs} cancelled; the next run collects what was answered before.\n"


def jobs_as_text(jobs: Sequence[BatchStatus]) -> str:
    """Return a table of jobs."""
    if not jobs:
        return "No job is on record.\n"
    page = _Page()
    table = _table("job", "kind", "state", "created", "items", "applied", "outcomes", "cost", "saved")
    for job in jobs:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(job.outcomes.items()))
        money = (
            (_usd(job.cost_usd), _usd(job.saved_usd)) if job.interactive_usd or not job.unpriced else ("unknown",) * 2
        )
        created = f"{job.created_at:%Y-%m-%d %H:%M}"
        state = f"{job.state}, needs a person" if job.needs_person else job.state
        table.add_row(job.job_key, job.kind, state, created, str(job.items), str(job.applied), outcomes, *money)
    page.table(table)
    return page.text


def status_as_json(status: BatchStatus) -> dict[str, Any]:
    """Return a job and its batches as plain values."""
    return {
        **asdict(status),
        "created_at": status.created_at.isoformat(),
        "outcomes": dict(status.outcomes),
        "batches": [asdict(batch) for batch in status.batches],
        "saved_usd": status.saved_usd,
        "needs_person": status.needs_person,
    }


def result_as_json(result: BatchResult) -> dict[str, Any]:
    """Return a result as plain values; what was read from the answer is its text."""
    return {
        "custom_id": result.custom_id,
        "success": result.success,
        "outcome": result.outcome,
        "response": result.response,
        "cost_usd": result.cost,
        "interactive_usd": result.interactive_cost,
        "error": result.error,
        "error_type": result.error_type,
        "attempts": result.attempts,
        "route": result.route,
        "simulated": result.simulated,
        "metadata": dict(result.metadata),
    }


class _Page:
    """Text with tables, as wide as whoever reads it."""

    def __init__(self) -> None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_OF_A_FILE
        self._console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)

    def table(self, table: Table) -> None:
        self._console.print(table)

    def lines(self, lines: Sequence[str] | Iterator[str]) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True)

    @property
    def text(self) -> str:
        out = self._console.file
        return (
            "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
            if isinstance(out, io.StringIO)
            else ""
        )


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _works_table(works: Sequence[WorkReport], *, opened: bool = True) -> Table:
    counts = ("new", "submitted", "answered", "applied", "failed")[0 if opened else 1 :]
    table = _table("work", *counts, "cost", right=(*counts, "cost"))
    for work in works:
        figures = (work.opened, work.submitted, work.answered, work.applied, work.failed)[0 if opened else 1 :]
        table.add_row(work.name, *(f"{figure:,}" for figure in figures), _usd(work.money.cost_usd))
    return table


def _standings(works: Sequence[WorkReport]) -> Iterator[str]:
    for work in works:
        if work.waiting:
            yield f"{work.name} goes on: {_counts(work.waiting)}."
        if work.ended:
            yield f"{work.name} has ended, in all runs: {_counts(work.ended)}."


def _batches_table(batches: Sequence[OpenBatch]) -> Table:
    table = _table("batch", "kind", "state", "items", "model", "why")
    for batch in batches:
        table.add_row(batch.id, batch.kind, batch.state, str(batch.items), batch.model, batch.reason or "")
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _money_lines(money: Money) -> Iterator[str]:
    if money.cost_usd is None or money.interactive_usd is None:
        yield f"What it cost is not known: {money.unpriced} items of models without a price (GUIDANCE_PRICES_FILE)."
    elif money.interactive_usd:
        yield (
            f"Paid {_usd(money.cost_usd)}; the same at once would have cost {_usd(money.interactive_usd)}: "
            f"{_saved(money)} saved."
        )
        if money.unpriced:
            yield f"{money.unpriced} items of models without a price are in no sum (GUIDANCE_PRICES_FILE)."
    if money.cache_read_share is not None:
        yield f"{money.cache_read_share:.0%} of {money.input_tokens:,} input tokens were read from a cache."
    if money.simulated:
        yield _SIMULATED


def _troubles(works: Sequence[WorkReport]) -> Iterator[str]:
    for work in works:
        if work.error is not None:
            yield f"{work.name} failed and the others went on: {work.error}"
        yield from (f"{work.name} needs a person: {each}" for each in work.needs_person)
        yield from (f"{work.name} waits, and is tried again by a later run: {each}" for each in work.delayed)


def _run_line(run: JobRun) -> str:
    words = {"needs_person": "needs a person", "try_later": "try later", "died": "its process died"}
    ended = "" if run.ended_at is None else f" until {run.ended_at:%H:%M:%S}"
    state = words.get(run.state, run.state)
    return f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC{ended}  {run.job:<9}  {state}  ({run.holder})"


def _usd(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.4f}"


def _saved(money: Money) -> str:
    share = "" if money.saved_share is None else f" ({money.saved_share:.1%})"
    return f"{_usd(money.saved_usd)}{share}"

"""A day's answers in the records, the jobs over them, and what they leave, without what differs from run to run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.batch_runtime import open_batch_jobs
from guidance_agent.core.batch_jobs import JobReport
from guidance_agent.core.memory_windows import WINDOW_SIZE
from guidance_agent.core.schema import batch_items, batch_jobs, reflections, rules, verdicts
from guidance_agent.core.schema_audit import audit_turns
from guidance_agent.core.schema_insights import insight_reports
from guidance_agent.core.schema_memory import memory_windows
from guidance_agent.errors import JobLockedError
from tests.integration.core.batch_desk import FAST
from tests.integration.learning.failing import add_turn
from tests.integration.learning.remembering import SAID, observe
from tests.integration.learning.reporting import add_consultation

__all__ = ["FAILED", "NIGHT", "PASSED", "a_day", "canonical", "night_and_afternoons", "of", "waits"]

NIGHT = replace(FAST, lease=2.0)
"""What a dead process had is free soon."""

FAILED = tuple(f"failed-{number}" for number in range(4))
PASSED = ("passed-0", "passed-1", "yesterday-0")


async def a_day(runtime: Runtime) -> None:
    """Add answers that failed and answers that passed, one of yesterday, and what a customer has said."""
    for name in FAILED:
        await add_turn(runtime, name)
    for name in PASSED[:-1]:
        await add_turn(runtime, name, text="A pension is taxed when it is taken out.", judgement="passed")
    yesterday = runtime.clock.now() - timedelta(days=1)
    await add_consultation(runtime, "yesterday", ended=(yesterday,), simulated=False)
    await observe(runtime, "janet-56", (SAID * 2)[:WINDOW_SIZE], simulated=False)


def waits(report: JobReport) -> bool:
    return any(work.waiting for work in report.works)


async def night_and_afternoons(runtime: Runtime, *, first: str = "nightly", seconds: float = 40.0) -> list[JobReport]:
    """Run the nightly job, and the afternoon job until nothing waits; while another run is at work, wait for it."""
    reports: list[JobReport] = []
    async with asyncio.timeout(seconds), open_batch_jobs(runtime, options=NIGHT) as jobs:
        while not reports or waits(reports[-1]):
            with contextlib.suppress(JobLockedError):
                reports.append(await (jobs.nightly() if not reports and first == "nightly" else jobs.afternoon()))
            await asyncio.sleep(0.05)
    return reports


async def canonical(runtime: Runtime) -> dict[str, list[Any]]:
    """Return everything that the jobs have made, sorted, without times, ids, and who did it."""

    def read(connection: sa.Connection) -> dict[str, list[Any]]:
        def rows(query: sa.Select[Any]) -> list[Any]:
            return sorted((tuple(row) for row in connection.execute(query)), key=repr)

        found = connection.execute(sa.select(rules.c.text, rules.c.status, rules.c.confidence, rules.c.evidence))
        made = [
            (row.text, row.status, round(row.confidence, 9), sorted(origin["turn_id"] for origin in row.evidence))
            for row in found
        ]
        given = sa.select(verdicts.c.turn_id, verdicts.c.purpose, verdicts.c.passed)
        item = batch_items.c
        items = sa.select(batch_jobs.c.kind, item.state, item.outcome, sa.func.count())
        items = items.join(batch_jobs, batch_jobs.c.id == item.job_id)
        return {
            "rules": sorted(made, key=repr),
            "reflections": rows(sa.select(reflections.c.turn_id, reflections.c.stage)),
            "merged": rows(sa.select(reflections.c.outcome, sa.func.count()).group_by(reflections.c.outcome)),
            "audits": rows(sa.select(audit_turns.c.turn_id, audit_turns.c.state, audit_turns.c.outcome)),
            "verdicts": sorted(
                (row.turn_id, row.purpose.partition(":")[0], row.passed) for row in connection.execute(given)
            ),
            "items": rows(items.group_by(batch_jobs.c.kind, item.state, item.outcome)),
            "windows": rows(sa.select(memory_windows.c.customer_id, memory_windows.c.stage)),
            "reports": rows(sa.select(insight_reports.c.stage)),
            "open": rows(sa.select(batch_jobs.c.id).where(batch_jobs.c.state != "done")),
        }

    return await runtime.database.run(read)


def of(reports: Sequence[JobReport], work: str, figure: str) -> int:
    """Return the sum of a figure of a work over several runs."""
    return sum(getattr(each, figure) for report in reports for each in report.works if each.name == work)

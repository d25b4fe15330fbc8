"""Processes killed with SIGKILL while they work on batches: each item applied once, each attempt paid for once.

A worker submits a job and works on it to its end, on either wire, with the simulator as a process of its own that has
every fifth attempt fail, so that jobs have further rounds. It is killed, another one begins in its place and is killed,
too, and only the last one may end the job. It is killed at each named crash point, and at moments that are spread over
the whole life of a job. Several jobs run at a time, on SQLite and on PostgreSQL, in one account of the provider. Run it
with `make chaos`, or as `python -m benchmarks.run --only batch_kills`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
import sqlalchemy as sa

from benchmarks.batch_kill_evidence import FOUND, applied_table
from benchmarks.batch_kill_nursery import MODELS, OPTIONS
from benchmarks.batch_kill_run import PER_JOB, Kills, Work, kill_at_moments, kill_at_points
from benchmarks.rows import Place, Row
from guidance_agent.core.database import Database
from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess

__all__ = ["ITEMS", "SIMULATOR", "conditions", "kill_and_look", "run", "seen", "some_attempts_fail"]

SIMULATOR = ("--instant", "--no-bodies", "--batch-window", "86400", "--batch-duration", "0.15")
ITEMS = 36
_FAILING = 0.2
_LANES = 3


def some_attempts_fail() -> Fault:
    """Return what has some attempts fail; which ones follows from their ids."""
    return Fault(kind="status", status=500, operation="batches.item", times=None, share=_FAILING)


async def seen(provider_url: str) -> Mapping[str, int]:
    """Return which attempts the provider has taken more than once, and how often."""
    async with aiohttp.ClientSession() as session, session.get(f"{provider_url}/_simulator/seen") as answer:
        repeated: dict[str, int] = (await answer.json())["repeated"]
        return repeated


async def kill_and_look(work: Work, *, kills: int, points: bool) -> Kills:
    """Kill workers at moments, and at the crash points where these are asked for; return what became of their jobs."""
    await applied_table(work.database)
    outcome = await kill_at_moments(work, kills=kills)
    if points:
        at_points = await kill_at_points(replace(work, name=f"{work.name}-at"))
        outcome.kills += at_points.kills
        outcome.at_points += at_points.at_points
        outcome.jobs += at_points.jobs
        outcome.violations += at_points.violations
    return outcome


def _rows(column: str, outcome: Kills) -> list[Row]:
    def row(name: str, value: float, *, target: str = "", broken: bool = False) -> Row:
        return Row(
            name=f"{name}, {column}",
            unit="",
            value=round(value, 2),
            floor=None,
            ratio=None,
            target=target,
            place=Place(table="what", line=f"{name} (must be {target})" if target else name, column=column),
            broken=broken,
        )

    violations = len(outcome.violations)
    return [
        row("processes killed", outcome.kills),
        row("at a crash point", outcome.at_points),
        row("at a moment", outcome.kills - outcome.at_points),
        *(row(f"then the job was found: {state}", outcome.states[state]) for state in FOUND),
        row("jobs", outcome.jobs),
        row("items, each applied once", outcome.jobs * ITEMS),
        row("seconds that an undisturbed job takes", outcome.life),
        row("violations", violations, target="0", broken=bool(violations)),
    ]


async def _look_at_all(urls: Mapping[str, sa.URL], provider_url: str, *, quick: bool) -> list[Row]:
    rows: list[Row] = []
    for wire in MODELS:
        for name, url in urls.items():
            async with Database(url) as database:
                work = Work(
                    database=database,
                    provider_url=provider_url,
                    wire=wire,
                    name=f"{name.lower()}-{wire}",
                    items=ITEMS,
                    lanes=_LANES,
                )
                outcome = await kill_and_look(work, kills=12 if quick else 100, points=not quick)
            for violation in outcome.violations:
                print(f"{wire}, {name}: {violation}", file=sys.stderr)
            rows += _rows(f"{wire}, {name}", outcome)
    return [*rows, _account(await seen(provider_url))]


def _account(repeated: Mapping[str, int]) -> Row:
    return Row(
        name="attempts that the provider has taken twice",
        unit="",
        value=len(repeated),
        floor=None,
        ratio=None,
        target="0",
        broken=bool(repeated),
    )


def run(*, quick: bool = False) -> Sequence[Row]:
    """Kill processes on SQLite and, where a package brings the server, on PostgreSQL; return the figures."""
    from tests.postgres_server import PostgresMissing, PostgresServer

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": sa.make_url(f"sqlite:///{folder / 'guidance.db'}")}
        try:
            url = stack.enter_context(stack.enter_context(PostgresServer(durable=True)).database())
            urls["PostgreSQL"] = sa.make_url(url)
        except PostgresMissing as error:
            print(error, file=sys.stderr)
        arguments = (*SIMULATOR, "--state", str(folder / "simulator.json"))
        simulator = stack.enter_context(ProviderSimulatorProcess(arguments))
        simulator.add_faults(some_attempts_fail())
        return asyncio.run(_look_at_all(urls, simulator.base_url, quick=quick))


def conditions() -> str:
    """Return what was measured, in words."""
    return (
        f"Leases of {OPTIONS.lease:g} s, a grace period of {OPTIONS.grace:g} s, {ITEMS} items to a job in batches of "
        f"{OPTIONS.most_items} at most, {OPTIONS.items_per_transaction} items to a transaction, {_LANES} jobs at a "
        f"time, up to {PER_JOB} processes killed one after the other on each. Every fifth attempt was made to fail."
    )

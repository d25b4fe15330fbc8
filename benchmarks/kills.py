"""Processes killed with SIGKILL while they stream and judge: what was shown, what the records hold, who does the rest.

Children stream several turns each, over both wires, to a pipe; what this process has read from the pipe is what was
shown. They judge what waits, too, and sweep the records, as every process of a service does. Each is killed at a moment
of its own, and another one begins in its place. Meanwhile other children live: they stream turns that outlast a lease,
some of them silent for longer than a lease is renewed in. When all have gone, a worker judges what is still due, and
every turn must have its one verdict. All of them share one database. The times of leases and sweeps are the product's
own unless the run is a quick one. Run it with `make chaos`, which is `python -m benchmarks.run --only kills`.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.kill_run import DOOMED, LIVING, Outcome, kill_and_look
from benchmarks.kill_streams import KINDS
from benchmarks.rows import Place, Row
from guidance_agent.core.journal import LEASE_SECONDS
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.runtime import SWEEP_SECONDS
from guidance_agent.settings import Settings

__all__ = ["conditions", "run"]

_HURRY = 5.0


def _rows(database: str, outcome: Outcome) -> list[Row]:
    def row(name: str, value: float, unit: str = "", *, target: str = "", broken: bool = False) -> Row:
        line = f"{name}, {unit}" if unit else name
        return Row(
            name=f"{name}, {database}",
            unit=unit,
            value=round(value, 1),
            floor=None,
            ratio=None,
            target=target,
            place=Place(table="what", line=f"{line} (must be {target})" if target else line, column=database),
            broken=broken,
        )

    since_kill, since_lease = outcome.closed_after_kill or [0.0], outcome.closed_after_lease or [0.0]
    since_cut, violations = outcome.judged_after_kill or [0.0], len(outcome.violations)
    return [
        row("processes killed", outcome.kills),
        row("their turns", sum(outcome.turns.values())),
        *(row(f"their turns, {state} at the kill", number) for state, number in outcome.turns.items()),
        row("characters shown", outcome.characters),
        row("journaled but not yet shown, most of a turn", outcome.most_unseen, "characters"),
        row("from kill to closed turn, median", statistics.median(since_kill), "s"),
        row("from kill to closed turn, longest", max(since_kill), "s"),
        row(
            "from the end of the lease to closed turn, longest",
            max(since_lease),
            "s",
            target=f"≤ {outcome.closed_within:g}",
        ),
        row("turns of living processes", outcome.live_turns),
        row("of them longer than a lease", outcome.longer_than_a_lease),
        row("of them taken", outcome.live_turns_taken, target="0", broken=bool(outcome.live_turns_taken)),
        row("verdicts", outcome.verdicts),
        row("delivered and never judged", outcome.unjudged, target="0", broken=bool(outcome.unjudged)),
        row("judged twice", outcome.judged_twice, target="0", broken=bool(outcome.judged_twice)),
        row("verdicts given by the worker at the end", outcome.drained),
        row("judge asked, per verdict", outcome.asked_per_verdict, "times"),
        row("killed while DBOS started", outcome.killed_starting),
        row("judgings cut off in the judge's call", outcome.cut["asked"]),
        row("judgings cut off before the verdict was known to be stored", outcome.cut["answered"]),
        row("from kill to the verdict of a judging that was cut off, longest", max(since_cut), "s"),
        row("corrections", outcome.corrections),
        row("violations", violations, target="0", broken=bool(violations)),
    ]


async def _look_at_all(databases: Mapping[str, Settings], provider_url: str, *, quick: bool) -> list[Row]:
    kills, hurry = (20, _HURRY) if quick else (200, 1.0)
    alone = asyncio.Lock()
    # While the turns that were left on one database wait for their leases to run out, the next one has its kills.
    async with asyncio.TaskGroup() as group:
        looks = {
            name: group.create_task(
                kill_and_look(settings, provider_url, kills=kills, at_once=6, hurry=hurry, alone=alone)
            )
            for name, settings in databases.items()
        }
    for name, look in looks.items():
        for violation in look.result().violations:
            print(f"{name}: {violation}", file=sys.stderr)
    return [row for name, look in looks.items() for row in _rows(name, look.result())]


def run(*, quick: bool = False) -> list[Row]:
    """Kill processes on SQLite and, where a package brings the server, on PostgreSQL; return the figures."""
    from tests.postgres_server import PostgresMissing, PostgresServer

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        databases = {"SQLite": Settings.load(data_dir=folder, database_url=f"sqlite:///{folder / 'guidance.db'}")}
        try:
            url = stack.enter_context(stack.enter_context(PostgresServer(durable=True)).database())
            databases["PostgreSQL"] = Settings.load(data_dir=folder, database_url=url)
        except PostgresMissing as error:
            print(error, file=sys.stderr)
        simulator = stack.enter_context(ProviderSimulatorProcess(["--instant", "--any-model", "--no-bodies"]))
        return asyncio.run(_look_at_all(databases, simulator.base_url, quick=quick))


def conditions() -> str:
    """Return what was measured, in words."""
    return (
        f"The product's own times: leases of {LEASE_SECONDS:g} s, a sweep every {SWEEP_SECONDS:g} s in each process (a "
        f"quick run divides them by {_HURRY:g}). {LIVING} processes lived; each killed process had {len(DOOMED)} "
        f"streams. Every fourth verdict was made to fail, so that there are corrections. Moments of the kills: "
        f"{', '.join(KINDS)}."
    )

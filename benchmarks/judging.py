"""What judging in the background costs the turns that run meanwhile, on each database.

    python -m benchmarks.judging [--database sqlite|postgresql|both] [--quick]

200 turns that have said something end at once; their ends are committed, and DBOS judges them four at a time with a
judge that takes 20 ms. Meanwhile one more turn writes a piece of text every 5 ms and waits for its commit, and the loop
is asked how late it is. No model: the judge is scripted. The floor of the commits is the same probe before anything is
judged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.advisor_path import DATABASES, database_urls
from benchmarks.journal import LABELS, TEXT, Turn
from benchmarks.model_door import row
from benchmarks.pages import tables
from benchmarks.rows import Row
from guidance_agent import Settings
from guidance_agent.compliance.judging import BackgroundJudging
from guidance_agent.compliance.turn_judge import TurnJudge
from guidance_agent.compliance.verdict import CHECKS, CheckResult, Verdict
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.durable import DurableRunner, Perform, open_runner
from guidance_agent.core.journal import Journal, JournalWrite
from guidance_agent.core.slots import WorkerSlot
from guidance_agent.core.transcript import text_hash
from guidance_agent.core.verdicts import VerdictRecords

__all__ = ["run"]

TURNS, JUDGE_SECONDS, PROBE_SECONDS = 200, 0.02, 0.005
_SETTLE_SECONDS = 0.1


class EndingTurn(Turn):
    """A turn that says its one piece of text and, asked to, ends in one commit."""

    ending = False

    def end(self) -> None:
        self.ending = True
        self.write()

    def take(self) -> JournalWrite:
        write = super().take()
        if self.ending:
            length = 2 * len(TEXT)
            write.turn_values.update(
                state="completed",
                ended_at=self._clock.now(),
                text_length=length,
                delivered_length=length,
                text_hash=text_hash(2 * TEXT),
                finish_reason="stop",
                judgement="pending",
            )
            write.ends = True
        return write


class Judge:
    """Passes everything after a while."""

    policy_version = "benchmark"

    async def validate(self, text: str, **_: Any) -> Verdict:
        await asyncio.sleep(JUDGE_SECONDS)
        checks = [
            CheckResult(check=check, status="pass", requirement="R", explanation="", source="judge") for check in CHECKS
        ]
        return Verdict(
            checks=tuple(checks), confidence=1.0, reasoning="", policy_version="benchmark", text_hash=text_hash(text)
        )


async def _probe(
    journal: Journal, clock: SystemClock, name: str, done: Callable[[], bool]
) -> tuple[float, float, float]:
    """Write pieces until `done`; return the 99th percentile and the longest wait, and the loop's lag p99, in ms."""
    turn, late = Turn(journal, clock, name), []
    while not done():
        turn.write()
        began = time.perf_counter()
        await asyncio.sleep(PROBE_SECONDS)
        late.append(time.perf_counter() - began - PROBE_SECONDS)
    await turn.landed()
    waits = statistics.quantiles(turn.waits, n=100)[98]
    return waits * 1e3, max(turn.waits) * 1e3, statistics.quantiles(late, n=100)[98] * 1e3


async def _measure(database: str, url: str | None, folder: Path) -> list[Row]:
    label, clock = LABELS[database], SystemClock()
    settings = Settings.load(data_dir=folder, database_url=url)
    async with Database(database_url(settings)) as records, Journal(records, clock, owner="benchmark") as journal:
        verdicts = VerdictRecords(records, clock)
        slot = WorkerSlot(records, clock, host="benchmark", role="app", holder="benchmark")
        judge = TurnJudge(verdicts, Judge(), clock, deadline=timedelta(days=1), at_once=4, announce=journal.announce)

        async def opened(perform: Perform, ended: Callable[[], None]) -> DurableRunner:
            return await open_runner(records.url, slot, perform, ended=ended)

        awake = asyncio.Event()
        judging = BackgroundJudging(verdicts, judge, clock, opened, is_quiet=lambda: True, ended=awake.set, eager=True)
        async with judging:
            # One turn first, so that importing and launching DBOS is not in the figures.
            await _ended(await _begun(journal, clock, 1, "warm"))
            await judging.drain()
            turns = await _begun(journal, clock, TURNS, "turn")
            # The journal pauses after a commit of many turns, which is not what is measured here.
            await asyncio.sleep(_SETTLE_SECONDS)
            end = time.perf_counter() + 1.0
            quiet, _, _ = await _probe(journal, clock, "quiet", lambda: time.perf_counter() > end)
            begun = time.perf_counter()
            probing = asyncio.create_task(_probe(journal, clock, "busy", lambda: judge.judged > TURNS))
            ends = await _ended(turns)
            while judge.judged <= TURNS:
                await judging.run()
                awake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await awake.wait()
            judged = time.perf_counter() - begun
            busy, longest, lag = await probing
    return [
        _plain(f"200 turns end at once: all ends on disk, {label}", "s", ends, "≤ 0.3"),
        row(f"wait for a commit p99 while they are judged, {label}; floor: before", "ms", (busy, quiet), "≤ 50"),
        _plain(f"longest wait for a commit meanwhile, {label}", "ms", longest),
        _plain(f"event loop late p99 meanwhile, {label}", "ms", lag),
        _plain(f"200 turns judged, 20 ms each, four at a time, {label}", "s", judged),
    ]


async def _begun(journal: Journal, clock: SystemClock, number: int, name: str) -> list[EndingTurn]:
    """Have turns say something."""
    turns = [EndingTurn(journal, clock, f"{name}-{index}") for index in range(number)]
    for turn in turns:
        turn.write()
    for turn in turns:
        await turn.landed()
    return turns


async def _ended(turns: Sequence[EndingTurn]) -> float:
    """Have turns end together; return how long the ends took."""
    began = time.perf_counter()
    for turn in turns:
        turn.end()
    for turn in turns:
        await turn.landed()
    return time.perf_counter() - began


def _plain(name: str, unit: str, value: float, target: str = "") -> Row:
    return Row(name=name, unit=unit, value=round(value, 2), floor=None, ratio=None, target=target)


def _imported(rounds: int) -> float:
    """Seconds that importing DBOS adds to a process that has the records open."""
    program = (
        "import time, sqlalchemy, pydantic, aiohttp, guidance_agent.core.database; began = time.perf_counter(); "
        "import guidance_agent.core.durable_dbos; print(time.perf_counter() - began)"
    )
    taken = [float(subprocess.check_output([sys.executable, "-c", program], text=True)) for _ in range(rounds)]
    return statistics.median(taken)


def run(*, quick: bool = False, databases: Sequence[str] = DATABASES) -> list[Row]:
    """Measure everything and return the figures."""
    rows: list[Row] = [_plain("import of DBOS, after the first turn's end", "s", _imported(1 if quick else 5))]
    with database_urls(databases) as urls, tempfile.TemporaryDirectory() as folder:
        for database, url in urls.items():
            rows += asyncio.run(_measure(database, url, Path(folder)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure judging in the background.")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    print(tables(run(quick=options.quick, databases=DATABASES if options.database == "both" else (options.database,))))


if __name__ == "__main__":
    main()

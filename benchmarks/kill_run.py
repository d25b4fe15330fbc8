"""Kills processes that stream and judge on one database while others live, and looks at what the records hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from benchmarks.kill_child import Job
from benchmarks.kill_evidence import RecordedTurn, contradictions, recorded_turns, still_streaming
from benchmarks.kill_streams import Moment, Streams, moments
from benchmarks.kill_verdicts import judgement_contradictions, recorded_judgements
from benchmarks.kill_worker import drain
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.journal import LEASE_SECONDS
from guidance_agent.settings import Settings

__all__ = ["CLOSED_WITHIN", "DOOMED", "LIVING", "Outcome", "kill_and_look"]

CLOSED_WITHIN = 60.0
"""Seconds from the end of a lease within which a turn that was left behind must be closed."""

DOOMED = ("anthropic/script-40x25", "openai/script-25x20", "anthropic/script-60x0")
LIVING = 2
_LOOK_SECONDS = 0.25
_GRACE = 5.0


@dataclass(slots=True)
class Orphan:
    """A turn that a killed process left behind, and when somebody closed it, both as monotonic times."""

    turn_id: str
    killed_at: float
    lease_end: float
    closed_at: float | None = None


@dataclass(slots=True)
class Outcome:
    """What a run has found.

    Attributes:
        turns: Turns of killed processes, by what the records held right after the kill.
        most_unseen: Most characters that the journal held of a turn and its reader had not been shown.
        closed_after_kill: Seconds from the kill of a process until one of its turns was seen closed.
        closed_after_lease: The same from the end of the turn's lease.
        closed_within: What `closed_after_lease` must not exceed.
        live_turns: Turns of the processes that lived, and how many of them took longer than a lease.
        verdicts: Verdicts on what was shown, of all processes' turns.
        unjudged: Turns with delivered text that nobody judged, the last worker included.
        judged_twice: Turns with two verdicts, or with one that was told twice.
        corrections: What followed from those that were made to fail.
        drained: Verdicts that were given only by the worker that ran when all others had gone.
        cut: Judgings that a kill found under way, by how far they had come.
        killed_starting: Processes that were killed while DBOS was loaded and launched.
        asked: How often a judge was asked, as far as it was told.
        judged_after_kill: Seconds from the last kill that cut off the judging of a turn to its verdict.
    """

    kills: int = 0
    turns: dict[str, int] = field(
        default_factory=lambda: {"without text": 0, "with some text": 0, "with all text": 0, "ended": 0}
    )
    characters: int = 0
    most_unseen: int = 0
    violations: list[str] = field(default_factory=list)
    closed_after_kill: list[float] = field(default_factory=list)
    closed_after_lease: list[float] = field(default_factory=list)
    closed_within: float = CLOSED_WITHIN
    live_turns: int = 0
    longer_than_a_lease: int = 0
    live_turns_taken: int = 0
    verdicts: int = 0
    unjudged: int = 0
    judged_twice: int = 0
    corrections: int = 0
    drained: int = 0
    cut: dict[str, int] = field(default_factory=lambda: {"asked": 0, "answered": 0})
    killed_starting: int = 0
    asked: int = 0
    judged_after_kill: list[float] = field(default_factory=list)

    @property
    def asked_per_verdict(self) -> float:
        """How often the judge was paid for a verdict that the processes gave, on average; 0 where there is none."""
        given = self.verdicts - self.drained
        return self.asked / given if given else 0.0


class _Run:
    """One database, one simulator, and the processes on them."""

    def __init__(
        self, settings: Settings, database: Database, provider_url: str, hurry: float, alone: asyncio.Lock
    ) -> None:
        self.outcome = Outcome(closed_within=CLOSED_WITHIN / hurry)
        self._settings = settings
        self._database = database
        self._provider_url = provider_url
        self._hurry = hurry
        # Two databases at a time would leave no processor for the moments of the kills.
        self._alone = alone
        self._orphans: list[Orphan] = []
        self._dead: list[Streams] = []

    def job(self, name: str, models: Sequence[str], *, background: bool) -> Job:
        return Job(
            name=name,
            provider_url=self._provider_url,
            data_dir=self._settings.data_dir,
            database_url=self._settings.database_url,
            models=models,
            background=background,
            hurry=self._hurry,
        )

    @contextlib.asynccontextmanager
    async def living(self, number: int) -> AsyncIterator[None]:
        """Processes that stream, judge and sweep while the block runs; then their turns are let end, and looked at."""
        pace, pause = round(450 / self._hurry), round(10_000 / self._hurry)
        models = (f"anthropic/script-80x{pace}", f"openai/script-4x{pause}", DOOMED[0])
        children = [await Streams.start(self.job(f"alive{index}", models, background=True)) for index in range(number)]
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(child.read()) for child in children]
            try:
                yield
                for child in children:
                    child.leave()
                await asyncio.wait(readers)
            finally:
                for child in children:
                    child.send()
        for child, reader in zip(children, readers, strict=True):
            await self._check_living(child, reader.result())

    async def kill_all(self, chosen: Sequence[Moment], at_once: int) -> None:
        waiting = list(enumerate(chosen))

        async def kill_next() -> None:
            while waiting:
                number, moment = waiting.pop(0)
                await self._kill(f"doomed{number}", moment)

        async with self._alone, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(kill_next())

    async def _kill(self, name: str, moment: Moment) -> None:
        child = await Streams.start(self.job(name, DOOMED, background=True))
        try:
            status = await child.read(moment)
        finally:
            child.send()
            child.leave()
        if child.killed_at is None:
            self.outcome.violations.append(f"{name} ended by itself with status {status}")
            return
        self.outcome.kills += 1
        self._dead.append(child)
        found = await recorded_turns(self._database, name)
        self._check(child, found)
        for turn in found.values():
            self._count(turn, child)
        self._count_judging(child)

    def _check(self, child: Streams, found: dict[str, RecordedTurn]) -> None:
        for turn_id in child.shown.keys() | found.keys():
            self.outcome.violations += contradictions(
                found.get(turn_id), child.shown.get(turn_id, ""), child.ended.get(turn_id)
            )

    def _count(self, turn: RecordedTurn, child: Streams) -> None:
        shown = len(child.shown.get(turn.id, ""))
        self.outcome.characters += shown
        self.outcome.most_unseen = max(self.outcome.most_unseen, len(turn.text) - shown)
        if turn.row["state"] != "streaming":
            self.outcome.turns["ended"] += 1
            return
        amount = "all" if len(turn.text) in child.whole else "some"
        self.outcome.turns[f"with {amount} text" if turn.text else "without text"] += 1
        if child.killed_at is not None:
            lease_end = time.monotonic() + turn.row["lease_until"] - time.time()
            self._orphans.append(Orphan(turn.id, child.killed_at, lease_end))

    def _count_judging(self, child: Streams) -> None:
        self.outcome.asked += len(child.judging)
        self.outcome.killed_starting += child.durable == "starting"
        for step in child.judging.values():
            if step != "stored":
                self.outcome.cut[step] += 1

    async def watch_orphans(self, all_killed: asyncio.Event) -> None:
        """Look again and again which turns have been closed, until all are or the promised time is over."""
        while True:
            open_orphans = [orphan for orphan in self._orphans if orphan.closed_at is None]
            if all_killed.is_set() and not open_orphans:
                return
            streaming = await still_streaming(self._database, [orphan.turn_id for orphan in open_orphans])
            for orphan in open_orphans:
                if orphan.turn_id not in streaming:
                    orphan.closed_at = time.monotonic()
            last = max((orphan.lease_end for orphan in open_orphans), default=time.monotonic())
            if all_killed.is_set() and time.monotonic() > last + self.outcome.closed_within + _GRACE:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def check_closed(self) -> None:
        """Look at every turn of the dead once more, now that all have been closed."""
        for child in self._dead:
            found = await recorded_turns(self._database, child.name)
            self._check(child, found)
        for orphan in self._orphans:
            if orphan.closed_at is None:
                self.outcome.violations.append(f"turn {orphan.turn_id}: nobody has closed it")
                continue
            self.outcome.closed_after_kill.append(orphan.closed_at - orphan.killed_at)
            self.outcome.closed_after_lease.append(orphan.closed_at - orphan.lease_end)
            if orphan.closed_at < orphan.lease_end - _LOOK_SECONDS:
                self.outcome.violations.append(f"turn {orphan.turn_id}: closed before its lease had run out")
            if orphan.closed_at > orphan.lease_end + self.outcome.closed_within:
                self.outcome.violations.append(f"turn {orphan.turn_id}: closed too late")

    async def judge_the_rest(self) -> None:
        """Have a worker do what is still due, and look at the verdicts of all turns."""
        done = await drain(self.job("worker", DOOMED, background=True))
        self.outcome.drained = done.judged
        if done.complaint is not None:
            self.outcome.violations.append(done.complaint)
        found = await recorded_judgements(self._database)
        for turn in found.values():
            self.outcome.violations += judgement_contradictions(turn)
            self.outcome.verdicts += len(turn.verdicts)
            self.outcome.unjudged += bool(turn.delivered_length) and turn.judgement not in ("passed", "failed")
            self.outcome.judged_twice += max(len(turn.verdicts), turn.times_told) > 1
            self.outcome.corrections += len(turn.corrections)
        for turn_id, turn in found.items():
            if turn.verdicts and (cut_off := self._last_cut_off(turn_id, turn.verdicts[0].created_at)) is not None:
                self.outcome.judged_after_kill.append((turn.verdicts[0].created_at - cut_off).total_seconds())

    def _last_cut_off(self, turn_id: str, given: datetime) -> datetime | None:
        """Return when the last process was killed that judged a turn before its verdict was given."""
        kills = [
            child.killed_when
            for child in self._dead
            if child.judging.get(turn_id, "stored") != "stored" and child.killed_when is not None
        ]
        return max((when for when in kills if when < given), default=None)

    async def _check_living(self, child: Streams, status: int) -> None:
        if status != 0:
            self.outcome.violations.append(f"{child.name} ended with status {status}")
        self.outcome.asked += len(child.judging)
        found = await recorded_turns(self._database, child.name)
        self._check(child, found)
        for turn in found.values():
            self.outcome.live_turns += 1
            taken = child.ended_at.get(turn.id, 0.0) - child.began.get(turn.id, 0.0)
            self.outcome.longer_than_a_lease += taken > LEASE_SECONDS / self._hurry
            if turn.row["state"] == "process_died":
                self.outcome.live_turns_taken += 1
            if turn.row["state"] != "completed":
                self.outcome.violations.append(
                    f"turn {turn.id} of a living process ended as {turn.row['state']!r}: {turn.row['error']}"
                )


async def kill_and_look(
    settings: Settings,
    provider_url: str,
    *,
    kills: int,
    at_once: int,
    hurry: float = 1.0,
    seed: int = 7,
    living: int = LIVING,
    alone: asyncio.Lock | None = None,
) -> Outcome:
    """Kill processes on the database of the settings, and return what was found.

    Args:
        settings: Name the database and the data folder.
        provider_url: Address of a simulator that serves any model.
        kills: Processes to kill.
        at_once: How many run at a time.
        hurry: By how much the times of leases and sweeps are divided.
        seed: Decides the moments.
        living: How many processes live meanwhile.
        alone: Held while processes are killed, by runs on several databases at the same time.
    """
    async with Database(database_url(settings)) as database:
        run = _Run(settings, database, provider_url, hurry, alone or asyncio.Lock())
        all_killed = asyncio.Event()
        async with run.living(living), asyncio.TaskGroup() as group:
            watch = group.create_task(run.watch_orphans(all_killed))
            await run.kill_all(moments(kills, seed), at_once)
            all_killed.set()
            await watch
        await run.judge_the_rest()
        await run.check_closed()
        return run.outcome

"""Judging in the background: every delivered text gets one verdict, whichever process is there to give it.

What waits stands in the records (`judgement = 'pending'`), so nothing depends on who wrote it or on what this process
remembers. The dispatcher looks when it is woken, and every second for what other processes left. Each turn is one piece
of durable work, `judge:<turn>:<text hash>:<policy version>`: begun by one process, stored once even when it is done
twice.

A judge that fails for now is asked again, later and later. One that can never answer, or not within `deadline` of the
turn's end, leaves the turn `unjudged_needs_review` with a review open; it is tried again hourly for a day after that,
and a verdict then replaces it.

The machinery is not imported before a turn of this process has ended, or while its turns run: nobody's first text waits
for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from guidance_agent.core.durable import DurableRunner, Perform
from guidance_agent.core.verdicts import Backlog, VerdictRecords, WaitingTurn

if TYPE_CHECKING:
    from guidance_agent.compliance.turn_judge import TurnJudge
    from guidance_agent.core.clock import Clock

__all__ = ["BackgroundJudging", "Drained", "OpenRunner"]

LOOK_SECONDS = 1.0
"""How often the dispatcher looks for what other processes left."""

UNDER_WAY = 64
"""Turns whose judging has begun in this process, those that wait to ask a judge again that failed included."""

_SETTLE_SECONDS = 0.1
"""A process that ends right after its turn is not kept by an import that nobody will use."""

_QUIET_SECONDS = 2.0
_ELSEWHERE_SECONDS = 2.0
_LOST_SECONDS = 60.0
_RETRY_FIRST, _RETRY_LONGEST = 1.0, 60.0
_AGAIN_EVERY, _AGAIN_FOR = timedelta(hours=1), timedelta(days=1)
_REMEMBERED_FOR = timedelta(days=1)
_DRAIN_SECONDS = 0.05
_ALL = 1_000_000

OpenRunner = Callable[[Perform, Callable[[], None]], Awaitable[DurableRunner]]


class Drained(NamedTuple):
    """What draining did: verdicts given, turns given up, and what still waits with the last error of each."""

    judged: int
    given_up: int
    waiting: dict[str, str]


class BackgroundJudging:
    """The dispatcher of a process; an async context manager that owns the runner of its work.

    Args:
        open_runner: Makes the durable runner; called once there is something to judge.
        is_quiet: Whether no turn of this process runs.
        ended: Called when a turn was judged here, or its judging failed: there may be room for another.
        eager: Whether to begin without waiting for a quiet moment, as a process does that has no turns.
    """

    def __init__(
        self,
        verdicts: VerdictRecords,
        judge: TurnJudge,
        clock: Clock,
        open_runner: OpenRunner,
        *,
        is_quiet: Callable[[], bool],
        ended: Callable[[], None],
        eager: bool = False,
    ) -> None:
        self._verdicts = verdicts
        self._judge = judge
        self._clock = clock
        self._open_runner = open_runner
        self._is_quiet = is_quiet
        self._tell_ended = ended
        self._eager = eager
        self._awake = False
        self._runner: DurableRunner | None = None
        self._begun: dict[str, float] = {}
        self._failing: dict[str, str] = {}
        self._resting: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._since = clock.monotonic()
        self._looked_again: datetime | None = None
        self._version: str | None = None
        # Keeps two looks from beginning the same work.
        self._looking = asyncio.Lock()

    @property
    def judged(self) -> int:
        """How many verdicts this process has given."""
        return self._judge.judged

    async def backlog(self) -> Backlog:
        """Return how much has no verdict, in all processes' records."""
        return await self._verdicts.backlog()

    async def __aenter__(self) -> BackgroundJudging:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop what runs; it stays due. Looking again begins anew."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.aclose()
        self._begun.clear()

    def wake(self) -> None:
        """Say that a turn of this process has ended."""
        self._awake = True

    async def run(self) -> None:
        """Begin to judge what waits, as far as there is room; returns without waiting for verdicts."""
        async with self._looking:
            await self._look()

    async def begin(self) -> None:
        """Have the runner at once, where it begins work at times of its own too."""
        async with self._looking:
            await self._ready()

    async def _look(self) -> None:
        if self._runner is None and not self._may_begin():
            return
        waiting = await self._due()
        if not waiting:
            self._awake = False
            return
        runner = await self._ready()
        if self._version is None:
            self._version = await self._judge.policy_version()
        for turn in waiting:
            await self._begin(runner, turn, self._version)

    def _may_begin(self) -> bool:
        # Until then nothing of the machinery is loaded: the first text of this process comes first.
        quiet = self._clock.monotonic() - self._since >= _QUIET_SECONDS and self._is_quiet()
        return self._eager or self._awake or quiet

    async def _ready(self) -> DurableRunner:
        if self._runner is None:
            if not self._eager:
                await asyncio.sleep(_SETTLE_SECONDS)
            self._runner = await self._open_runner(self._perform, self._tell_ended)
        return self._runner

    async def _due(self) -> Sequence[WaitingTurn]:
        now = self._clock.monotonic()
        self._not_before = {turn_id: when for turn_id, when in self._not_before.items() if when > now}
        running = frozenset() if self._runner is None else self._runner.running
        self._begun = {key: when for key, when in self._begun.items() if key in running or now - when < _LOST_SECONDS}
        # One that is ready for each that is asked about; turns that rest take nobody's place.
        at_work = len(self._begun) - len(self._resting)
        room = min(2 * self._judge.at_once - at_work, UNDER_WAY - len(self._begun))
        if room <= 0:
            return ()
        without = {_turn_of(key) for key in self._begun}.union(self._not_before)
        due = await self._verdicts.waiting(room, without=without)
        return due or await self._due_again(room, without)

    async def _due_again(self, room: int, without: set[str]) -> Sequence[WaitingTurn]:
        """Return turns that were given up and are worth another try, once in a while."""
        now = self._clock.now()
        if self._looked_again is not None and now - self._looked_again < _AGAIN_EVERY:
            return ()
        if self._looked_again is None and not self._eager:
            self._looked_again = now
            return ()
        self._looked_again = now
        if self._runner is not None:
            await self._runner.forget_ended(now - _REMEMBERED_FOR)
        return await self._verdicts.unjudged(room, ended_after=now - _AGAIN_FOR, without=without)

    async def _begin(self, runner: DurableRunner, turn: WaitingTurn, version: str) -> None:
        key = f"judge:{turn.turn_id}:{turn.text_hash}:{version}"
        self._begun[key] = self._clock.monotonic()
        where = await runner.start(key)
        if where == "elsewhere":
            self._begun.pop(key, None)
            self._not_before[turn.turn_id] = self._clock.monotonic() + _ELSEWHERE_SECONDS

    async def _perform(self, key: str) -> None:
        """Judge one turn, again and again until there is nothing left to do."""
        turn_id, delay = _turn_of(key), _RETRY_FIRST
        self._begun.setdefault(key, self._clock.monotonic())
        try:
            while (error := await self._judge.attempt(turn_id)) is not None:
                self._failing[turn_id] = f"{type(error).__name__}: {error}"
                self._resting.add(turn_id)
                self._tell_ended()
                await asyncio.sleep(delay)
                self._resting.discard(turn_id)
                delay = min(2 * delay, _RETRY_LONGEST)
        except Exception as error:
            self._failing[turn_id] = f"{type(error).__name__}: {error}"
            self._not_before[turn_id] = self._clock.monotonic() + _RETRY_LONGEST
            raise
        else:
            self._failing.pop(turn_id, None)
        finally:
            self._begun.pop(key, None)
            self._resting.discard(turn_id)

    async def drain(self) -> Drained:
        """Judge everything that waits, and return when each turn has its verdict, was given up, or has failed once."""
        judged, given_up = self._judge.judged, self._judge.given_up
        while True:
            await self.run()
            waiting = {turn.turn_id for turn in await self._verdicts.waiting(_ALL)}
            if waiting <= self._failing.keys() and not self._runs_for_the_first_time():
                break
            await asyncio.sleep(_DRAIN_SECONDS)
        left = {turn_id: self._failing[turn_id] for turn_id in waiting}
        return Drained(self._judge.judged - judged, self._judge.given_up - given_up, left)

    def _runs_for_the_first_time(self) -> bool:
        return any(_turn_of(key) not in self._failing for key in self._begun)


def _turn_of(key: str) -> str:
    return key.removeprefix("judge:").rsplit(":", 2)[0]

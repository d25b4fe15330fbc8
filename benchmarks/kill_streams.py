"""Child processes as the benchmark of kills sees them: what they have shown, and the moment at which one is killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.kill_child import Job
from benchmarks.kill_judging import Step
from guidance_agent.provider_simulator.scripts import script_of_model_name

__all__ = ["KINDS", "Moment", "Streams", "moments"]

Kind = Literal[
    "during the judge's call",
    "between commits",
    "between the judge's answer and the commit",
    "while DBOS starts",
    "after the commit of a verdict",
    "before the first text",
    "the last commit",
    "after the end",
    "any time",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_SPREAD: dict[Kind, tuple[int, float]] = {
    "during the judge's call": (4, 0.06),
    "between commits": (150, 0.025),
    "between the judge's answer and the commit": (4, 0.03),
    "while DBOS starts": (1, 0.5),
    "after the commit of a verdict": (4, 0.02),
    "before the first text": (9, 0.03),
    "the last commit": (6, 0.004),
    "after the end": (6, 0.01),
    "any time": (1, 4.0),
}
"""The latest number and the longest delay of each kind."""

_ROOT = Path(__file__).parents[1]
_LONGEST_LINE = 2**24
_LATEST = 30.0
"""Seconds after which a process is killed that has not come to its moment: others may have judged everything."""

_STEPS: dict[Step, Kind] = {
    "asked": "during the judge's call",
    "answered": "between the judge's answer and the commit",
    "stored": "after the commit of a verdict",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a process gets a signal: `delay` seconds after it has shown something of a kind for the `number`-th time.

    The kinds: the judge was told to be asked, a piece of text was shown, the judge was told to have answered, DBOS was
    told to be starting, a verdict was told to be stored, a turn was told to have begun, the whole text of an answer was
    shown (its end is being committed), the end of a turn was told; for `any time` the process was ready.
    """

    kind: Kind
    number: int
    delay: float
    signal: int = signal.SIGKILL


def moments(number: int, seed: int) -> list[Moment]:
    """Return moments of all kinds in turns, the same for the same seed."""
    rng = random.Random(seed)
    chosen = []
    for index in range(number):
        kind = KINDS[index % len(KINDS)]
        latest, longest = _SPREAD[kind]
        chosen.append(Moment(kind=kind, number=rng.randint(1, latest), delay=rng.uniform(0, longest)))
    return chosen


@dataclass(slots=True, kw_only=True)
class Streams:
    """A streaming process and all that it has shown.

    Attributes:
        shown: Text by turn, as far as it was received.
        ended: States of turns by what the process told.
        judging: How far it came with judging a turn, its own or another's.
        durable: What it last told of DBOS.
        killed_at: Monotonic time of the kill, and `killed_when` the same by the clock.
    """

    name: str
    process: asyncio.subprocess.Process
    whole: frozenset[int]
    shown: dict[str, str] = field(default_factory=lambda: defaultdict(str))
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    ended_at: dict[str, float] = field(default_factory=dict)
    judging: dict[str, Step] = field(default_factory=dict)
    durable: str | None = None
    killed_at: float | None = None
    killed_when: datetime | None = None
    _seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    async def start(cls, job: Job) -> Streams:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.kill_child",
            job.model_dump_json(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            limit=_LONGEST_LINE,
            env={name: value for name, value in os.environ.items() if not name.startswith("GUIDANCE_")},
        )
        return cls(name=job.name, process=process, whole=frozenset(_length(model) for model in job.models))

    async def read(self, moment: Moment | None = None) -> int:
        """Read to the end of the output, kill the process at the moment if there is one, and return its status."""
        if self.process.stdout is None:
            raise RuntimeError(f"{self.name} has no pipe")
        async for line in self.process.stdout:
            if not line.endswith(b"\n"):
                # Cut off in the middle by the kill: nobody was shown this as a whole.
                break
            values = json.loads(line)
            kinds = self._note(values)
            if moment is not None and moment.kind in kinds and self._seen[moment.kind] == moment.number:
                asyncio.get_running_loop().call_later(moment.delay, self.send, moment.signal)
            if moment is not None and "ready" in values:
                asyncio.get_running_loop().call_later(_LATEST, self.send, moment.signal)
        return await self.process.wait()

    def send(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless the process has ended."""
        if self.process.returncode is None:
            self.process.send_signal(number)
            self.killed_at, self.killed_when = time.monotonic(), datetime.now(UTC)

    def leave(self) -> None:
        """Have the process begin no further turn, and end once its turns have ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _note(self, values: dict[str, Any]) -> list[str]:
        """Note what a line tells, and return of what kinds that is."""
        if "ready" in values:
            return self._counted("any time")
        if "durable" in values:
            self.durable = values["durable"]
            return self._counted("while DBOS starts") if self.durable == "starting" else []
        if "judging" in values:
            self.judging[values["turn"]] = values["judging"]
            return self._counted(_STEPS[values["judging"]])
        turn = values["turn"]
        if "started" in values:
            self.began[turn] = time.monotonic()
            self.shown[turn] = ""
            return self._counted("before the first text")
        if "end" in values:
            self.ended[turn] = values["end"]
            self.ended_at[turn] = time.monotonic()
            return self._counted("after the end")
        self.shown[turn] += values["text"]
        whole = len(self.shown[turn]) in self.whole
        return self._counted("between commits", *(["the last commit"] if whole else []))

    def _counted(self, *kinds: str) -> list[str]:
        for kind in kinds:
            self._seen[kind] += 1
        return list(kinds)


def _length(model: str) -> int:
    script = script_of_model_name(model.partition("/")[2])
    if script is None:
        raise ValueError(f"{model!r} dictates no answer; use a model named script-NxM")
    return sum(map(len, script.answer(chunk_tokens=1).pieces))

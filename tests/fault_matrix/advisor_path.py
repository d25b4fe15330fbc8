"""The same failures through the whole path: two consultations over real HTTP, ended and read back from the records.

In the first consultation every request of the author model meets the fault, in the second only the first one does. No
fallback stands by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from guidance_agent import AdvisorAgent, Completed, Event, Failed, Runtime
from guidance_agent.core.schema import model_calls
from guidance_agent.provider_simulator import ManualClock, ProviderSimulator, SimulatorSettings
from guidance_agent.settings import OPERATIONS
from tests.conformance.subjects import SUBJECTS, Subject, Wire
from tests.fault_matrix.catalogue import CASES, WIRES, Case, Position, exists
from tests.fault_matrix.outcome import Shown
from tests.fault_matrix.runner import REFUSAL, TEXT, Way, faults_of, marker, refill, shown_of, use_up_limits
from tests.integration.advisor.wiring import wired_settings
from tests.integration.attacks.evidence import asks, check_ended, eventually, rows, shown

__all__ = ["PATH_POSITIONS", "PathCell", "PathObservation", "PathOutcome", "observe_turns", "path_cells"]

_TOKENS_PER_MINUTE = 360_000
_WAYS: tuple[Way, ...] = ("always", "once")

PATH_POSITIONS: tuple[Position, ...] = ("before the first text", "after the first text")


class PathCell(NamedTuple):
    """One square of the tables of the whole path."""

    case: Case
    position: Position
    wire: Wire

    def __str__(self) -> str:
        return f"{self.case.name.replace('`', '')} {self.position} {self.wire}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathOutcome:
    """What became of a turn.

    Attributes:
        last_event: The turn's last event.
        error: Class of its error; None when it completed.
        finish: Finish reason of a completed turn.
        state: The turn's state in the records.
        shown: What the caller received; the records hold exactly that as delivered.
        judgement: What the records say of judgement: `pending` where something was shown.
        once: The last event of the turn of which only the first request met the fault.
        record: Outcome label of the call in the ledger.
    """

    last_event: str
    error: str | None = None
    finish: str | None = None
    state: str
    shown: Shown
    judgement: str | None
    once: str
    record: str


class PathObservation(NamedTuple):
    """What a cell turned out to be, and what that must always hold did not."""

    outcome: PathOutcome
    broken_rules: tuple[str, ...]


class _Turn(NamedTuple):
    events: list[Event]
    row: dict[str, Any]
    record: str
    broken_rules: tuple[str, ...]

    @property
    def text(self) -> str:
        return shown(self.events)


def path_cells() -> Iterator[PathCell]:
    """Yield every cell of the whole path that can be."""
    for case in CASES:
        for position in PATH_POSITIONS:
            for wire in WIRES:
                if exists(case, position, wire):
                    yield PathCell(case, position, wire)


async def observe_turns(cell: PathCell) -> PathObservation:
    """Return what becomes of the consultations of a cell."""
    subject = next(each for each in SUBJECTS if each.transport == "native" and each.wire == cell.wire)
    clock = ManualClock() if cell.case.limited else None
    simulated = SimulatorSettings.instant(seed=7).but(retry_after_on_success_rate=1.0, **_simulator(cell.case))
    with TemporaryDirectory() as folder:
        async with ProviderSimulator(simulated, clock=clock) as simulator:
            simulator.faults.add(*faults_of(cell.case, cell.position, subject))
            settings = wired_settings(simulator, cell.wire, Path(folder), **_settings(cell.case, subject))
            async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
                if clock is None:
                    always, once = await asyncio.gather(*(_turn(advisor, runtime, way) for way in _WAYS))
                else:
                    await use_up_limits(simulator, runtime.gateway, subject.model)
                    always = await _turn(advisor, runtime, "always")
                    once, _ = await asyncio.gather(_turn(advisor, runtime, "once"), refill(simulator, clock))
    return PathObservation(_outcome(always, once), always.broken_rules + once.broken_rules)


def _simulator(case: Case) -> dict[str, Any]:
    if "tokens_per_minute" not in case.simulator:
        return dict(case.simulator)
    # The prompt of a turn is long; so large a limit makes room for one within a second.
    windows = dict.fromkeys((subject.model.partition("/")[2] for subject in SUBJECTS), 2 * _TOKENS_PER_MINUTE)
    return {"tokens_per_minute": _TOKENS_PER_MINUTE, "context_windows": windows}


def _settings(case: Case, subject: Subject) -> dict[str, Any]:
    timeouts = dict(case.settings.get("timeouts", {}))
    # Here it bounds all attempts together.
    timeouts.pop("turn", None)
    retry = {"backoff_factor": 0.0, **case.settings.get("retry", {})}
    return {"model": subject.model, "timeouts": timeouts, "retry": retry}


async def _turn(advisor: AdvisorAgent, runtime: Runtime, way: Way) -> _Turn:
    customer = asks(f"customer-{way}", f"What is drawdown? {marker(way)}")
    async with advisor.consult(customer, use_reasoning=False) as turn:
        events = [event async for event in turn]
    broken: list[str] = []
    text = shown(events)
    try:
        row = await check_ended(runtime, turn.turn_id, text)
    except AssertionError as error:
        broken.append(f"{way}: the records contradict what was shown: {error}")
        row = await runtime.records.turn(turn.turn_id) or {}
    if not (TEXT.startswith(text) or text.endswith(REFUSAL)):
        broken.append(f"{way}: the text is not one answer's: {text!r}")
    # The ledger's row may follow the turn's own.
    [call] = await eventually(lambda: _calls(runtime, turn.turn_id))
    if call["operation"] not in OPERATIONS:
        broken.append(f"{way}: unknown operation {call['operation']!r}")
    return _Turn(events, row, call["outcome"], tuple(broken))


async def _calls(runtime: Runtime, turn_id: str) -> list[dict[str, Any]]:
    return [call for call in await rows(runtime, model_calls) if call["turn_id"] == turn_id]


def _outcome(always: _Turn, once: _Turn) -> PathOutcome:
    last = always.events[-1]
    return PathOutcome(
        last_event=type(last).__name__,
        error=last.error if isinstance(last, Failed) else None,
        finish=last.finish_reason if isinstance(last, Completed) else None,
        state=always.row["state"],
        shown=shown_of(always.text),
        judgement=always.row["judgement"],
        once=type(once.events[-1]).__name__,
        record=always.record,
    )

"""Produces the observed outcome of a cell: three calls over real HTTP to the provider simulator.

In the first every request meets the fault, in the second only the first one does, in the third every request does and
a fallback model stands by. Whatever the outcome is, some things always hold; `Observation.broken_rules` says which of
them did not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from guidance_agent.errors import ModelError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Delta, Message, ModelCall, ModelRequest
from guidance_agent.provider_simulator import Fault, ManualClock, ProviderSimulator, Script, SimulatorSettings
from guidance_agent.provider_simulator.request_log import RequestRecord
from tests.conformance.subjects import SUBJECTS, Subject, open_gateway
from tests.fault_matrix.catalogue import Case, Cell, Position
from tests.fault_matrix.outcome import Outcome, Shown

__all__ = [
    "REFUSAL",
    "TEXT",
    "Observation",
    "Way",
    "faults_of",
    "marker",
    "observe",
    "refill",
    "shown_of",
    "use_up_limits",
    "warm",
]

PIECES = ("One. ", "Two. ", "Three. ", "Four. ", "Five. ", "Six.")
TEXT = "".join(PIECES)
SHOWN_BEFORE = 3
BEGINNING = "".join(PIECES[:SHOWN_BEFORE])
FALLBACK_TEXT = "The other model answers."
REFUSAL = "I'm sorry, but I can't help with that."
THINKING = "They ask about drawdown. "

_FALLBACKS = {"anthropic": "openai/gpt-6-luna", "openai": "anthropic/claude-haiku-5-5"}
_REFILL_SECONDS = 1.0
_CLOSED_WITHIN = 2.0

Way = Literal["always", "once", "fallback"]


@dataclass(slots=True)
class Run:
    """One call and everything that it left behind."""

    way: Way
    text: str = ""
    thinking: str = ""
    finish: str | None = None
    error: ModelError | None = None
    seconds: float = 0.0
    records: list[ModelCall] = field(default_factory=list)
    requests: list[RequestRecord] = field(default_factory=list)

    def asked(self, model: str) -> list[RequestRecord]:
        return [request for request in self.requests if request.model == _bare(model)]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a cell turned out to be; `broken_rules` is empty unless something that must always hold did not."""

    outcome: Outcome
    broken_rules: tuple[str, ...]


class _Records(list[ModelCall]):
    def record(self, call: ModelCall) -> None:
        self.append(call)


@dataclass(frozen=True, slots=True)
class _Place:
    """A simulator that is set to fail, and a gateway before it."""

    simulator: ProviderSimulator
    gateway: ModelGateway
    records: _Records
    clock: ManualClock | None


_warm: set[Subject] = set()


async def warm(subject: Subject) -> None:
    """Make a first call, so that no import counts against a cell's time-outs."""
    if subject in _warm:
        return
    async with (
        ProviderSimulator(SimulatorSettings.instant()) as simulator,
        open_gateway(subject, simulator.base_url) as gateway,
    ):
        request = ModelRequest(model=subject.model, messages=(Message("user", "Hello"),))
        await gateway.complete(request)
        async for _ in gateway.stream(request):
            pass
    _warm.add(subject)


async def observe(cell: Cell) -> Observation:
    """Return what becomes of the calls of a cell."""
    await warm(cell.subject)
    async with _place(cell) as place:
        if place.clock is not None:
            always, once, fallback = await _limited(place, place.clock, cell)
        else:
            always, once, fallback = await asyncio.gather(
                *(_call(place, cell, way) for way in ("always", "once", "fallback"))
            )
    broken = [f"{run.way}: {rule}" for run in (always, once, fallback) for rule in _broken_rules(run, cell.subject)]
    return Observation(_outcome(cell, always, once, fallback), tuple(broken))


@asynccontextmanager
async def _place(cell: Cell) -> AsyncIterator[_Place]:
    case, subject = cell.case, cell.subject
    clock = ManualClock() if case.limited else None
    settings = SimulatorSettings.instant(seed=7).but(retry_after_on_success_rate=1.0, **case.simulator)
    records = _Records()
    ours = {"timeouts": {}, **case.settings, "retry": {"backoff_factor": 0.0, **case.settings.get("retry", {})}}
    async with (
        ProviderSimulator(settings, clock=clock) as simulator,
        open_gateway(subject, simulator.base_url, sinks=[records], **ours) as gateway,
    ):
        simulator.faults.add(*faults_of(case, cell.position, subject))
        yield _Place(simulator, gateway, records, clock)


def faults_of(case: Case, position: Position, subject: Subject) -> Iterator[Fault]:
    """Yield what makes the simulator fail, and what it says otherwise; a request says which of the calls it is of."""
    script = Script(pieces=PIECES, reasoning=THINKING if position == "in the thinking" else "")
    after = SHOWN_BEFORE if position in ("after the first text", "not streamed") else 0
    if case.fault:
        values: dict[str, Any] = {**case.fault, "model": _bare(subject.model), "script": script}
        for way, times in (("always", None), ("once", 1), ("fallback", None)):
            yield Fault.model_validate({**values, "times": times, "contains": marker(way), "after_chunks": after})
    yield Fault(kind="script", times=None, model=_bare(subject.model), script=script)
    yield Fault(kind="script", times=None, script=Script(text=FALLBACK_TEXT))


async def _limited(place: _Place, clock: ManualClock, cell: Cell) -> tuple[Run, Run, Run]:
    """Make the calls while no time passes at the provider; it only passes for the second one, once it was refused."""
    native = next(each for each in SUBJECTS if each.transport == "native" and each.wire == cell.subject.wire)
    async with open_gateway(native, place.simulator.base_url) as others:
        await use_up_limits(place.simulator, others, cell.subject.model)
    always, fallback = await asyncio.gather(_call(place, cell, "always"), _call(place, cell, "fallback"))
    once, _ = await asyncio.gather(_call(place, cell, "once"), refill(place.simulator, clock))
    return always, once, fallback


async def use_up_limits(simulator: ProviderSimulator, gateway: ModelGateway, model: str) -> None:
    """Spend what other callers with the same key would have spent: many requests, or one long prompt."""
    settings = simulator.settings
    words = "pension " * (settings.tokens_per_minute or 1)
    for _ in range(settings.requests_per_minute or 1):
        await gateway.complete(ModelRequest(model=model, messages=(Message("user", words),)))
    simulator.requests.clear()


async def refill(simulator: ProviderSimulator, clock: ManualClock) -> None:
    """Wait until one more request is refused, then let the time pass that fills the limits again."""
    before = _refused(simulator)
    async with asyncio.timeout(10):
        while _refused(simulator) == before:  # noqa: ASYNC110 - the simulator's log is what is polled
            await asyncio.sleep(0.005)
    clock.advance(_REFILL_SECONDS)


def _refused(simulator: ProviderSimulator) -> int:
    return sum(request.status == 429 for request in simulator.requests)


async def _call(place: _Place, cell: Cell, way: Way) -> Run:
    run = Run(way)
    request = _request(cell.subject, way)
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        if cell.position == "not streamed":
            completion = await place.gateway.complete(request)
            run.text, run.thinking, run.finish = completion.text, completion.reasoning, completion.finish_reason
        else:
            async for delta in place.gateway.stream(request):
                _keep(run, delta)
    except ModelError as error:
        run.error = error
    run.seconds = loop.time() - began
    run.records = [call for call in place.records if call.metadata["way"] == way]
    run.requests = [record for record in place.simulator.requests if marker(way) in str(record.body)]
    await _all_closed(run.requests)
    return run


def _keep(run: Run, delta: Delta) -> None:
    run.text += delta.text
    run.thinking += delta.reasoning
    run.finish = delta.finish_reason or run.finish


async def _all_closed(requests: list[RequestRecord]) -> None:
    """Wait until the simulator has seen the end of every connection, or for as long as it may take."""
    try:
        async with asyncio.timeout(_CLOSED_WITHIN):
            while any(record.ended_at is None for record in requests):  # noqa: ASYNC110 - the log is polled
                await asyncio.sleep(0.002)
    except TimeoutError:
        return


def _request(subject: Subject, way: Way) -> ModelRequest:
    return ModelRequest(
        model=subject.model,
        messages=(Message("system", "You explain pensions."), Message("user", f"What is drawdown? {marker(way)}")),
        operation="guidance",
        fallbacks=(_FALLBACKS[subject.wire],) if way == "fallback" else (),
        metadata={"way": way},
    )


def marker(way: str) -> str:
    """Return what the question of a call says, by which the simulator tells the calls apart."""
    return f"[{way}]"


def _bare(model: str) -> str:
    return model.partition("/")[2]


def _outcome(cell: Cell, always: Run, once: Run, fallback: Run) -> Outcome:
    error, subject = always.error, cell.subject
    recovered = once.error is None and once.text == TEXT and once.finish == "stop" and always.text != TEXT
    same = (once.text, type(once.error), once.finish) == (always.text, type(always.error), always.finish)
    asked = fallback.asked(_FALLBACKS[subject.wire])
    answered = fallback.error is None and fallback.text == FALLBACK_TEXT
    wait = None if error is None else error.retry_after
    return Outcome(
        shown=shown_of(always.text, always.thinking),
        error=None if error is None else type(error).__name__,
        retryable=None if error is None else error.retryable,
        retry_after=math.ceil(wait) if wait is not None and cell.case.limited else wait,
        finish=None if error is not None else always.finish,
        requests=len(always.asked(subject.model)),
        once=f"answered by request {len(once.requests)}" if recovered else "the same" if same else "something else",
        fallback="not asked" if not asked else "answers" if answered else "asked in vain",
        record=always.records[0].outcome if always.records else "none",
    )


def shown_of(text: str, thinking: str = "") -> Shown:
    """Return how much of the scripted answer `text` is."""
    if text == REFUSAL:
        return "the refusal's words"
    text = text.removesuffix(REFUSAL)
    if text in (TEXT, BEGINNING):
        return "all" if text == TEXT else "the beginning"
    if not text:
        return "thinking" if thinking else "nothing"
    return "part of the beginning" if BEGINNING.startswith(text) else "something else"


def _broken_rules(run: Run, subject: Subject) -> Iterator[str]:
    other = _FALLBACKS[subject.wire]
    text = run.text.removesuffix(REFUSAL)
    if not (TEXT.startswith(text) or text == FALLBACK_TEXT):
        yield f"the text is not one answer's: {run.text!r}"
    if (shown := text or run.thinking) and text != FALLBACK_TEXT and text != TEXT and len(run.requests) != 1:
        yield f"{len(run.requests)} requests although {shown!r} was shown"
    if any(request.ended_at is None for request in run.requests):
        yield "a connection was left open"
    if len(run.records) != 1:
        yield f"{len(run.records)} records"
        return
    [record] = run.records
    label = "completed" if run.error is None else f"error:{type(run.error).__name__}"
    if record.outcome != label:
        yield f"the record says {record.outcome!r} of what ended as {label!r}"
    if record.attempts != len(run.requests):
        yield f"the record counts {record.attempts} attempts, the provider {len(run.requests)} requests"
    if record.requested_model != subject.model or record.model != (other if run.asked(other) else subject.model):
        yield f"the record names {record.model!r} for {record.requested_model!r}"
    if run.error is not None:
        yield from _broken_rules_of_error(run, run.error, subject)


def _broken_rules_of_error(run: Run, error: ModelError, subject: Subject) -> Iterator[str]:
    if error.provider != subject.wire or error.model != subject.model:
        yield f"the error names {error.provider!r} and {error.model!r}"
    if error.request_id not in {None, *(request.request_id for request in run.requests)}:
        yield f"the error names a request {error.request_id!r} that was never made"
    waits = len(run.asked(subject.model)) - 1
    if error.retry_after is not None and run.seconds < error.retry_after * waits:
        yield f"{waits} waits of {error.retry_after:g} s took {run.seconds:.2f} s"

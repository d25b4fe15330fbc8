"""The gate in a running turn: breaches withheld, doubts asked, actions on record, nothing passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, Failed, Runtime, TextDelta, Withheld
from guidance_agent.advisor.events import Event
from guidance_agent.compliance.gate import SentenceGate
from guidance_agent.compliance.gatekeeper import Gatekeeper
from guidance_agent.compliance.policy import load_policy
from guidance_agent.errors import ConfigurationError, ProviderUnavailableError
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.wiring import (
    FAST,
    author_fails,
    author_requests,
    author_says,
    bare,
    closed_by_client,
    wired_settings,
)
from tests.unit.compliance.word_rules import WordRules

Opinion = Literal["breach", "permitted"] | None
INSTEAD = load_policy()["advice_boundary"].instead
_PACKAGED = Gatekeeper.gate
BREACH = ("Some draw an income. ", "Steer it ", "out now. ", "Others keep it invested.")
DOUBT = ("First. ", "Maybe move it. ", "Second. ", "Third.")


@dataclass
class Asked:
    """Stands for the fast judge: says what it is told to, when it is told to."""

    opinion: Opinion = None
    error: Exception | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    questions: list[tuple[str, str, str]] = field(default_factory=list)

    async def ask(self, sentence: str, *, context: str, check: str, **_: Any) -> Opinion:
        self.questions.append((sentence, context, check))
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return self.opinion


@pytest.fixture(autouse=True)
def rules_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rules know is tested elsewhere; here a word decides."""

    def gate(self: Gatekeeper, day: date, *, question: str, asks: bool) -> SentenceGate:
        settings = self._settings
        return SentenceGate(WordRules(), self.policy, asks=asks, undecided=settings.undecided, before=question)

    monkeypatch.setattr(Gatekeeper, "gate", gate)


Opened = Callable[..., Any]


@pytest.fixture
def opened(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> Opened:
    """Open an advisor with settings of the gate, and somebody to ask or nobody."""

    @asynccontextmanager
    async def open_advisor(asked: Asked | None = None, **gate: object) -> AsyncIterator[AdvisorAgent]:
        settings = wired_settings(simulator, wire, tmp_path / "data", gate={"ask": True, **gate})
        async with Runtime(settings, environ={}) as runtime:
            runtime.sentence_judge = asked  # type: ignore[assignment]
            async with AdvisorAgent(runtime=runtime) as advisor:
                yield advisor

    return open_advisor


async def events_of(advisor: AdvisorAgent, customer: CustomerProfile) -> list[Event]:
    async with advisor.consult(customer, use_reasoning=False) as turn:
        return [event async for event in turn if event.public]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def actions_of(advisor: AdvisorAgent, events: list[Event]) -> list[dict[str, Any]]:
    return list(await advisor._open_services.records.gate_actions(events[0].turn_id))


async def eventually(condition: Callable[[], Awaitable[bool] | bool], *, within: float = 5) -> None:
    async with asyncio.timeout(within):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.01)


async def test_a_breach_is_withheld_in_the_stream_and_recorded(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=BREACH))
    async with opened() as advisor:
        events = await events_of(advisor, janet)
        (action,) = await actions_of(advisor, events)
    shown = f"Some draw an income. {INSTEAD} Others keep it invested."
    assert text_of(events) == shown
    (withheld,) = [event for event in events if isinstance(event, Withheld)]
    assert shown[withheld.start : withheld.end] == f"{INSTEAD} "
    assert (action["action"], action["check"], action["asked"]) == ("withheld", "advice_boundary", None)
    assert (action["start"], action["end"]) == (withheld.start, withheld.end)
    assert (action["withheld_text"], action["replacement"]) == ("Steer it out now. ", f"{INSTEAD} ")
    assert [finding["rule"] for finding in action["findings"]] == ["word.steer"]
    assert action["policy_version"]
    assert "Steer it" not in repr(events)


@pytest.mark.parametrize(
    ("opinion", "action", "is_shown"),
    [("breach", "withheld", False), ("permitted", "released_after_ask", True), (None, "flagged", True)],
)
async def test_a_judge_decides_what_the_rules_cannot(
    opened: Opened,
    simulator: ProviderSimulator,
    wire: str,
    janet: CustomerProfile,
    opinion: Opinion,
    action: str,
    is_shown: bool,
) -> None:
    author_says(simulator, wire, Script(pieces=DOUBT))
    asked = Asked(opinion)
    asked.may_answer.set()
    async with opened(asked, deadline=20) as advisor:
        events = await events_of(advisor, janet)
        (row,) = await actions_of(advisor, events)
    assert asked.questions == [("Maybe move it.", f"{janet.presenting_question}First. ", "advice_boundary")]
    assert text_of(events) == "".join(DOUBT).replace("Maybe move it.", "Maybe move it." if is_shown else INSTEAD)
    assert (row["action"], row["asked"]) == (action, opinion or "no_answer")
    assert text_of(events)[row["start"] : row["end"]] == ("Maybe move it. " if is_shown else f"{INSTEAD} ")


@pytest.mark.parametrize(
    "error",
    [ProviderUnavailableError("down"), ConfigurationError("no key"), RuntimeError("broken")],
    ids=lambda error: type(error).__name__,
)
async def test_a_judge_that_is_down_leaves_it_to_the_policy(
    opened: Opened,
    simulator: ProviderSimulator,
    wire: str,
    janet: CustomerProfile,
    error: Exception,
) -> None:
    author_says(simulator, wire, Script(pieces=DOUBT))
    asked = Asked(error=error)
    asked.may_answer.set()
    async with opened(asked, undecided="replace", deadline=20) as advisor:
        events = await events_of(advisor, janet)
        (row,) = await actions_of(advisor, events)
    assert isinstance(events[-1], Completed)
    assert text_of(events) == "".join(DOUBT).replace("Maybe move it.", INSTEAD)
    assert (row["action"], row["asked"]) == ("withheld", "no_answer")


@pytest.mark.parametrize(
    ("fault", "asked", "is_shown"),
    [
        ({"kind": "script", "script": Script(text='{"verdict": "breach"}')}, "breach", False),
        ({"kind": "script", "script": Script(text='{"verdict": "permitted"}')}, "permitted", True),
        ({"kind": "script", "script": Script(text="Certainly! **permitted**")}, "no_answer", False),
        ({"kind": "script", "script": Script(text="")}, "no_answer", False),
        ({"kind": "refusal"}, "no_answer", False),
        ({"kind": "status", "status": 500}, "no_answer", False),
        ({"kind": "garbage"}, "no_answer", False),
    ],
    ids=["breach", "permitted", "garbled", "empty", "refused", "down", "garbage"],
)
async def test_the_fast_model_is_asked_and_what_it_cannot_say_is_no_answer(
    simulator: ProviderSimulator,
    wire: str,
    janet: CustomerProfile,
    tmp_path: Path,
    fault: dict[str, Any],
    asked: str,
    is_shown: bool,
) -> None:
    author_says(simulator, wire, Script(pieces=DOUBT))
    simulator.faults.add(Fault.model_validate({"model": bare(FAST[wire]), "times": None, **fault}))
    settings = wired_settings(
        simulator, wire, tmp_path / "data", gate={"ask": True, "deadline": 20, "undecided": "replace"}
    )
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        events = await events_of(advisor, janet)
        (row,) = await actions_of(advisor, events)
        calls = [record for record in simulator.requests if record.model == bare(FAST[wire])]
    assert calls
    assert text_of(events) == "".join(DOUBT).replace("Maybe move it.", "Maybe move it." if is_shown else INSTEAD)
    assert row["asked"] == asked


async def test_a_late_answer_is_no_answer_and_costs_no_more_than_the_deadline(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=DOUBT))
    async with opened(Asked("breach"), deadline=0.1) as advisor:
        async with asyncio.timeout(10):
            events = await events_of(advisor, janet)
        (row,) = await actions_of(advisor, events)
    assert text_of(events) == "".join(DOUBT)
    assert (row["action"], row["asked"]) == ("flagged", "no_answer")


async def test_the_stream_goes_on_behind_a_question_and_nothing_passes_it(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=DOUBT))
    asked = Asked("permitted")
    async with opened(asked, deadline=20) as advisor, advisor.consult(janet, use_reasoning=False) as turn:
        events: list[Event] = []

        async def read() -> None:
            events.extend([event async for event in turn if event.public])

        reader = asyncio.create_task(read())
        await eventually(lambda: bool(asked.questions))
        (request,) = author_requests(simulator, wire)
        await eventually(lambda: request.finished)
        assert text_of(events) in ("", "First. ")
        asked.may_answer.set()
        await reader
    assert text_of(events) == "".join(DOUBT)


async def test_a_caller_who_leaves_gets_no_held_text_and_it_is_recorded_as_never_shown(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=DOUBT))
    asked = Asked("permitted")
    async with opened(asked, deadline=20, closing=True) as advisor:
        async with advisor.consult(janet, use_reasoning=False) as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    break
            await eventually(lambda: bool(asked.questions))
        assert turn.state == "closed_early"
        text = await advisor._open_services.records.text(turn.turn_id)
        (row,) = await advisor._open_services.records.gate_actions(turn.turn_id)
    assert text == "First. "
    assert (row["action"], row["start"], row["end"]) == ("never_shown", len(text), len(text))
    assert str(row["withheld_text"]).startswith("Maybe move it. ")


@pytest.mark.parametrize("fault", [{"kind": "truncate"}, {"kind": "drop", "pause": 0.2}, {"kind": "error_event"}])
async def test_a_failure_decides_what_is_held_by_the_rules_as_it_stands(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile, fault: dict[str, object]
) -> None:
    pieces = ("First. ", "Steer it out ", "of the ", "old plan", " today.")
    author_fails(simulator, wire, after_chunks=3, script=Script(pieces=pieces), times=None, **fault)
    async with opened() as advisor:
        events = await events_of(advisor, janet)
        (row,) = await actions_of(advisor, events)
    assert isinstance(events[-1], Failed)
    assert text_of(events).strip() == f"First. {INSTEAD}"
    assert (row["action"], row["withheld_text"]) == ("withheld", "Steer it out of the ")


async def test_stop_ends_the_answer_says_so_and_closes_the_models_stream(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    more = tuple(f"Sentence {number}. " for number in range(6_000))
    first = "You could take cash or buy an annuity. "
    author_says(simulator, wire, Script(pieces=(first, "Steer it out. ", *more), first_ms=0, interval_ms=10))
    async with opened(actions={"advice_boundary": "stop"}, closing=True) as advisor:
        async with asyncio.timeout(10):
            events = await events_of(advisor, janet)
        stopped, closing = await actions_of(advisor, events)
    last = events[-1]
    assert isinstance(last, Completed)
    assert last.finish_reason == "stopped_by_gate"
    assert last.text == text_of(events)
    assert last.text.startswith(f"{first}{INSTEAD} ")
    assert last.text.endswith(closing["replacement"])
    assert "Sentence 0" not in last.text
    assert (stopped["action"], closing["action"]) == ("stopped", "closing")
    (request,) = author_requests(simulator, wire)
    await closed_by_client(request, within=0.5)


async def test_flagged_text_is_shown_and_recorded(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=BREACH))
    async with opened(actions={"advice_boundary": "flag"}) as advisor:
        events = await events_of(advisor, janet)
        (row,) = await actions_of(advisor, events)
    assert text_of(events) == "".join(BREACH)
    assert (row["action"], row["withheld_text"], row["replacement"]) == ("flagged", None, None)
    assert text_of(events)[row["start"] : row["end"]] == "Steer it out now. "


async def test_many_actions_are_written_with_the_text_that_they_belong_to(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    pieces = tuple(f"Number {number}, steer it. Fine. " for number in range(12))
    author_says(simulator, wire, Script(pieces=pieces))
    async with opened() as advisor:
        events = await events_of(advisor, janet)
        rows = await actions_of(advisor, events)
    text = text_of(events)
    assert [row["number"] for row in rows] == list(range(12))
    assert all(text[row["start"] : row["end"]] == row["replacement"] for row in rows)
    spans = [(event.start, event.end) for event in events if isinstance(event, Withheld)]
    assert spans == [(row["start"], row["end"]) for row in rows]


async def test_the_gate_can_be_switched_off(
    opened: Opened, simulator: ProviderSimulator, wire: str, janet: CustomerProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gatekeeper, "gate", _PACKAGED)
    said = "If I were you, I would take the whole pot out now."
    author_says(simulator, wire, Script(text=said))
    async with opened(mode="off") as advisor:
        assert text_of(await events_of(advisor, janet)) == said

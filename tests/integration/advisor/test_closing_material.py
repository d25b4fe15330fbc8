"""The closing material is guaranteed: after every end but the caller's own, counted as text, and never said twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, Failed, Runtime, TextDelta
from guidance_agent.advisor.events import Event
from guidance_agent.errors import ModelError
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import author_fails, author_says, wired_settings

DECISION = ("You could take the whole pot as cash, ", "or buy an annuity with it. ", "Which matters more to you? ")
SIGNPOST, WARNING = "MoneyHelper", "hard to undo"


@pytest_asyncio.fixture
async def closing(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> AsyncIterator[AdvisorAgent]:
    """An advisor that adds closing material and lets everything else pass."""
    settings = wired_settings(simulator, wire, tmp_path / "data", gate={"mode": "off", "closing": True})
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        yield advisor


async def events_of(advisor: AdvisorAgent, customer: CustomerProfile) -> list[Event]:
    async with advisor.consult(customer, use_reasoning=False) as turn:
        return [event async for event in turn if event.public]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_a_decision_gets_a_warning_and_a_signpost_as_released_text(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=DECISION))
    events = await events_of(closing, janet)
    text = text_of(events)
    assert text.startswith("".join(DECISION))
    assert text.count(SIGNPOST) == text.count(WARNING) == 1
    assert isinstance(events[-1], Completed) and events[-1].text == text
    records = closing._open_services.records
    turn = await records.turn(events[0].turn_id)
    assert turn is not None and turn["delivered_length"] == turn["text_length"] == len(text)
    (action,) = await records.gate_actions(events[0].turn_id)
    assert (action["action"], action["withheld_text"]) == ("closing", None)
    assert text[action["start"] : action["end"]] == action["replacement"]
    assert await records.text(events[0].turn_id) == text


@pytest.mark.parametrize(
    "said",
    [
        "Good morning, Janet. How are you?",
        f"{''.join(DECISION)}Values can fall as well as rise. Pension Wise explains this for free.",
    ],
)
async def test_a_greeting_and_an_answer_that_says_it_all_stay_as_they_are(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile, said: str
) -> None:
    author_says(simulator, wire, Script(text=said))
    events = await events_of(closing, janet)
    assert text_of(events) == said
    assert await closing._open_services.records.gate_actions(events[0].turn_id) == ()


async def test_a_definition_gets_no_warning(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(text="An annuity is an income for life in return for a pension pot."))
    text = text_of(await events_of(closing, janet))
    assert WARNING not in text
    assert text.count(SIGNPOST) == 1


@pytest.mark.parametrize("kind", ["max_tokens", "refusal"])
async def test_an_answer_that_was_cut_off_or_refused_is_closed(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile, kind: str
) -> None:
    author_fails(simulator, wire, kind=kind, after_chunks=2, script=Script(pieces=DECISION))
    events = await events_of(closing, janet)
    text = text_of(events)
    assert isinstance(events[-1], Completed)
    assert text.startswith("".join(DECISION[:2]))
    assert text.count(SIGNPOST) == text.count(WARNING) == 1


async def test_a_bare_refusal_still_says_where_to_turn(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="refusal", after_chunks=0, script=Script(pieces=DECISION))
    events = await events_of(closing, janet)
    assert text_of(events).count(SIGNPOST) == 1


@pytest.mark.parametrize("kind", ["truncate", "error_event"])
async def test_a_failure_comes_after_the_last_text_and_its_closing(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile, kind: str
) -> None:
    author_fails(simulator, wire, kind=kind, after_chunks=2, times=None, pause=0.1, script=Script(pieces=DECISION))
    events = await events_of(closing, janet)
    *_, closing_text, failed = events
    assert isinstance(failed, Failed)
    assert isinstance(closing_text, TextDelta) and SIGNPOST in closing_text.text
    assert text_of(events).startswith("".join(DECISION[:2]))
    pieces = []
    with pytest.raises(ModelError):
        async for text in closing.provide_guidance_stream(janet, use_reasoning=False):
            pieces.append(text)  # noqa: PERF401 - what came before the exception counts
    assert SIGNPOST in "".join(pieces)


async def test_a_failure_before_any_text_speaks_for_itself(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="status", status=400, times=None)
    events = await events_of(closing, janet)
    assert isinstance(events[-1], Failed)
    assert text_of(events) == ""


async def test_a_caller_who_leaves_gets_no_closing(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=DECISION * 300, first_ms=0, interval_ms=10))
    async with closing.consult(janet, use_reasoning=False) as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                break
    records = closing._open_services.records
    assert turn.state == "closed_early"
    text = await records.text(turn.turn_id)
    assert text and SIGNPOST not in text
    assert await records.gate_actions(turn.turn_id) == ()


async def test_the_next_turn_finds_the_consultation_by_the_closed_answer(
    closing: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=DECISION))
    async with closing.consult(janet, use_reasoning=False) as first:
        text = text_of([event async for event in first if event.public])
    history = [
        {"role": "customer", "content": str(janet.presenting_question)},
        {"role": "advisor", "content": text},
        {"role": "customer", "content": "And the tax?"},
    ]
    async with closing.consult(janet, history, use_reasoning=False) as second:
        async for _ in second:
            pass
    assert second.consultation_id == first.consultation_id

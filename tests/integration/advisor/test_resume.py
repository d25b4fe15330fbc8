"""A client that comes back gets what it missed from the journal, then the live rest; the model is asked once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from guidance_agent import (
    AdvisorAgent,
    Completed,
    CustomerProfile,
    Failed,
    PublicEvent,
    Runtime,
    TextDelta,
    TurnStarted,
)
from guidance_agent.advisor.resume import PAGE
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.journal import LEASE_SECONDS
from guidance_agent.errors import ConfigurationError, InputError, UnknownTurnError
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.test_process_death import start_child
from tests.integration.advisor.wiring import (
    author_fails,
    author_requests,
    author_says,
    closed_by_client,
    endless,
    wired_settings,
)

SOCKET_CLOSES_WITHIN = 0.5


async def public_events(advisor: AdvisorAgent, customer: CustomerProfile) -> list[PublicEvent]:
    async with advisor.consult(customer, use_reasoning=True) as turn:
        return [event async for event in turn if event.public]  # type: ignore[misc]


async def followed(advisor: AdvisorAgent, turn_id: str, after: int = -1) -> list[PublicEvent]:
    return [event async for event in advisor.events(turn_id, after=after)]


def text_of(events: list[PublicEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_an_ended_turn_is_read_back_from_any_number(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(chunks=30, interval_ms=3))
    events = await public_events(wired, janet)
    assert isinstance(events[-1], Completed)
    for event in events:
        assert await followed(wired, event.turn_id, event.sequence) == events[event.sequence + 1 :]
    assert await followed(wired, events[0].turn_id) == events
    assert len(author_requests(simulator, wire)) == 1


async def test_a_live_turn_is_followed_to_its_end_from_where_the_client_left(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(chunks=150, interval_ms=15))
    seen: list[PublicEvent] = []
    followers: list[asyncio.Task[list[PublicEvent]]] = []
    async with asyncio.TaskGroup() as group, wired.consult(janet) as turn:
        async for event in turn:
            if event.public:
                seen.append(event)  # type: ignore[arg-type]
            if len(seen) in (1, 4, 9) and len(followers) < len(seen):
                followers.append(group.create_task(followed(wired, turn.turn_id, event.sequence)))
    assert isinstance(seen[-1], Completed)
    for follower in followers:
        assert follower.result() == seen[-len(follower.result()) :]
        assert follower.result()[0].sequence >= 1
    assert len(followers) >= 3
    assert len(author_requests(simulator, wire)) == 1


async def test_a_turn_of_another_process_is_followed_to_its_end(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    author_says(simulator, wire, Script(chunks=100, interval_ms=5))
    data_dir = tmp_path / "data"
    child = await start_child(simulator, wire, data_dir)
    assert child.stdout is not None
    turn_id = json.loads(await child.stdout.readline())["turn"]
    async with (
        Runtime(wired_settings(simulator, wire, data_dir), environ={}) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
    ):
        assert turn_id not in runtime.journal.live_turns
        events = await followed(advisor, turn_id)
    shown = "".join(json.loads(line).get("text", "") for line in (await child.stdout.read()).splitlines())
    assert await child.wait() == 0
    assert text_of(events) == shown
    assert isinstance(events[-1], Completed)
    assert [event.sequence for event in events] == list(range(len(events)))


class StepClock(SystemClock):
    """A clock that can be set forward."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


async def test_a_follower_is_told_that_the_process_died_without_waiting_for_a_sweep(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    endless(simulator, wire)
    clock, data_dir = StepClock(), tmp_path / "data"
    child = await start_child(simulator, wire, data_dir)
    assert child.stdout is not None
    turn_id = json.loads(await child.stdout.readline())["turn"]
    settings = wired_settings(simulator, wire, data_dir)
    async with Runtime(settings, clock=clock, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        events: list[PublicEvent] = []
        async for event in advisor.events(turn_id):
            events.append(event)
            if len(events) == 3:
                child.send_signal(signal.SIGKILL)
                await child.wait()
                clock.ahead = timedelta(seconds=LEASE_SECONDS + 1)
        row = await runtime.records.turn(turn_id)
        journaled = await runtime.records.text(turn_id)
    assert isinstance(events[-1], Failed) and events[-1].error == "ProcessDied"
    assert text_of(events) == journaled
    assert row is not None and row["state"] == "process_died" and row["judgement"] == "pending"


async def test_a_turn_that_its_caller_left_ends_without_a_last_event(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    async with wired.consult(janet, use_reasoning=False) as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                break
    events = await followed(wired, turn.turn_id)
    assert {type(event) for event in events} == {TurnStarted, TextDelta}


async def test_a_failed_turn_is_read_back_with_its_failure(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="truncate", after_chunks=2, times=None)
    events = await public_events(wired, janet)
    assert isinstance(events[-1], Failed)
    assert await followed(wired, events[0].turn_id) == events


async def test_a_long_answer_is_read_back_page_by_page(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    # What arrives during one commit is one event: on a slow disk there are fewer of them than chunks.
    author_says(simulator, wire, Script(chunks=900, interval_ms=12))
    events = await public_events(wired, janet)
    assert len(events) > 2 * PAGE
    assert await followed(wired, events[0].turn_id) == events


async def test_other_peoples_and_unknown_turns_are_refused_alike(wired: AdvisorAgent, janet: CustomerProfile) -> None:
    turn_id = (await public_events(wired, janet))[0].turn_id
    assert [event async for event in wired.events(turn_id, customer_id=janet.customer_id)]
    with pytest.raises(UnknownTurnError) as others:
        await anext(wired.events(turn_id, customer_id="somebody-else"))
    with pytest.raises(UnknownTurnError) as unknown:
        await anext(wired.events("turn_unknown", customer_id=janet.customer_id))
    assert str(others.value).replace(turn_id, "") == str(unknown.value).replace("turn_unknown", "")


@pytest.mark.parametrize("after", [-2, 1.5, "3", None, True])
async def test_what_is_no_sequence_number_is_refused(wired: AdvisorAgent, janet: CustomerProfile, after: int) -> None:
    turn_id = (await public_events(wired, janet))[0].turn_id
    with pytest.raises(InputError, match="after="):
        await anext(wired.events(turn_id, after=after))


async def test_a_number_beyond_the_last_yields_nothing(wired: AdvisorAgent, janet: CustomerProfile) -> None:
    events = await public_events(wired, janet)
    assert await followed(wired, events[0].turn_id, events[-1].sequence) == []
    assert await followed(wired, events[0].turn_id, 10**6) == []


# Turns that survive their connection


async def test_a_started_turn_runs_to_its_end_though_nobody_listens(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(chunks=40, interval_ms=2))
    turn_id = await wired.start_turn(janet)
    await ended(wired_runtime, turn_id)
    row = await wired_runtime.records.turn(turn_id)
    assert row is not None
    assert row["state"] == "completed"
    assert row["delivered_length"] == row["text_length"] > 0
    assert row["judgement"] == "pending"
    consultation = await wired_runtime.records.transcript(row["consultation_id"])
    assert consultation[-1].content == text_of(await followed(wired, turn_id))


async def test_leaving_a_followed_turn_does_not_end_it(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(chunks=60, interval_ms=5))
    turn_id = await wired.start_turn(janet)
    first: list[PublicEvent] = []
    async with contextlib.aclosing(wired.events(turn_id)) as stream:
        async for event in stream:
            first.append(event)
            if isinstance(event, TextDelta):
                break
    rest = await followed(wired, turn_id, first[-1].sequence)
    assert isinstance(rest[-1], Completed)
    assert text_of(first + rest) == rest[-1].text
    assert [event.sequence for event in first + rest] == list(range(len(first) + len(rest)))
    assert len(author_requests(simulator, wire)) == 1


async def test_a_started_turn_that_is_stopped_closes_the_socket_and_judges_what_could_be_read(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    turn_id = await wired.start_turn(janet, use_reasoning=False)
    read = ""
    async for event in wired.events(turn_id):
        if isinstance(event, TextDelta):
            read += event.text
        if len(read) > 200:
            break
    assert await wired.stop_turn(turn_id)
    await closed_by_client(author_requests(simulator, wire)[0], within=SOCKET_CLOSES_WITHIN)
    row = await wired_runtime.records.turn(turn_id)
    assert row is not None
    assert row["state"] == "closed_early"
    assert row["judgement"] == "pending"
    journaled = await wired_runtime.records.text(turn_id)
    assert journaled.startswith(read)
    assert row["delivered_length"] == row["text_length"] == len(journaled)
    assert not await wired.stop_turn(turn_id)


async def test_closing_the_advisor_ends_its_started_turns_and_their_followers(
    simulator: ProviderSimulator, wire: str, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    async with AdvisorAgent(runtime=wired_runtime) as advisor:
        turn_id = await advisor.start_turn(janet, use_reasoning=False)
        stream = advisor.events(turn_id)
        events = [await anext(stream), await anext(stream)]
    events += [event async for event in stream]
    row = await wired_runtime.records.turn(turn_id)
    assert row is not None and row["state"] == "closed_early"
    assert row["delivered_length"] == len(text_of(events))
    with pytest.raises(ConfigurationError):
        await anext(advisor.events(turn_id))


async def test_a_start_that_is_cancelled_leaves_no_turn_running(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    for steps in range(1, 40, 3):
        task = asyncio.ensure_future(wired.start_turn(janet, use_reasoning=False))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            turn_id = await task
            assert await wired.stop_turn(turn_id)
    async with asyncio.timeout(5):
        while wired_runtime.journal.live_turns:  # noqa: ASYNC110 - the end of the cancelled turns is what is polled
            await asyncio.sleep(0.01)


async def ended(runtime: Runtime, turn_id: str) -> None:
    async with asyncio.timeout(10):
        while turn_id in runtime.journal.live_turns:  # noqa: ASYNC110 - nobody listens, so the record is polled
            await asyncio.sleep(0.01)


async def test_many_followers_of_many_turns_each_get_their_own(
    simulator: ProviderSimulator, wire: str, wired: AdvisorAgent
) -> None:
    author_says(simulator, wire, Script(chunks=20, interval_ms=5))

    async def one(number: int) -> tuple[str, str]:
        customer = {"customer_id": f"customer-{number}", "presenting_question": "What is drawdown?"}
        turn_id = await wired.start_turn(customer, use_reasoning=False)
        events = await followed(wired, turn_id)
        assert isinstance(events[-1], Completed)
        return text_of(events), events[-1].text

    for text, whole in await asyncio.gather(*(one(number) for number in range(50))):
        assert text == whole != ""

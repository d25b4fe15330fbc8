"""Every odd way to consume a turn ends it once, records what was handed out, and leaves nothing waiting for ever."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Completed, Event, Failed, Runtime, TextDelta, Turn
from guidance_agent.core.schema import turns
from guidance_agent.errors import ConfigurationError, GuidanceAgentError, IdleConsumerError, ModelTimeoutError
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import (
    author_fails,
    author_requests,
    author_says,
    closed_by_client,
    endless,
    wired_settings,
)
from tests.integration.attacks.evidence import asks, check_ended, ended_turn_of, rows, shown

ENDS_WITHIN = 20.0
SHORT = Script(pieces=("One. ", "Two."))


async def ended(runtime: Runtime, customer_id: str, delivered: str) -> str:
    """Wait until the customer's turn has ended, check its records, and return its state."""
    row = await ended_turn_of(runtime, customer_id)
    return str((await check_ended(runtime, row["id"], delivered))["state"])


async def test_two_tasks_that_ask_at_once_share_the_events_and_lose_none(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(chunks=40, first_ms=0, interval_ms=2))
    received: list[Event] = []

    async def read(turn: Turn) -> None:
        async for event in turn:
            received.append(event)
            await asyncio.sleep(0)

    async with wired.consult(asks("c"), use_reasoning=False) as turn, asyncio.timeout(ENDS_WITHIN):
        await asyncio.gather(read(turn), read(turn), read(turn))
    received.sort(key=lambda event: event.sequence)
    assert isinstance(received[-1], Completed)
    assert shown(received) == received[-1].text
    assert await ended(wired_runtime, "c", received[-1].text) == "completed"


async def test_closing_ends_a_wait_in_another_task(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(pieces=("One. ", "never"), first_ms=0, interval_ms=60_000))
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        async for event in turn:
            if shown([event]):
                break
        waiting = asyncio.create_task(anext(turn, None))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await turn.aclose()
        assert await asyncio.wait_for(waiting, ENDS_WITHIN) is None
    (request,) = author_requests(simulator, wire)
    await closed_by_client(request, within=0.5)
    assert await ended(wired_runtime, "c", "One. ") == "closed_early"


async def test_a_turn_that_is_closed_as_soon_as_it_is_entered_has_ended(wired: AdvisorAgent) -> None:
    async with wired.consult(asks("c")) as turn:
        await turn.aclose()
        assert await asyncio.wait_for(anext(turn, None), 1.0) is None
        assert turn.state != "streaming"


async def test_closing_inside_the_loop_ends_the_loop(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    endless(simulator, wire)
    text = ""
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        async for event in turn:
            text += shown([event])
            if text:
                await turn.aclose()
    assert await ended(wired_runtime, "c", text) == "closed_early"


async def test_leaving_a_generator_that_wraps_the_stream_ends_the_turn(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    endless(simulator, wire)

    async def upper() -> AsyncGenerator[str, None]:
        async for text in wired.provide_guidance_stream(asks("c"), use_reasoning=False):
            yield text.upper()

    async def numbered() -> AsyncGenerator[tuple[int, str], None]:
        number = 0
        async for text in upper():
            yield (number := number + 1), text

    text = ""
    async for _, piece in numbered():
        text = piece
        break
    gc.collect()
    row = await ended_turn_of(wired_runtime, "c")
    assert row["state"] == "closed_early"
    assert row["delivered_length"] == len(text)


async def test_an_error_thrown_into_the_stream_comes_back_and_ends_the_turn(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    endless(simulator, wire)
    stream = wired.provide_guidance_stream(asks("c"), use_reasoning=False)
    text = await anext(stream)
    with pytest.raises(ZeroDivisionError):
        await stream.athrow(ZeroDivisionError())
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert await ended(wired_runtime, "c", text) == "closed_early"


async def test_a_wait_that_is_given_up_loses_no_event(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(chunks=20, first_ms=10, interval_ms=10))
    events: list[Event] = []
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        while not events or not isinstance(events[-1], Completed | Failed):
            task = asyncio.ensure_future(anext(turn))
            done, _ = await asyncio.wait({task}, timeout=0.003)
            if not done:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    events.append(await task)
                continue
            events.append(task.result())
    assert isinstance(events[-1], Completed)
    assert shown(events) == events[-1].text
    assert await ended(wired_runtime, "c", events[-1].text) == "completed"


async def test_a_caller_who_leaves_after_the_last_text_leaves_a_whole_journal(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, SHORT)

    async def leave(number: int) -> None:
        text = ""
        async with wired.consult(asks(f"c-{number}"), use_reasoning=False) as turn:
            async for event in turn:
                text += shown([event])
                if text == "One. Two.":
                    for _ in range(number % 6):
                        await asyncio.sleep(0)
                    break

    await asyncio.gather(*(leave(number) for number in range(24)))
    for number in range(24):
        assert await ended(wired_runtime, f"c-{number}", "One. Two.") == "completed"


async def test_a_stream_of_an_advisor_that_was_closed_before_it_began_is_refused(
    wired_runtime: Runtime, simulator: ProviderSimulator
) -> None:
    async with AdvisorAgent(runtime=wired_runtime) as advisor:
        stream = advisor.provide_guidance_stream(asks("c"))
        turn = advisor.consult(asks("c"))
    with pytest.raises(ConfigurationError):
        await anext(stream)
    with pytest.raises(ConfigurationError):
        await turn.__aenter__()
    assert len(simulator.requests) == 0


async def test_readers_of_an_advisor_that_closes_come_to_an_end(
    wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    endless(simulator, wire)

    async def read(advisor: AdvisorAgent, number: int) -> str:
        return "".join([text async for text in advisor.provide_guidance_stream(asks(f"c-{number}"), None, False)])

    async with AdvisorAgent(runtime=wired_runtime) as advisor:
        readers = [asyncio.create_task(read(advisor, number)) for number in range(8)]
        async with asyncio.timeout(ENDS_WITHIN):
            while len(await rows(wired_runtime, turns)) < 8:  # noqa: ASYNC110 - the record is what is polled
                await asyncio.sleep(0.01)
    texts = await asyncio.wait_for(asyncio.gather(*readers), ENDS_WITHIN)
    for number, text in enumerate(texts):
        assert await ended(wired_runtime, f"c-{number}", text) == "closed_early"


async def test_no_turn_begins_after_its_advisor_has_closed(
    wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    endless(simulator, wire)
    advisor = await AdvisorAgent(runtime=wired_runtime).__aenter__()
    turn = advisor.consult(asks("c"), use_reasoning=False)
    entering = asyncio.create_task(turn.__aenter__())
    # Far enough for planning to have begun, and not to its end, which takes a thread.
    for _ in range(3):
        await asyncio.sleep(0)
    await advisor.__aexit__(None, None, None)
    try:
        with pytest.raises(GuidanceAgentError):
            await entering
    finally:
        await turn.aclose()


@pytest.fixture
async def limited(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Runtime]:
    """A runtime with background work and the time-outs that the test asks for."""
    settings = wired_settings(
        simulator, wire, tmp_path / "data", timeouts=request.param, retry={"max_attempts": 1}, background=True
    )
    async with Runtime(settings, environ={}) as runtime:
        yield runtime


IDLE = pytest.mark.parametrize("limited", [{"idle_consumer": 1.0}], indirect=True, ids=["idle"])
HASTY = {"turn": 2.0, "between_events": 0.8, "without_content": 1.0, "first_event": 0.8}


@IDLE
async def test_a_caller_who_asks_just_before_the_idle_limit_is_never_cut_off(
    limited: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    pieces = tuple(f"{number} " for number in range(4))
    author_says(simulator, wire, Script(pieces=pieces, first_ms=0, interval_ms=60))
    text = ""
    async with AdvisorAgent(runtime=limited) as advisor:
        async for piece in advisor.provide_guidance_stream(asks("c"), use_reasoning=False):
            text += piece
            await asyncio.sleep(0.6)
    assert text == "".join(pieces)


@IDLE
async def test_idle_callers_of_every_kind_are_closed_and_their_prefix_is_recorded(
    limited: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(bytes=6_000_000, first_ms=0, interval_ms=0))

    async def idle(advisor: AdvisorAgent, after: int) -> None:
        text, seen = "", 0
        async with advisor.consult(asks(f"idle-{after}"), use_reasoning=False) as turn:
            while seen < after:
                text += shown([await anext(turn)])
                seen += 1
            async with asyncio.timeout(ENDS_WITHIN):
                while turn.state == "streaming":  # noqa: ASYNC110 - nothing tells an idle caller
                    await asyncio.sleep(0.02)
            with pytest.raises(IdleConsumerError):
                await anext(turn)
        assert await ended(limited, f"idle-{after}", text) == "closed_early"

    async with AdvisorAgent(runtime=limited) as advisor:
        await asyncio.gather(*(idle(advisor, after) for after in (1, 2, 3, 4)))


@pytest.mark.parametrize("limited", [HASTY], indirect=True, ids=["hasty"])
@pytest.mark.parametrize(
    ("fault", "phase"),
    [
        ({"kind": "stall", "after_chunks": 2, "script": {"chunks": 5, "first_ms": 0}}, "between_events"),
        ({"kind": "stall", "after_chunks": 0}, "first_event"),
        ({"kind": "slow_headers"}, "first_event"),
        ({"kind": "script", "script": {"chunks": 600, "first_ms": 0, "interval_ms": 10}}, "turn"),
    ],
)
async def test_a_provider_that_stalls_or_never_ends_is_given_up_with_its_prefix_on_record(
    limited: Runtime, simulator: ProviderSimulator, wire: str, fault: dict[str, object], phase: str
) -> None:
    author_fails(simulator, wire, **fault)
    async with (
        asyncio.timeout(ENDS_WITHIN),
        AdvisorAgent(runtime=limited) as advisor,
        advisor.consult(asks("c"), use_reasoning=False) as turn,
    ):
        events = [event async for event in turn]
    assert isinstance(turn.exception, ModelTimeoutError)
    # A provider may begin its stream with events that say nothing, so that a stall before the text comes after them.
    assert turn.exception.phase in ({phase, "between_events"} if fault["kind"] == "stall" else {phase})
    assert isinstance(events[-1], Failed)
    assert await ended(limited, "c", shown(events)) == "failed"
    assert any(isinstance(event, TextDelta) for event in events) == (phase in ("between_events", "turn"))

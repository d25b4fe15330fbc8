"""However the caller leaves, the provider's socket closes and what was delivered is recorded and judged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, TextDelta, Turn
from guidance_agent.core.schema import model_calls, turns
from guidance_agent.errors import IdleConsumerError
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import (
    author_requests,
    author_says,
    closed_by_client,
    endless,
    wired_settings,
)

SOCKET_CLOSES_WITHIN = 0.5
RECORDED_WITHIN = 5.0
_MORE_THAN_SOCKETS_BUFFER = 12_000_000

Idiom = Callable[[AdvisorAgent, CustomerProfile], Awaitable[str]]


async def break_from_the_loop(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    text = ""
    async for chunk in advisor.provide_guidance_stream(customer):
        text += chunk
        if len(text) > 100:
            break
    return text


async def close_the_generator(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    stream = advisor.provide_guidance_stream(customer)
    text = await anext(stream)
    await stream.aclose()
    return text


async def leave_the_block(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    async with advisor.consult(customer) as turn:
        return await first_text(turn)


async def raise_in_the_loop(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    text = ""
    with contextlib.suppress(ConnectionResetError):
        async for chunk in advisor.provide_guidance_stream(customer):
            text += chunk
            raise ConnectionResetError
    return text


async def cancel_the_task(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    received: list[str] = []

    async def read() -> None:
        async for chunk in advisor.provide_guidance_stream(customer):
            received.append(chunk)  # noqa: PERF401 - a comprehension would lose what came before the cancel

    task = asyncio.create_task(read())
    async with asyncio.timeout(10):
        while not received:  # noqa: ASYNC110 - whatever was received first will do
            await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return "".join(received)


async def run_into_a_deadline(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    received: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(4.0):
            async for chunk in advisor.provide_guidance_stream(customer):
                received.append(chunk)  # noqa: PERF401 - a comprehension would lose what came before the deadline
    return "".join(received)


async def forget_the_generator(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    stream = advisor.provide_guidance_stream(customer)
    text = await anext(stream)
    del stream
    gc.collect()
    return text


async def forget_the_turn(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    turn = await advisor.consult(customer).__aenter__()
    text = await first_text(turn)
    del turn
    gc.collect()
    return text


async def close_twice(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    async with advisor.consult(customer) as turn:
        text = await first_text(turn)
        await asyncio.gather(turn.aclose(), turn.aclose())
        await turn.aclose()
    return text


async def cancel_while_closing(advisor: AdvisorAgent, customer: CustomerProfile) -> str:
    turn = await advisor.consult(customer).__aenter__()
    text = await first_text(turn)
    closing = asyncio.create_task(turn.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    return text


async def first_text(turn: Turn) -> str:
    async for event in turn:
        if isinstance(event, TextDelta):
            return event.text
    raise AssertionError("the turn ended without text")


IDIOMS: list[Idiom] = [
    break_from_the_loop,
    close_the_generator,
    leave_the_block,
    raise_in_the_loop,
    cancel_the_task,
    run_into_a_deadline,
    forget_the_generator,
    forget_the_turn,
    close_twice,
    cancel_while_closing,
]


async def ended_turn(runtime: Runtime) -> dict[str, Any]:
    async with asyncio.timeout(RECORDED_WITHIN):
        while True:
            with runtime.database.engine.connect() as connection:
                row = (connection.execute(sa.select(turns))).mappings().one()
            if row["state"] != "streaming":
                return dict(row)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("leave", IDIOMS, ids=lambda idiom: idiom.__name__)
async def test_leaving_closes_the_socket_and_records_what_was_delivered(
    wired: AdvisorAgent,
    wired_runtime: Runtime,
    simulator: ProviderSimulator,
    wire: str,
    janet: CustomerProfile,
    leave: Idiom,
) -> None:
    endless(simulator, wire)
    text = await leave(wired, janet)
    (request,) = author_requests(simulator, wire)
    await closed_by_client(request, within=SOCKET_CLOSES_WITHIN)
    turn = await ended_turn(wired_runtime)
    assert text
    assert (turn["state"], turn["judgement"]) == ("closed_early", "pending")
    assert turn["delivered_length"] == len(text)
    events = await wired_runtime.records.events(turn["id"])
    assert "".join(event.text or "" for event in events)[: len(text)] == text
    (_, answer) = await wired_runtime.records.transcript(turn["consultation_id"])
    assert answer.content == text


async def test_closing_returns_when_the_end_is_on_record(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    for _ in range(5):
        async with wired.consult(janet, use_reasoning=False) as turn:
            await first_text(turn)
        row = await wired_runtime.records.turn(turn.turn_id)
        assert row is not None
        assert row["state"] == "closed_early"


async def test_the_usage_of_a_turn_that_was_left_is_kept_and_marked_estimated(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    await break_from_the_loop(wired, janet)
    await ended_turn(wired_runtime)
    async with asyncio.timeout(RECORDED_WITHIN):
        while True:
            with wired_runtime.database.engine.connect() as connection:
                query = sa.select(model_calls).where(model_calls.c.operation == "guidance")
                call = (connection.execute(query)).mappings().first()
            if call is not None:
                break
            await asyncio.sleep(0.005)
    assert call["usage_estimated"]
    assert call["output_tokens"] > 0
    assert call["outcome"] in {"closed_early", "cancelled"}


async def test_a_turn_that_is_never_begun_leaves_no_trace(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, janet: CustomerProfile
) -> None:
    stream = wired.provide_guidance_stream(janet)
    await stream.aclose()
    wired.consult(janet)
    with wired_runtime.database.engine.connect() as connection:
        assert (connection.execute(sa.select(turns))).first() is None
    assert len(simulator.requests) == 0


async def test_a_cancel_before_the_first_text_ends_the_turn_too(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(chunks=1, first_ms=60_000))
    task = asyncio.create_task(wired.provide_guidance(janet))
    async with asyncio.timeout(10):
        while not author_requests(simulator, wire):  # noqa: ASYNC110 - the simulator's log is what is polled
            await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await closed_by_client(author_requests(simulator, wire)[0], within=SOCKET_CLOSES_WITHIN)
    turn = await ended_turn(wired_runtime)
    assert (turn["state"], turn["judgement"], turn["delivered_length"]) == ("closed_early", None, 0)


async def test_the_whole_text_delivered_is_a_completed_turn_even_if_nobody_asks_for_its_end(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(text="Short."))
    async with wired.consult(janet) as turn:
        assert await first_text(turn) == "Short."
        await asyncio.sleep(0.2)
    assert (await ended_turn(wired_runtime))["state"] == "completed"


async def test_closing_the_advisor_closes_its_turns(
    wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    async with AdvisorAgent(runtime=wired_runtime) as advisor:
        turn = await advisor.consult(janet).__aenter__()
        await first_text(turn)
    (request,) = author_requests(simulator, wire)
    await closed_by_client(request, within=SOCKET_CLOSES_WITHIN)
    assert (await ended_turn(wired_runtime))["state"] == "closed_early"


@pytest.fixture
async def impatient(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> AsyncIterator[AdvisorAgent]:
    settings = wired_settings(simulator, wire, tmp_path / "data", timeouts={"idle_consumer": 0.3})
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        yield advisor


async def test_an_iterator_that_is_kept_but_not_asked_is_closed_and_says_so(
    impatient: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    stream = impatient.provide_guidance_stream(janet)
    await anext(stream)
    (request,) = author_requests(simulator, wire)
    await closed_by_client(request, within=0.3 + SOCKET_CLOSES_WITHIN)
    with pytest.raises(IdleConsumerError):
        await anext(stream)


async def test_a_slow_provider_is_not_an_idle_consumer(
    impatient: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=("slow ", "but sure"), first_ms=700, interval_ms=700))
    assert await impatient.provide_guidance(janet) == "slow but sure"


async def test_a_slow_caller_slows_the_provider_and_costs_no_timeout(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, janet: CustomerProfile
) -> None:
    timeouts = {"between_events": 0.4, "without_content": 0.6, "turn": 12.0}
    # Megabytes take the gate longer to read than this turn may take.
    settings = wired_settings(simulator, wire, tmp_path / "data", timeouts=timeouts, gate={"mode": "off"})
    author_says(simulator, wire, Script(bytes=_MORE_THAN_SOCKETS_BUFFER, first_ms=0, interval_ms=0))
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        stream = advisor.provide_guidance_stream(janet, use_reasoning=False)
        text = await anext(stream)
        await asyncio.sleep(12.5)
        (request,) = author_requests(simulator, wire)
        assert request.bytes_sent < _MORE_THAN_SOCKETS_BUFFER
        async for chunk in stream:
            text += chunk
    assert len(text) == _MORE_THAN_SOCKETS_BUFFER

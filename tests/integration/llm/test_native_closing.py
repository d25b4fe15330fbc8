"""However a caller stops, the provider's socket is closed within half a second and the call is recorded once."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import pytest

from guidance_agent.errors import MidStreamError
from guidance_agent.llm.gateway import ModelGateway, ModelStream
from guidance_agent.llm.messages import ModelCall, ModelRequest
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script

Ask = Callable[..., ModelRequest]


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    for _ in range(10_000):
        if condition():
            return
        assert time.monotonic() < deadline, f"it did not come to that within {seconds} s"
        await asyncio.sleep(0.005)


async def break_and_close(stream: ModelStream) -> None:
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()


async def close_between_reads(stream: ModelStream) -> None:
    await stream.read()
    await stream.aclose()
    await stream.aclose()


async def leave_the_block(stream: ModelStream) -> None:
    async with stream:
        await stream.read()


async def raise_in_the_block(stream: ModelStream) -> None:
    with pytest.raises(LookupError):
        async with stream:
            await stream.read()
            raise LookupError


async def cancel_while_waiting(stream: ModelStream) -> None:
    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await until(lambda: stream.text_length > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def close_from_another_task(stream: ModelStream) -> None:
    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await until(lambda: stream.text_length > 0)
    await stream.aclose()
    await task


STOPS = [
    break_and_close,
    close_between_reads,
    leave_the_block,
    raise_in_the_block,
    cancel_while_waiting,
    close_from_another_task,
]


def endless(simulator: ProviderSimulator) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(chunks=2_000, first_ms=0, interval_ms=50)))


async def closed_within_half_a_second(simulator: ProviderSimulator, calls: list[ModelCall]) -> None:
    await until(lambda: simulator.requests[-1].client_closed_at is not None and len(calls) > 0, seconds=0.5)


@pytest.mark.parametrize("stop", STOPS)
async def test_the_socket_closes_and_the_call_is_recorded_once(
    stop: Callable[[ModelStream], object],
    gateway: ModelGateway,
    simulator: ProviderSimulator,
    calls: list[ModelCall],
    model: str,
    ask: Ask,
) -> None:
    endless(simulator)
    result = stop(gateway.stream(ask(model)))
    assert asyncio.iscoroutine(result)
    await result
    await closed_within_half_a_second(simulator, calls)
    [call] = calls
    assert call.outcome == ("cancelled" if stop is cancel_while_waiting else "closed_early")
    assert call.usage is not None
    assert call.usage.estimated
    assert call.usage.output_tokens > 0


async def test_a_collected_stream_closes_its_socket(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    endless(simulator)
    async for delta in gateway.stream(ask(model)):
        if delta.text:
            break
    gc.collect()
    await closed_within_half_a_second(simulator, calls)
    assert [call.outcome for call in calls] == ["closed_early"]


async def test_a_stream_in_a_reference_cycle_closes_its_socket(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    endless(simulator)
    stream = gateway.stream(ask(model))
    await stream.read()
    cycle: list[object] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    await closed_within_half_a_second(simulator, calls)


async def test_closing_the_gateway_closes_its_streams_and_is_no_end_of_an_answer(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    endless(simulator)
    stream = gateway.stream(ask(model))
    await stream.read()
    await gateway.aclose()
    await closed_within_half_a_second(simulator, calls)
    with pytest.raises(MidStreamError, match="gateway was closed"):
        await stream.read()


async def test_a_cancel_before_the_first_event_closes_the_socket(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="slow_headers"))
    task = asyncio.create_task(gateway.complete(ask(model)))
    await until(lambda: len(simulator.requests) > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed_within_half_a_second(simulator, calls)
    assert [call.outcome for call in calls] == ["cancelled"]


async def test_nothing_is_sent_before_the_first_read(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    async with gateway.stream(ask(model)) as stream:
        pass
    assert await stream.read() is None
    assert len(simulator.requests) == 0
    assert calls == []

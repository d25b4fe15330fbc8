"""Stopping"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from guidance_agent.errors import MidStreamError
from guidance_agent.llm.gateway import ModelGateway, ModelStream
from tests.conformance.byte_server import CHUNKED, PLAIN, chunk
from tests.conformance.observing import observe, within
from tests.conformance.serving import Door, Served
from tests.conformance.wires import Said, body_of

CLOSED_WITHIN = 0.5
INTERVAL = 0.05
Make = Callable[[], ModelStream]
Stop = Callable[[Make], Awaitable[None]]


def endless(served: Served) -> tuple[object, ...]:
    """An answer that goes on for longer than any test: an event every 50 ms, and an eye on the socket between them."""
    events = served.wire.events(Said(text=("word " * 20,)))
    words = next(index for index, event in enumerate(events) if event.text)
    again: list[object] = [chunk(events[words].data), INTERVAL] * 400
    return (CHUNKED, chunk(body_of(events[:words])), *again)


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to that within {seconds} s"
        await asyncio.sleep(0.002)


async def _begun(stream: ModelStream) -> asyncio.Task[None]:
    """A task that reads, and has words."""

    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await until(lambda: stream.text_length > 0)
    return task


async def _cancelled(task: asyncio.Task[None]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task


async def break_without_keeping(make: Make) -> None:
    async for delta in make():
        if delta.text:
            break


async def break_and_aclose(make: Make) -> None:
    stream = make()
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()


async def aclose_twice_between_reads(make: Make) -> None:
    stream = make()
    await stream.read()
    await stream.aclose()
    await stream.aclose()
    assert await stream.read() is None


async def leave_async_with(make: Make) -> None:
    async with make() as stream:
        await stream.read()


async def return_from_async_with(make: Make) -> None:
    async def first_words() -> str:
        async with make() as stream:
            async for delta in stream:
                if delta.text:
                    return delta.text
        raise AssertionError("no words")

    assert await first_words()


async def raise_in_async_with(make: Make) -> None:
    with pytest.raises(LookupError):
        async with make() as stream:
            await stream.read()
            raise LookupError


async def raise_in_async_for(make: Make) -> None:
    async def consume() -> None:
        async for delta in make():
            if delta.text:
                raise LookupError

    with suppress(LookupError):
        await consume()


async def cancel_while_it_waits(make: Make) -> None:
    task = await _begun(make())
    task.cancel()
    await _cancelled(task)


async def cancel_twice(make: Make) -> None:
    task = await _begun(make())
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await _cancelled(task)


async def cancel_twice_at_once(make: Make) -> None:
    task = await _begun(make())
    task.cancel()
    task.cancel()
    await _cancelled(task)


async def a_sibling_fails(make: Make) -> None:
    stream = make()

    async def consume() -> None:
        async for _ in stream:
            pass

    async def fail() -> None:
        await until(lambda: stream.text_length > 0)
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            group.create_task(fail())


async def cancel_from_a_thread(make: Make) -> None:
    task = await _begun(make())
    loop = asyncio.get_running_loop()
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(task.cancel))
    thread.start()
    await _cancelled(task)
    thread.join()


async def aclose_from_a_sibling(make: Make) -> None:
    stream = make()
    task = await _begun(stream)
    await stream.aclose()
    await within(task)


async def a_deadline_passes(make: Make) -> None:
    stream = make()
    await stream.read()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            async for _ in stream:
                pass


async def garbage_collection(make: Make) -> None:
    stream = make()
    await stream.read()
    cycle: list[object] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()


STOPS: list[Stop] = [
    break_without_keeping,
    break_and_aclose,
    aclose_twice_between_reads,
    leave_async_with,
    return_from_async_with,
    raise_in_async_with,
    raise_in_async_for,
    cancel_while_it_waits,
    cancel_twice,
    cancel_twice_at_once,
    a_sibling_fails,
    cancel_from_a_thread,
    aclose_from_a_sibling,
    a_deadline_passes,
    garbage_collection,
]
CANCELS = (cancel_while_it_waits, cancel_twice, cancel_twice_at_once, a_sibling_fails, cancel_from_a_thread)
every_stop = pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.__name__.replace("_", " "))


@every_stop
async def test_however_a_caller_stops_the_socket_closes_and_the_call_is_recorded_once(
    stop: Stop, served: Served
) -> None:
    served.server.serve_only(*endless(served))
    gateway, request = await served.gateway(), served.door.ask()
    await within(stop(lambda: gateway.stream(request)))
    await served.client_leaves(CLOSED_WITHIN)
    await until(lambda: len(served.door.calls) > 0, seconds=CLOSED_WITHIN)
    [call] = served.door.calls
    assert call.outcome == ("cancelled" if stop in (*CANCELS, a_deadline_passes) else "closed_early")
    assert call.usage is not None
    assert call.usage.estimated
    assert call.usage.output_tokens > 0
    assert call.finish_reason is None


@every_stop
async def test_however_a_caller_stops_the_next_answer_is_whole(stop: Stop, served: Served) -> None:
    served.server.serve_only(*endless(served))
    gateway, request = await served.gateway(), served.door.ask()
    await within(stop(lambda: gateway.stream(request)))
    seen = await served.streamed(body_of(served.wire.events(Said(text=("Hello.",)))))
    assert (seen.text, seen.finish, seen.error) == ("Hello.", "stop", None)


async def test_an_answer_that_the_transport_alone_holds_closes_its_socket_when_it_is_dropped(served: Served) -> None:
    served.server.serve_only(*endless(served))
    gateway = await served.gateway()
    call, transport = await gateway.ready(served.door.ask())
    stream = await transport.open(call)
    assert await within(stream.read())
    del stream
    gc.collect()
    await served.client_leaves(CLOSED_WITHIN)


async def test_a_read_after_a_cancelled_one_is_no_end_of_the_answer(served: Served) -> None:
    stream = await served.play(*endless(served))
    assert await within(stream.read())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            while await stream.read() is not None:
                pass
    with pytest.raises(MidStreamError, match="cancelled"):
        await stream.read()
    await served.client_leaves(CLOSED_WITHIN)


BEFORE = {"before the headers": (20,), "after the headers": (PLAIN, 20)}
before_the_first_event = pytest.mark.parametrize("script", BEFORE.values(), ids=BEFORE)


@before_the_first_event
async def test_a_cancel_before_the_first_event_closes_the_socket(script: tuple[object, ...], served: Served) -> None:
    stream = await served.play(*script)
    task = asyncio.create_task(observe(stream))
    await until(lambda: len(served.server.requests) > 0)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await served.client_leaves(CLOSED_WITHIN)
    assert [call.outcome for call in served.door.calls] == ["cancelled"]
    seen = await served.streamed(body_of(served.wire.events(Said(text=("Hello.",)))))
    assert (seen.text, seen.finish, seen.error) == ("Hello.", "stop", None)


@before_the_first_event
async def test_a_close_by_a_sibling_before_the_first_event_closes_the_socket(
    script: tuple[object, ...], served: Served
) -> None:
    stream = await served.play(*script)
    task = asyncio.create_task(stream.read())
    await until(lambda: len(served.server.requests) > 0)
    await asyncio.sleep(0.02)
    await within(stream.aclose(), CLOSED_WITHIN)
    assert await within(task, CLOSED_WITHIN) is None
    await served.client_leaves(CLOSED_WITHIN)
    assert [call.outcome for call in served.door.calls] == ["closed_early"]


@before_the_first_event
async def test_a_cancelled_call_for_a_whole_answer_closes_the_socket(
    script: tuple[object, ...], served: Served
) -> None:
    served.server.serve_only(*script)
    gateway = await served.gateway()
    task = asyncio.create_task(gateway.complete(served.door.ask()))
    await until(lambda: len(served.server.requests) > 0)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await served.client_leaves(CLOSED_WITHIN)
    assert [call.outcome for call in served.door.calls] == ["cancelled"]


async def test_a_cancel_before_the_start_sends_nothing(served: Served) -> None:
    stream = await served.play(*endless(served))
    task = asyncio.create_task(observe(stream))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert served.server.requests == []
    assert served.door.calls == []


async def test_closing_the_gateway_closes_its_streams_and_is_no_end_of_an_answer(served: Served) -> None:
    stream = await served.play(*endless(served))
    assert await within(stream.read())
    gateway: ModelGateway = await served.gateway()
    await within(gateway.aclose())
    await served.client_leaves(CLOSED_WITHIN)
    with pytest.raises(MidStreamError, match="gateway was closed"):
        await stream.read()
    assert [call.outcome for call in served.door.calls] == ["closed_early"]


async def test_many_answers_at_a_time_all_close(served: Served) -> None:
    streams = [await served.play(*endless(served)) for _ in range(10)]
    for stream in streams:
        assert await within(stream.read())
    assert served.server.connections == 10
    await within(asyncio.gather(*(stream.aclose() for stream in streams)))
    await until(lambda: served.server.clients_left == 10, seconds=CLOSED_WITHIN)


async def test_connections_are_used_again_even_if_the_body_ends_late(served: Served, door: Door) -> None:
    body = body_of(served.wire.events(Said(text=("Hello.",))))
    for _ in range(3):
        seen = await observe(await served.play(CHUNKED, chunk(body), b"0\r\n", 0.02, b"\r\n", "keep"))
        assert (seen.text, seen.error) == ("Hello.", None)
        await asyncio.sleep(0.05)
    assert served.server.connections == 1
    assert [call.outcome for call in door.calls] == ["completed"] * 3

"""Time-outs"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import pytest

from guidance_agent.errors import ModelTimeoutError, ProviderUnavailableError
from tests.conformance.byte_server import CHUNKED, PLAIN, chunk, head
from tests.conformance.expecting import Expect
from tests.conformance.observing import observe, observe_whole, within
from tests.conformance.serving import Door, Served
from tests.conformance.wires import Event, Said, body_of, text_of

CLOSED_WITHIN = 0.5
PATIENT = {"connect": 5.0, "first_event": 5.0, "between_events": 5.0, "without_content": 5.0, "turn": 5.0}
WORDS = ("one ", "two ", "three")


def limits(**seconds: float) -> dict[str, Any]:
    return {"timeouts": PATIENT | seconds}


def opening(served: Served) -> list[Event]:
    """The events up to the first words."""
    events = served.wire.events(Said(text=WORDS))
    return events[: 1 + next(index for index, event in enumerate(events) if event.text)]


async def test_a_connection_that_is_not_accepted_times_out(door: Door, expect: Expect) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = f"http://127.0.0.1:{full.getsockname()[1]}"
        gateway = await door.open(address, **limits(connect=0.2))
        seen = await observe(gateway.stream(door.ask()))
    expect(seen, text="", error=ModelTimeoutError, phase="connect", retryable=True)


HEADERS_ONLY = {"before the headers": (20,), "after the headers": (PLAIN, 20), "in the headers": (PLAIN[:30], 20)}


@pytest.mark.parametrize("script", HEADERS_ONLY.values(), ids=HEADERS_ONLY)
async def test_silence_before_the_first_event_times_out(
    script: tuple[object, ...], served: Served, expect: Expect
) -> None:
    seen = await observe(await served.play(*script, settings=limits(first_event=0.2)))
    expect(seen, text="", error=ModelTimeoutError, phase="first_event", retryable=True)
    await served.client_leaves(CLOSED_WITHIN)
    assert len(served.server.requests) == 1


async def test_silence_between_events_times_out_and_keeps_the_text(served: Served, expect: Expect) -> None:
    script = (CHUNKED, chunk(body_of(opening(served))), 20)
    seen = await observe(await served.play(*script, settings=limits(between_events=0.2)))
    expect(seen, text="one ", error=ModelTimeoutError, phase="between_events", retryable=True)
    await served.client_leaves(CLOSED_WITHIN)


async def test_an_event_that_does_not_go_on_times_out(served: Served, expect: Expect) -> None:
    half = served.wire.events(Said(text=WORDS))[len(opening(served))].data[:40]
    script = (CHUNKED, chunk(body_of(opening(served)) + half), 20)
    seen = await observe(await served.play(*script, settings=limits(between_events=0.2)))
    expect(seen, text="one ", error=ModelTimeoutError, phase="between_events")
    await served.client_leaves(CLOSED_WITHIN)


EMPTY = {"pings": b"", "comments": b": keep-alive\n\n", "unknown events": b"event: x\ndata: {}\n\n", "blank": b"\n\n"}


@pytest.mark.parametrize("life", EMPTY.values(), ids=EMPTY)
async def test_signs_of_life_alone_keep_no_stream_alive(life: bytes, served: Served, expect: Expect) -> None:
    pings: list[object] = [chunk(life or served.wire.ping), 0.05] * 200
    script = (CHUNKED, chunk(body_of(opening(served))), *pings)
    began = time.monotonic()
    seen = await observe(await served.play(*script, settings=limits(between_events=0.4, without_content=0.6)))
    expect(seen, text="one ", error=ModelTimeoutError, phase="without_content")
    assert time.monotonic() - began >= 0.6
    await served.client_leaves(CLOSED_WITHIN)


async def test_signs_of_life_before_the_first_words_keep_no_stream_alive(served: Served, expect: Expect) -> None:
    first = served.wire.events(Said(text=WORDS))[0].data
    pings: list[object] = [chunk(served.wire.ping), 0.05] * 200
    settings = limits(between_events=0.4, without_content=0.6)
    seen = await observe(await served.play(CHUNKED, chunk(first), *pings, settings=settings))
    expect(seen, text="", error=ModelTimeoutError, phase="without_content")


async def test_pings_keep_a_slow_answer_alive(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=WORDS))
    begin = opening(served)
    pings: list[object] = [chunk(served.wire.ping), 0.1] * 7
    rest = chunk(body_of(events[len(begin) :]))
    script = (CHUNKED, chunk(body_of(begin)), *pings, rest, b"0\r\n\r\n")
    seen = await observe(await served.play(*script, settings=limits(between_events=0.4)))
    expect(seen, text="".join(WORDS), finish="stop", error=None)


async def test_time_that_the_caller_takes_counts_for_no_time_out(served: Served) -> None:
    events = [event.data for event in served.wire.events(Said(text=WORDS))]
    count = len(opening(served))
    script = (CHUNKED, chunk(b"".join(events[:count])), 0.05, chunk(b"".join(events[count:])), b"0\r\n\r\n")
    settings = limits(first_event=4, between_events=0.6, without_content=0.6)
    stream = await served.play(*script, settings=settings)
    text = ""
    while (deltas := await within(stream.read())) is not None:
        text += "".join(delta.text for delta in deltas)
        await asyncio.sleep(0.7)
    assert text == "one two three"


WHOLE = {
    "before the headers": (20,),
    "in the body": (head(200, "application/json", content_length=9_000) + b'{"id": "x", ', 20),
    "after the headers": (head(200, "application/json", content_length=9_000), 20),
}


@pytest.mark.parametrize("script", WHOLE.values(), ids=WHOLE)
async def test_a_whole_answer_that_does_not_come_times_out(
    script: tuple[object, ...], served: Served, expect: Expect
) -> None:
    served.server.serve_only(*script)
    gateway = await served.gateway(**limits(turn=0.3))
    seen = await observe_whole(gateway.complete(served.door.ask()))
    expect(seen, error=ModelTimeoutError, phase="turn", retryable=True)
    await served.client_leaves(CLOSED_WITHIN)


async def test_a_whole_answer_that_trickles_times_out(served: Served, expect: Expect) -> None:
    body = json.dumps(served.wire.whole(Said(text=WORDS))).encode()
    trickle = [step for byte in body for step in (bytes([byte]), 0.05)]
    served.server.serve_only(head(200, "application/json", content_length=len(body)), *trickle)
    gateway = await served.gateway(**limits(turn=0.4))
    seen = await observe_whole(gateway.complete(served.door.ask()))
    expect(seen, error=ModelTimeoutError, phase="turn")
    await served.client_leaves(CLOSED_WITHIN)


async def test_a_refusal_whose_body_does_not_end_is_still_that_refusal(served: Served, expect: Expect) -> None:
    begin = head(503, "application/json", content_length=9_000, retry_after=3) + b'{"error": '
    seen = await observe(await served.play(begin, 20, settings=limits()))
    expect(seen, error=ProviderUnavailableError, status=503, retry_after=3.0)
    await served.client_leaves(CLOSED_WITHIN)


async def test_a_deadline_around_the_stream_closes_the_socket(served: Served) -> None:
    begin = body_of(opening(served))
    stream = await served.play(CHUNKED, chunk(begin), 20)
    assert await within(stream.read())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await observe(stream)
    await served.client_leaves(CLOSED_WITHIN)
    assert stream.text_length == len(text_of(opening(served)))

"""Broken and cut-off answers"""

from __future__ import annotations

import asyncio
import json

import pytest

from guidance_agent.errors import MalformedResponseError, MidStreamError, ModelError, StreamTruncated
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.conformance.byte_server import CHUNKED, LAST_CHUNK, PLAIN, chunk, head
from tests.conformance.expecting import Expect
from tests.conformance.observing import observe, observe_whole, within
from tests.conformance.serving import Door, Served
from tests.conformance.wires import Event, Said, SaidTool, WireFormat, body_of, text_of

LOOK = SaidTool(id="call_1", name="figures", arguments=('{"year"', ": 2026}"))
ANSWERS = {
    "text": Said(text=("one ", "two ", "three £")),
    "thinking": Said(thinking=("private ", "thoughts"), text=("one ", "two")),
    "tools": Said(text=("one ", "two"), tools=(LOOK,)),
    "nothing": Said(),
}
WAYS_TO_BREAK = ("close", "reset", "reset without a length")
SETTLED = 0.02
"""Seconds for what was sent to arrive before the connection breaks: what breaks with it may be lost."""


def ended_cleanly(body: bytes, framing: str) -> tuple[object, ...]:
    if framing == "chunked":
        return (CHUNKED, *([chunk(body)] if body else []), LAST_CHUNK, "keep")
    if framing == "length":
        return (head(200, "text/event-stream", content_length=len(body)), body, "keep")
    return (PLAIN, body)


def broken_off(body: bytes, how: str) -> tuple[object, ...]:
    if how == "reset without a length":
        return (PLAIN, body, SETTLED, "reset")
    sent = [chunk(body)] if body else []
    return (CHUNKED, *sent, SETTLED, *(["reset"] if how == "reset" else []))


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_end_after_any_event_but_the_last_is_a_truncation(
    framing: str, said: Said, served: Served, expect: Expect
) -> None:
    events = served.wire.events(said)
    for count in range(len(events) + 1):
        sent = events[:count]
        seen = await observe(await served.play(*ended_cleanly(body_of(sent), framing)))
        if any(event.complete for event in sent):
            expect(seen, text=text_of(sent), error=None, outcome="completed")
        else:
            expect(seen, text=text_of(sent), error=StreamTruncated, retryable=True, outcome="error:StreamTruncated")


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("how", WAYS_TO_BREAK)
async def test_a_connection_that_breaks_after_any_event_is_an_error_that_keeps_the_text(
    how: str, said: Said, served: Served, expect: Expect
) -> None:
    events = served.wire.events(said)
    for count in range(len(events)):
        sent = events[:count]
        seen = await observe(await served.play(*broken_off(body_of(sent), how)))
        expect(seen, text=text_of(sent), error=MidStreamError, retryable=True, outcome="error:MidStreamError")


@pytest.mark.parametrize("how", WAYS_TO_BREAK)
async def test_a_connection_that_breaks_inside_an_event_is_an_error_that_keeps_the_text(
    how: str, served: Served, expect: Expect
) -> None:
    events = served.wire.events(ANSWERS["text"])
    begin = events[: _after_words(events)]
    for length in (3, 12, len(events[len(begin)].data) - 1):
        body = body_of(begin) + events[len(begin)].data[:length]
        seen = await observe(await served.play(*broken_off(body, how)))
        expect(seen, text=text_of(begin), error=MidStreamError, retryable=True)


@pytest.mark.parametrize("how", WAYS_TO_BREAK)
async def test_a_connection_that_breaks_after_the_last_event_breaks_nothing(
    how: str, served: Served, expect: Expect
) -> None:
    events = served.wire.events(ANSWERS["text"])
    seen = await observe(await served.play(*broken_off(body_of(events), how)))
    expect(seen, text=text_of(events), finish="stop", error=None, outcome="completed")


def _after_words(events: list[Event], words: int = 1) -> int:
    return [index for index, event in enumerate(events) if event.text][words - 1] + 1


async def test_text_that_came_before_a_break_is_not_lost_on_a_slow_caller(served: Served) -> None:
    events = served.wire.events(ANSWERS["text"])
    first, rest = events[: _after_words(events)], events[_after_words(events) : _after_words(events, 3)]
    stream = await served.play(CHUNKED, chunk(body_of(first)), SETTLED, chunk(body_of(rest)))
    deltas = await within(stream.read())
    assert deltas is not None
    # Everything has arrived and the connection is gone before the caller comes back.
    await asyncio.sleep(0.2)
    seen = await observe(stream)
    assert "".join(delta.text for delta in deltas) + seen.text == "one two three £"
    assert seen.error is MidStreamError


KINDS: dict[str, tuple[int | None, bool]] = {
    "overloaded_error": (529, True),
    "api_error": (500, True),
    "server_error": (500, True),
    "rate_limit_error": (429, True),
    "insufficient_quota": (429, False),
    "invalid_request_error": (400, False),
    "authentication_error": (401, False),
    "an_error_of_tomorrow": (None, True),
}


@pytest.mark.parametrize(("kind", "meaning"), KINDS.items(), ids=KINDS)
async def test_an_error_event_names_its_code_and_keeps_the_text(
    kind: str, meaning: tuple[int | None, bool], served: Served, expect: Expect
) -> None:
    events = served.wire.events(ANSWERS["text"])
    begin = events[: _after_words(events, 2)]
    seen = await served.streamed(body_of(begin), served.wire.error_event(kind, "It went wrong."))
    status, retryable = meaning
    expect(seen, text="one two ", error=MidStreamError, code=kind, status=status, retryable=retryable)
    assert "It went wrong." in str(seen.failure)


async def test_an_error_event_after_any_event_keeps_the_text(served: Served, expect: Expect) -> None:
    events = served.wire.events(ANSWERS["tools"])
    error = served.wire.error_event("overloaded_error", "Overloaded")
    for count in range(len(events)):
        seen = await served.streamed(body_of(events[:count]) + error + body_of(events[count:]))
        expect(seen, text=text_of(events[:count]), error=MidStreamError, status=529, outcome="error:MidStreamError")


async def test_an_error_event_closes_the_socket(served: Served) -> None:
    events = served.wire.events(ANSWERS["text"])
    error = served.wire.error_event("overloaded_error", "Overloaded")
    seen = await observe(await served.play(CHUNKED, chunk(body_of(events[:4]) + error), 20))
    assert seen.error is MidStreamError
    await served.client_leaves(0.5)


async def test_an_error_instead_of_a_whole_answer_is_an_error(served: Served, expect: Expect) -> None:
    seen = await served.whole(json.dumps(served.wire.error("overloaded_error", "Overloaded")).encode())
    expect(seen, error=MidStreamError, status=529, retryable=True)
    assert "Overloaded" in str(seen.failure)


@pytest.mark.parametrize(("share", "kind"), [(0.0, MalformedResponseError), (0.5, MalformedResponseError)])
async def test_a_whole_answer_that_ends_cleanly_in_the_middle_is_malformed(
    share: float, kind: type[ModelError], served: Served, expect: Expect
) -> None:
    body = json.dumps(served.wire.whole(ANSWERS["text"])).encode()
    expect(await served.whole(body[: int(len(body) * share)]), text="", error=kind)


@pytest.mark.parametrize("ending", [(), ("reset",)], ids=["close", "reset"])
async def test_a_whole_answer_that_breaks_off_is_an_error(
    ending: tuple[str, ...], served: Served, expect: Expect
) -> None:
    body = json.dumps(served.wire.whole(ANSWERS["text"])).encode()
    served.server.serve_only(head(200, "application/json", content_length=len(body)), body[:-9], SETTLED, *ending)
    seen = await observe_whole((await served.gateway()).complete(served.door.ask()))
    expect(seen, text="", error=MidStreamError, retryable=True)


FAULTS: dict[str, tuple[Fault, type[ModelError]]] = {
    "truncate": (Fault(kind="truncate", after_chunks=2), StreamTruncated),
    "drop": (Fault(kind="drop", after_chunks=2), MidStreamError),
    "close": (Fault(kind="drop", after_chunks=2, abrupt=False), MidStreamError),
    "error event": (Fault(kind="error_event", after_chunks=2), MidStreamError),
    "garbage": (Fault(kind="garbage", after_chunks=2), MalformedResponseError),
    "web page": (Fault(kind="wrong_content_type"), MalformedResponseError),
}


@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS)
async def test_every_fault_of_the_simulator_is_its_own_error(
    fault: Fault,
    kind: type[ModelError],
    gateway: ModelGateway,
    door: Door,
    simulator: ProviderSimulator,
    wire: WireFormat,
    expect: Expect,
) -> None:
    simulator.faults.add(fault)
    expect(await observe(gateway.stream(door.ask())), error=kind, outcome=f"error:{kind.__name__}")
    assert [call.outcome for call in door.calls] == [f"error:{kind.__name__}"]

"""Answers"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
from blockbuster import BlockBuster

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.conformance.byte_server import CHUNKED, LAST_CHUNK, chunk
from tests.conformance.expecting import Expect
from tests.conformance.observing import observe, observe_whole
from tests.conformance.serving import Door, Served
from tests.conformance.wires import USAGE, Said, WireFormat, body_of

TEXTS = {
    "plain": ("Your pot ", "stays ", "invested."),
    "markdown": ("\n\n# Pots\n", "- **one**\n", "- two\n\n", "  \n"),
    "currency": ("£5 ", "naïve – ", "“€3”", " ½"),
    "emoji": ("🏦", "👩🏽‍🦳", " 🇬🇧", "🧓🏽"),
    "combining": ("e\u0301", "a\u030a", "\u0301 alone"),
    "right to left": ("קצבה ", "معاش", "\u200f."),
    "line separators": ("one\u2028two", "\u2029three\x85four", "\x7f"),
    "wire words": ("data: [DONE]", "\n\ndata: {}\n\n", "event: error", "<s> </s>", "message_stop"),
    "json": ('{"stop_reason": "refusal", ', '"error": {"message": "no"}}', "\\u0041 \\n \\\\"),
    "blanks": (" ", "", "  ", "x", "\t", ""),
}


@pytest.mark.parametrize("pieces", TEXTS.values(), ids=TEXTS)
async def test_text_is_what_the_provider_sent(pieces: tuple[str, ...], served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=pieces))
    seen = await served.streamed(*(event.data for event in events))
    expect(seen, text="".join(pieces), reasoning="", finish="stop", usage=USAGE, outcome="completed", error=None)


@pytest.mark.parametrize("pieces", TEXTS.values(), ids=TEXTS)
async def test_an_answer_that_is_not_streamed_is_the_same(
    pieces: tuple[str, ...], served: Served, expect: Expect
) -> None:
    body = json.dumps(served.wire.whole(Said(text=pieces)), ensure_ascii=False).encode()
    seen = await served.whole(body)
    expect(seen, text="".join(pieces), reasoning="", finish="stop", usage=USAGE, outcome="completed", error=None)


async def test_a_character_cut_into_two_escapes_is_whole_again(served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(Said(text=("a bank \ue000", "\ue001 here"))))
    halves = body.replace("\ue000".encode(), b"\\ud83c").replace("\ue001".encode(), b"\\udfe6")
    expect(await served.streamed(halves), text="a bank 🏦 here", error=None)


async def test_what_no_database_can_hold_is_replaced(served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(Said(text=("a\ue000b", "c\ue001d"))))
    odd = body.replace("\ue000".encode(), b"\\u0000").replace("\ue001".encode(), b"\\ud800")
    expect(await served.streamed(odd), text="a\ufffdbc\ufffdd", error=None)


async def test_a_model_may_say_the_same_hundreds_of_times(served: Served, expect: Expect) -> None:
    pieces = ("again and ",) * 250
    expect(await served.streamed(body_of(served.wire.events(Said(text=pieces)))), text="".join(pieces), error=None)


async def test_an_answer_without_words_is_empty(served: Served, expect: Expect) -> None:
    expect(await served.streamed(body_of(served.wire.events(Said()))), text="", finish="stop", error=None)


async def test_streamed_and_whole_answers_of_the_simulator_are_equal(gateway: ModelGateway, door: Door) -> None:
    streamed = await observe(gateway.stream(door.ask()))
    whole = await observe_whole(gateway.complete(door.ask()))
    assert len(streamed.text) > 100
    assert streamed == whole
    assert [call.outcome for call in door.calls] == ["completed", "completed"]


async def test_the_providers_pieces_are_counted(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    simulator.faults.script(pieces=["one ", "two ", "three ", "four"])
    stream = gateway.stream(door.ask())
    await observe(stream)
    assert stream.timing.chunks == 4


async def test_all_that_arrived_together_is_read_together(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=("word ",) * 200))
    stream = await served.play(CHUNKED, chunk(body_of(events)), LAST_CHUNK, "keep")
    reads = 0
    while await stream.read() is not None:
        reads += 1
    assert stream.text_length == 1_000
    expect(SimpleNamespace(together=reads < 10), together=True)


async def test_a_long_answer_does_not_block_the_event_loop(served: Served) -> None:
    body = body_of(served.wire.events(Said(text=("word ",) * 50)))
    whole = json.dumps(served.wire.whole(Said(text=("word ",) * 50))).encode()
    for detector in (None, BlockBuster()):
        # The first round is for what is imported and opened only once.
        if detector is not None:
            detector.activate()
        try:
            assert (await served.streamed(body)).error is None
            assert (await served.whole(whole)).error is None
        finally:
            if detector is not None:
                detector.deactivate()


async def test_request_id_and_response_headers_are_known(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    stream = gateway.stream(door.ask())
    await observe(stream)
    assert stream.simulated
    assert stream.request_id == simulator.requests[-1].request_id
    whole = await gateway.complete(door.ask())
    assert whole.call.simulated
    assert whole.call.request_id == simulator.requests[-1].request_id


async def test_the_request_carries_bound_stops_headers_and_key(
    simulator: ProviderSimulator, door: Door, wire: WireFormat
) -> None:
    own = {wire.name: {"headers": {"x-team": "guides"}}}
    gateway = await door.open(simulator.base_url, providers=own)
    await observe(gateway.stream(door.ask(max_tokens=123, stop=("END",))))
    record = simulator.requests[-1]
    assert record.headers["x-team"] == "guides"
    if wire.name == "anthropic":
        assert (record.body["max_tokens"], record.body["stop_sequences"]) == (123, ["END"])
        assert record.headers["x-api-key"].endswith("3456")
    else:
        assert (record.body["max_completion_tokens"], record.body["stop"]) == (123, ["END"])
        assert record.body["stream_options"] == {"include_usage": True}
        assert record.headers["authorization"].endswith("3456")


async def test_nothing_is_sent_before_the_first_read(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    async with gateway.stream(door.ask()) as stream:
        pass
    assert await stream.read() is None
    assert len(simulator.requests) == 0
    assert door.calls == []


async def test_many_answers_at_a_time_do_not_mix(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    simulator.faults.add(
        *(
            Fault(kind="script", contains=f"number {number}.", script=Script(text=f"answer {number}. " * 20))
            for number in range(10)
        )
    )
    requests = [door.ask(messages=(Message("user", f"number {number}."),)) for number in range(10)]
    seen = await asyncio.gather(*(observe(gateway.stream(request)) for request in requests))
    assert [each.text for each in seen] == [f"answer {number}. " * 20 for number in range(10)]

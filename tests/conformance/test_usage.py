"""Usage and finish reasons"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import FinishReason, Message, Usage
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.conformance.byte_server import CHUNKED, chunk
from tests.conformance.expecting import Expect
from tests.conformance.observing import observe, observe_whole
from tests.conformance.serving import Door, Served
from tests.conformance.subjects import SUBJECTS, Subject, Wire
from tests.conformance.wires import USAGE, WIRES, Said, WireFormat, body_of

HELLO = Said(text=("Hel", "lo."))


def on(wire: Wire) -> pytest.MarkDecorator:
    """Take the subjects of one wire format only."""
    return pytest.mark.parametrize(
        "subject", [found for found in SUBJECTS if found.wire == wire], ids=str, indirect=True
    )


def with_usage(wire: WireFormat, **changed: object) -> Said:
    """An answer whose usage object is as usual but for some fields; None leaves a field out."""
    usage: dict[str, Any] = {**wire.usage, **changed}
    return replace(HELLO, usage={name: value for name, value in usage.items() if value is not None})


EVERY_REASON = [
    pytest.param(subject, word, meaning, id=f"{subject}-{word}")
    for subject in SUBJECTS
    for word, meaning in WIRES[subject.wire].finish_reasons.items()
]
of_every_reason = pytest.mark.parametrize(("subject", "word", "meaning"), EVERY_REASON, indirect=["subject"])


@of_every_reason
async def test_every_finish_reason_of_a_stream_is_told(
    word: str, meaning: FinishReason, served: Served, expect: Expect
) -> None:
    said = replace(HELLO, finish=word)
    expect(await served.streamed(body_of(served.wire.events(said))), text="Hello.", finish=meaning, outcome="completed")


@of_every_reason
async def test_every_finish_reason_of_a_whole_answer_is_told(
    word: str, meaning: FinishReason, served: Served, expect: Expect
) -> None:
    body = json.dumps(served.wire.whole(replace(HELLO, finish=word))).encode()
    expect(await served.whole(body), text="Hello.", finish=meaning, outcome="completed")


async def test_a_refusal_is_shown_and_told(served: Served, expect: Expect) -> None:
    said = Said(
        text=("No. ",),
        refusal=(
            "I cannot ",
            "help with that.",
        ),
    )
    streamed = await served.streamed(body_of(served.wire.events(said)))
    expect(streamed, text="No. I cannot help with that.", finish="refusal", outcome="completed", usage=USAGE)


async def test_a_refusal_that_is_not_streamed_is_the_same(served: Served, expect: Expect) -> None:
    said = Said(text=("No. ",), refusal=("I cannot help with that.",))
    whole = await served.whole(json.dumps(served.wire.whole(said)).encode())
    expect(whole, text="No. I cannot help with that.", finish="refusal", outcome="completed", usage=USAGE)


@pytest.mark.parametrize(("kind", "finish"), [("refusal", "refusal"), ("max_tokens", "length")])
async def test_endings_of_the_simulator_are_no_failures(
    kind: Any, finish: str, gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    simulator.faults.add(Fault(kind=kind, after_chunks=3, times=2))
    streamed = await observe(gateway.stream(door.ask()))
    whole = await observe_whole(gateway.complete(door.ask()))
    assert (streamed.finish, streamed.outcome) == (finish, "completed")
    assert streamed == whole


@on("anthropic")
async def test_writes_are_told_apart_by_their_lifetimes(served: Served, expect: Expect) -> None:
    split = {"ephemeral_5m_input_tokens": 68, "ephemeral_1h_input_tokens": 3_000}
    said = with_usage(served.wire, cache_creation_input_tokens=3_337, cache_creation=split)
    promised = replace(USAGE, cache_write_5m_tokens=337, cache_write_1h_tokens=3_000)
    expect(await served.streamed(body_of(served.wire.events(said))), usage=promised)


async def test_a_cache_write_is_followed_by_a_read_of_the_same_size(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    system = Message("system", "You explain pensions in plain words and never advise. " * 400, part="conduct")
    request = door.ask(messages=(system, Message("user", "What is drawdown?")), cache_key="guides")
    first, second = [await observe(gateway.stream(request)) for _ in range(2)]
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.cache_read_tokens == 0
    assert first.usage.cache_write_tokens > 1_000
    assert second.usage.cache_read_tokens == first.usage.cache_write_tokens
    assert second.usage.cache_write_tokens == 0
    assert not first.usage.estimated
    sent = simulator.requests[-1].usage or {}
    total = sent.get("prompt_tokens", sum(count for name, count in sent.items() if name.endswith("input_tokens")))
    assert first.usage.total_input_tokens == second.usage.total_input_tokens == total
    assert [call.cache_outcome for call in door.calls] == ["first_write", "hit"]


async def test_usage_that_is_not_reported_is_estimated_and_says_so(served: Served, expect: Expect) -> None:
    seen = await served.streamed(body_of(served.wire.events(replace(HELLO, usage={}))))
    expect(seen, text="Hello.", outcome="completed", error=None)
    cost = served.door.calls[0].cost
    assert cost is not None
    assert cost.estimated
    assert seen.usage is not None
    assert seen.usage.estimated
    assert (seen.usage.input_tokens > 0, seen.usage.output_tokens > 0) == (True, True)


async def test_usage_that_a_whole_answer_lacks_is_estimated_and_says_so(served: Served, expect: Expect) -> None:
    seen = await served.whole(json.dumps(served.wire.whole(replace(HELLO, usage={}))).encode())
    expect(seen, text="Hello.", outcome="completed", error=None)
    assert seen.usage is not None
    assert seen.usage.estimated
    assert (seen.usage.input_tokens > 0, seen.usage.output_tokens > 0) == (True, True)


@pytest.mark.parametrize("value", [-4, "many", None, True, 1 << 70, [7]], ids=repr)
async def test_a_count_that_is_none_is_marked_as_estimated(value: object, served: Served, expect: Expect) -> None:
    said = with_usage(served.wire, **{served.wire.usage_fields[1]: value})
    seen = await served.streamed(body_of(served.wire.events(said)))
    expect(seen, text="Hello.", finish="stop", outcome="completed", error=None)
    assert seen.usage is not None
    assert seen.usage.estimated
    assert 0 < seen.usage.output_tokens < 100


async def test_counts_written_as_text_are_counts(served: Served, expect: Expect) -> None:
    first, last = served.wire.usage_fields
    said = with_usage(served.wire, **{first: str(served.wire.usage[first]), last: "77"})
    seen = await served.streamed(body_of(served.wire.events(said)))
    expect(seen, text="Hello.", usage=USAGE, error=None)


async def test_more_cached_tokens_than_tokens_never_make_a_negative_count(served: Served, expect: Expect) -> None:
    details = {"cached_tokens": 9_999, "cache_write_tokens": 9_999}
    said = with_usage(served.wire, prompt_tokens_details=details, output_tokens_details={"thinking_tokens": 9_999})
    seen = await served.streamed(body_of(served.wire.events(said)))
    expect(seen, text="Hello.", error=None)
    counts = seen.usage or Usage(input_tokens=-1)
    figures = (counts.input_tokens, counts.cache_read_tokens, counts.cache_write_tokens, counts.output_tokens)
    assert min(figures) >= 0
    assert counts.total_input_tokens == USAGE.total_input_tokens
    assert 0 <= counts.reasoning_tokens <= counts.output_tokens


async def test_the_cost_of_a_call_follows_from_its_usage(served: Served, door: Door) -> None:
    await served.streamed(body_of(served.wire.events(HELLO)))
    [call] = door.calls
    assert call.cost is not None
    assert not call.cost.estimated
    prices = call.cost.prices
    assert prices.cache_read is not None
    assert prices.cache_write_5m is not None
    cost = 21 * prices.input + 4_012 * prices.cache_read + 300 * prices.cache_write_5m + 77 * prices.output
    assert call.cost.usd == pytest.approx(cost)
    assert cost > 0


async def test_what_was_counted_before_an_early_stop_is_kept_and_the_rest_estimated(
    served: Served, subject: Subject
) -> None:
    events = served.wire.events(Said(text=("word " * 100,) * 2))
    stream = await served.play(CHUNKED, *(chunk(event.data) for event in events[:4]), 20)
    await stream.read()
    await stream.aclose()
    assert stream.usage is not None
    assert stream.usage.estimated
    assert stream.usage.output_tokens >= 100
    if subject.wire == "anthropic":
        assert stream.usage.total_input_tokens == USAGE.total_input_tokens
    else:
        assert stream.usage.input_tokens > 0

"""The events of an Anthropic stream, in every order that has been seen and some that should not be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.errors import MalformedResponseError, MidStreamError, ModelError, StreamTruncated
from guidance_agent.llm.messages import Delta, ToolCall, Usage
from guidance_agent.llm.transports.anthropic_reader import AnthropicReader
from guidance_agent.llm.transports.failures import Origin
from guidance_agent.llm.transports.tool_pieces import assemble_tool_calls

ORIGIN = Origin("anthropic", "anthropic/claude-haiku-5-5", "https://api.example")

Event = dict[str, Any]


def start(message_id: str = "msg_1", **usage: object) -> Event:
    return {
        "type": "message_start",
        "message": {"id": message_id, "usage": {"input_tokens": 10, "output_tokens": 1} | usage},
    }


def delta(kind: str, index: int = 0, **fields: str) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def text(piece: str) -> Event:
    return delta("text_delta", text=piece)


def block(kind: str, index: int = 0, **fields: object) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def end(reason: str = "end_turn", **usage: object) -> Event:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7} | usage}


STOP: Event = {"type": "message_stop"}


def read(*events: Event | str) -> list[Delta]:
    reader = AnthropicReader(ORIGIN)
    reader.read([event if isinstance(event, str) else json.dumps(event) for event in events])
    if not reader.ended:
        reader.end_of_body()
    return reader.batch.take(last=True)


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def usage_of(deltas: list[Delta]) -> Usage | None:
    return next((delta.usage for delta in reversed(deltas) if delta.usage is not None), None)


def test_a_plain_answer() -> None:
    deltas = read(start(), block("text", text=""), {"type": "ping"}, text("Hel"), text("lo"), end(), STOP)
    assert text_of(deltas) == "Hello"
    assert deltas[-1].finish_reason == "stop"
    assert usage_of(deltas) == Usage(input_tokens=10, output_tokens=7)


def test_thinking_is_reasoning_and_its_signature_nothing() -> None:
    deltas = read(
        start(),
        block("thinking", thinking="", signature=""),
        delta("thinking_delta", thinking="private"),
        delta("signature_delta", signature="c2VjcmV0"),
        block("redacted_thinking", 1, data="secret"),
        text("Answer"),
        end(),
        STOP,
    )
    assert text_of(deltas) == "Answer"
    assert "".join(delta.reasoning for delta in deltas) == "private"


def test_tool_calls_are_joined_from_their_pieces() -> None:
    deltas = read(
        start(),
        block("text", text="Let me look."),
        block("tool_use", 1, id="toolu_1", name="figures", input={}),
        delta("input_json_delta", 1, partial_json='{"year": '),
        delta("input_json_delta", 1, partial_json="2026}"),
        {"type": "content_block_stop", "index": 1},
        block("tool_use", 2, id="toolu_2", name="none", input={}),
        block("tool_use", 3, id="toolu_3", name="whole", input={"a": 1}),
        {"type": "content_block_stop", "index": 3},
        end("tool_use"),
        STOP,
    )
    assert assemble_tool_calls(delta.tool_call for delta in deltas if delta.tool_call) == (
        ToolCall("toolu_1", "figures", '{"year": 2026}'),
        ToolCall("toolu_2", "none", "{}"),
        ToolCall("toolu_3", "whole", '{"a": 1}'),
    )
    assert text_of(deltas) == "Let me look."
    assert deltas[-1].finish_reason == "tool_calls"


def test_tools_that_the_provider_runs_are_no_calls_of_ours() -> None:
    deltas = read(
        start(),
        block("server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        delta("input_json_delta", partial_json='{"query": "x"}'),
        block("web_search_tool_result", 1, tool_use_id="srvtoolu_1", content=[]),
        text("Found."),
        delta("citations_delta", citation="x"),
        end(),
        STOP,
    )
    assert [delta.tool_call for delta in deltas if delta.tool_call] == []
    assert text_of(deltas) == "Found."


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "refusal"),
        ("pause_turn", "pause"),
        ("something_new", "other"),
    ],
)
def test_stop_reasons(reason: str, expected: str) -> None:
    assert read(start(), end(reason), STOP)[-1].finish_reason == expected


def test_totals_are_cumulative_and_what_the_split_lacks_is_a_five_minute_write() -> None:
    first = start(
        cache_creation_input_tokens=3068,
        cache_read_input_tokens=100,
        cache_creation={"ephemeral_5m_input_tokens": 68, "ephemeral_1h_input_tokens": 3000},
    )
    last = end(
        input_tokens=20,
        cache_creation_input_tokens=3337,
        cache_read_input_tokens=150,
        output_tokens=9,
        cache_creation=None,
    )
    assert usage_of(read(first, last, STOP)) == Usage(
        input_tokens=20,
        cache_read_tokens=150,
        cache_write_5m_tokens=337,
        cache_write_1h_tokens=3000,
        output_tokens=9,
    )


def test_an_answer_of_several_iterations_is_billed_for_all_of_them() -> None:
    last = end(
        input_tokens=5,
        output_tokens=6,
        iterations=[
            {"type": "message", "input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 7},
            {"type": "message", "input_tokens": 5, "output_tokens": 6},
        ],
    )
    found = usage_of(read(start(), last, STOP))
    assert found == Usage(input_tokens=105, output_tokens=26, cache_read_tokens=7)


def test_odd_counts_are_tolerated() -> None:
    found = usage_of(read(start(input_tokens="12", cache_read_input_tokens=-4), end(output_tokens="9"), STOP))
    assert found == Usage(input_tokens=12, output_tokens=9)


def test_usage_is_an_estimate_until_the_provider_has_counted_the_output() -> None:
    reader = AnthropicReader(ORIGIN)
    reader.read([json.dumps(start()), json.dumps(text("Hi"))])
    found = usage_of(reader.batch.take())
    assert found is not None
    assert found.estimated


def test_missing_usage_is_none() -> None:
    bare: Event = {"type": "message_start", "message": {"id": "m"}}
    closing: Event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    assert usage_of(read(bare, text("Hi"), closing, STOP)) is None


def test_only_message_stop_ends_a_message() -> None:
    with pytest.raises(StreamTruncated):
        read(start(), text("Hello"), end())


def test_nothing_after_message_stop_counts() -> None:
    assert text_of(read(start(), text("Hello"), end(), STOP, text(" again"), "garbage")) == "Hello"


def test_a_repeated_beginning_is_passed_over() -> None:
    assert text_of(read(start(), start(), text("Hello"), end(), STOP)) == "Hello"


def test_a_second_message_after_text_is_refused() -> None:
    with pytest.raises(MalformedResponseError, match="second message"):
        read(start("msg_1"), text("Hello"), start("msg_2"), text("Hello"), end(), STOP)


def test_a_second_message_before_any_text_takes_the_place_of_the_first() -> None:
    deltas = read(
        start("msg_1", cache_read_input_tokens=5),
        block("tool_use", 1, id="toolu_1", name="figures"),
        delta("input_json_delta", 1, partial_json='{"ye'),
        start("msg_2"),
        block("tool_use", 1, id="toolu_2", name="figures"),
        delta("input_json_delta", 1, partial_json='{"year": 1}'),
        end("tool_use"),
        STOP,
    )
    calls = assemble_tool_calls(delta.tool_call for delta in deltas if delta.tool_call)
    assert calls == (ToolCall("toolu_2", "figures", '{"year": 1}'),)
    assert usage_of(deltas) == Usage(input_tokens=10, output_tokens=7)


def test_an_error_event_is_raised_after_the_text_before_it() -> None:
    reader = AnthropicReader(ORIGIN)
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(MidStreamError) as caught:
        reader.read([json.dumps(event) for event in (start(), text("Hello"), error)])
    assert (caught.value.status, caught.value.retryable) == (529, True)
    assert text_of(reader.batch.take()) == "Hello"


def test_unknown_events_and_blocks_are_passed_over() -> None:
    unknown: Event = {"type": "future_event", "x": 1}
    assert text_of(read(unknown, start(), block("future", x=1), delta("future_delta"), text("Hi"), end(), STOP)) == "Hi"


@pytest.mark.parametrize(
    "event",
    [
        "<html>",
        "[]",
        '{"type": "content_block_delta"}',
        '{"type": "content_block_delta", "delta": []}',
        '{"type": "content_block_delta", "delta": {"type": "text_delta", "text": 5}}',
        '{"type": "content_block_delta", "index": [], "delta": {"type": "input_json_delta", "partial_json": ""}}',
        '{"type": "message_start", "message": 7}',
        '{"type": "content_block_start", "content_block": {"type": "tool_use", "id": 3}}',
    ],
)
def test_an_event_that_breaks_the_format_is_a_typed_error(event: str) -> None:
    with pytest.raises(MalformedResponseError):
        read(start(), event, STOP)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=1)
KEYS = ["type", "delta", "text", "index", "message", "usage", "content_block", "error", "stop_reason", "id", "name"]
KINDS = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "message_delta", "error", "text_delta", "tool_use"]
)
WILD = st.recursive(
    SCALARS | KINDS, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner | KINDS, max_size=5), max_leaves=12
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), WILD | KINDS, max_size=5), max_size=4))
def test_whatever_arrives_gives_deltas_or_a_model_error(events: list[Event]) -> None:
    try:
        for found in read(*events, STOP):
            assert isinstance(found.text, str)
    except ModelError:
        pass

"""The chunks of an OpenAI-style stream, as OpenAI and its imitators send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.errors import MalformedResponseError, MidStreamError, ModelError, StreamTruncated
from guidance_agent.llm.messages import Delta, ToolCall, Usage
from guidance_agent.llm.transports.failures import Origin
from guidance_agent.llm.transports.openai_reader import OpenAIReader, openai_usage
from guidance_agent.llm.transports.tool_pieces import assemble_tool_calls

ORIGIN = Origin("openai", "openai/gpt-6-luna", "https://api.example/v1")
DONE = "[DONE]"

Chunk = dict[str, Any]


def chunk(index: int = 0, finish: str | None = None, **delta: object) -> Chunk:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}], "usage": None}


def tool(index: int | None, arguments: str = "", **fields: object) -> Chunk:
    call = {"function": {"arguments": arguments} | ({"name": fields.pop("name")} if "name" in fields else {})} | fields
    return {"tool_calls": [call if index is None else {"index": index} | call]}


def read(*chunks: Chunk | str, done: bool = True) -> list[Delta]:
    reader = OpenAIReader(ORIGIN)
    reader.read([item if isinstance(item, str) else json.dumps(item) for item in chunks])
    if done and not reader.ended:
        reader.end_of_body()
    return reader.batch.take(last=True)


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def calls_of(deltas: list[Delta]) -> tuple[ToolCall, ...]:
    return assemble_tool_calls(delta.tool_call for delta in deltas if delta.tool_call)


def test_a_plain_answer() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}
    deltas = read(
        chunk(role="assistant", content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk(finish="stop"),
        usage,
        DONE,
    )
    assert text_of(deltas) == "Hello"
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(input_tokens=12, output_tokens=3)]
    assert deltas[-1].finish_reason == "stop"


def test_prompt_tokens_include_what_was_cached() -> None:
    assert openai_usage(
        {
            "prompt_tokens": 5000,
            "completion_tokens": 40,
            "prompt_tokens_details": {"cached_tokens": 4012, "cache_write_tokens": 500},
            "completion_tokens_details": {"reasoning_tokens": 30},
        }
    ) == Usage(
        input_tokens=488, cache_read_tokens=4012, cache_write_5m_tokens=500, output_tokens=40, reasoning_tokens=30
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, None),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": -1, "completion_tokens": "x"}, None),
        ({"prompt_tokens": "12", "completion_tokens": 3.0}, Usage(input_tokens=12, output_tokens=3)),
        ({"prompt_tokens": 12}, Usage(input_tokens=12, estimated=True)),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}},
            Usage(cache_read_tokens=10, output_tokens=1),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 4},
            Usage(input_tokens=6, cache_read_tokens=4, output_tokens=1),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": []},
            Usage(input_tokens=10, output_tokens=1),
        ),
    ],
)
def test_odd_usage_is_tolerated_and_never_negative(usage: dict[str, object], expected: Usage | None) -> None:
    assert openai_usage(usage) == expected


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_beside_the_text_stays_beside_it(field: str) -> None:
    beside: Chunk = {"choices": [{"delta": {field: "private", "content": None}}]}
    deltas = read(beside, chunk(content="Answer"), chunk(finish="stop"), DONE)
    assert text_of(deltas) == "Answer"
    assert "".join(delta.reasoning for delta in deltas) == "private"


def test_reasoning_and_text_of_one_chunk_are_both_kept() -> None:
    deltas = read(chunk(reasoning="private", content="Answer"), chunk(finish="stop"), DONE)
    assert text_of(deltas) == "Answer"
    assert "".join(delta.reasoning for delta in deltas) == "private"


def test_a_refusal_is_text_that_finishes_as_one() -> None:
    deltas = read(chunk(refusal="I cannot help with that."), chunk(finish="stop"), DONE)
    assert text_of(deltas) == "I cannot help with that."
    assert deltas[-1].finish_reason == "refusal"


def test_only_the_first_choice_is_the_answer() -> None:
    deltas = read(chunk(content="A"), chunk(1, content="B"), chunk(finish="length"), chunk(1, finish="stop"), DONE)
    assert text_of(deltas) == "A"
    assert deltas[-1].finish_reason == "length"


def test_tool_calls_are_joined_wherever_they_sit() -> None:
    deltas = read(
        chunk(content="Looking."),
        chunk(1, **tool(0, id="call_1", name="figures")),
        chunk(1, **tool(0, '{"year": ')),
        chunk(1, **tool(0, "2026}")),
        chunk(1, **tool(1, "{}", id="call_2", name="other")),
        chunk(finish="stop"),
        chunk(1, finish="tool_calls"),
        DONE,
    )
    assert calls_of(deltas) == (ToolCall("call_1", "figures", '{"year": 2026}'), ToolCall("call_2", "other", "{}"))
    assert deltas[-1].finish_reason == "tool_calls"


def test_tool_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    deltas = read(
        chunk(**tool(None, '{"a":', id="call_1", name="one")),
        chunk(**tool(None, "1}")),
        chunk(**tool(None, "{}", id="call_2", name="two")),
        chunk(finish="tool_calls"),
        DONE,
    )
    assert calls_of(deltas) == (ToolCall("call_1", "one", '{"a":1}'), ToolCall("call_2", "two", "{}"))


def test_chunks_without_choices_and_unknown_fields_are_passed_over() -> None:
    filters = {"choices": [], "prompt_filter_results": [{}], "obfuscation": "abc"}
    assert text_of(read(filters, chunk(content="Hi"), chunk(finish="stop"), DONE)) == "Hi"


def test_content_as_a_list_of_parts_is_read() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, {"type": "reference"}]
    assert text_of(read(chunk(content=parts), chunk(finish="stop"), DONE)) == "Hello"


def test_a_finish_reason_and_a_clean_end_complete_an_answer() -> None:
    assert read(chunk(content="Hi"), chunk(finish="stop"))[-1].finish_reason == "stop"


@pytest.mark.parametrize("ending", [(), (DONE,)])
def test_without_a_finish_reason_an_answer_is_truncated(ending: tuple[str, ...]) -> None:
    with pytest.raises(StreamTruncated):
        read(chunk(content="Hi"), *ending)


def test_an_error_object_is_raised_even_after_the_finish_reason() -> None:
    error = chunk(content="") | {"error": {"code": 400, "message": "Token limit reached"}}
    with pytest.raises(MidStreamError) as caught:
        read(chunk(content="Hi"), chunk(finish="length"), error, DONE)
    assert (caught.value.status, caught.value.retryable) == (400, False)


@pytest.mark.parametrize(
    "payload",
    [
        "<html>",
        "[1]",
        '{"choices": 5}',
        '{"choices": [5]}',
        '{"choices": [{"delta": {"content": 5}}]}',
        '{"choices": [{"delta": 5}]}',
    ],
)
def test_a_chunk_that_breaks_the_format_is_a_typed_error(payload: str) -> None:
    with pytest.raises(MalformedResponseError):
        read(payload, chunk(finish="stop"), DONE)


KEYS = [
    "choices",
    "delta",
    "content",
    "index",
    "tool_calls",
    "function",
    "usage",
    "error",
    "finish_reason",
    "id",
    "x_groq",
]
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), WILD, max_size=5), max_size=4))
def test_whatever_arrives_gives_deltas_or_a_model_error(chunks: list[Chunk]) -> None:
    try:
        for found in read(*chunks, DONE):
            assert isinstance(found.text, str)
    except ModelError:
        pass

"""Request bodies are pure functions of the call, and a prefix looks the same wherever a breakpoint stands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.llm.messages import Message, ModelRequest, ToolCall, ToolSpec
from guidance_agent.llm.providers.base import Breakpoint, CachePlan, Endpoint, ModelTraits, Wire
from guidance_agent.llm.transports.anthropic_body import build_anthropic_body
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.openai_body import build_openai_body
from guidance_agent.settings import TimeoutSettings

MESSAGES = (
    Message("system", "Conduct.", part="conduct"),
    Message("system", "Requirements.", part="requirements"),
    Message("user", "First question?"),
    Message("assistant", "First answer.", part="conversation"),
    Message("user", "Second question?"),
)
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}, "additionalProperties": False}


def prepared(
    wire: Wire, *, traits: ModelTraits | None = None, plan: CachePlan | None = None, **fields: Any
) -> PreparedCall:
    fields = {"model": f"{wire}/some-model", "messages": MESSAGES} | fields
    return PreparedCall(
        request=ModelRequest(**fields),
        endpoint=Endpoint(provider=wire, base_url="https://api.example", wire=wire, api_key="sk-secret"),
        traits=traits or ModelTraits(native_schema=True),
        plan=plan or CachePlan(caching="none"),
        timeouts=TimeoutSettings(),
    )


def test_anthropic_system_parts_stand_apart_from_the_conversation() -> None:
    assert build_anthropic_body(prepared("anthropic", max_tokens=300), stream=True) == {
        "model": "some-model",
        "max_tokens": 300,
        "system": [{"type": "text", "text": "Conduct."}, {"type": "text", "text": "Requirements."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "First question?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "First answer."}]},
            {"role": "user", "content": [{"type": "text", "text": "Second question?"}]},
        ],
        "stream": True,
    }


def test_anthropic_breakpoints_stand_where_the_plan_puts_them() -> None:
    plan = CachePlan(caching="explicit", breakpoints=(Breakpoint(1, "1h"), Breakpoint(3, "5m")))
    body = build_anthropic_body(prepared("anthropic", plan=plan), stream=False)
    assert body["system"][1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert body["messages"][1]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert json.dumps(body).count("cache_control") == 2
    assert "stream" not in body


def test_anthropic_tools_calls_and_results_go_out_as_blocks() -> None:
    messages = (
        Message("user", "How much?"),
        Message("assistant", "", tool_calls=(ToolCall("t1", "figures", '{"year": 2026}'), ToolCall("t2", "odd", "[1"))),
        Message("tool", "£12,570", tool_call_id="t1"),
        Message("tool", "error", tool_call_id="t2"),
        Message("user", "Go on."),
    )
    tools = (ToolSpec("figures", "Looks up figures.", {"type": "object"}),)
    body = build_anthropic_body(prepared("anthropic", messages=messages, tools=tools), stream=True)
    assert body["tools"] == [
        {"name": "figures", "description": "Looks up figures.", "input_schema": {"type": "object"}}
    ]
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "t1", "name": "figures", "input": {"year": 2026}},
        {"type": "tool_use", "id": "t2", "name": "odd", "input": {"arguments": "[1"}},
    ]
    # Roles must alternate, so results and the words that follow are one message.
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]


def test_openai_gets_plain_strings_where_it_needs_no_breakpoints() -> None:
    body = build_openai_body(prepared("openai", stop=("END",), temperature=0.2), stream=True)
    assert body == {
        "model": "some-model",
        "messages": [{"role": message.role, "content": message.content} for message in MESSAGES],
        "max_tokens": 1024,
        "temperature": 0.2,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_openai_explicit_caching_marks_blocks_and_switches_implicit_writes_off() -> None:
    plan = CachePlan(caching="explicit", breakpoints=(Breakpoint(1, "30m"),), cache_key="line-7")
    body = build_openai_body(prepared("openai", plan=plan), stream=True)
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "Requirements.", "prompt_cache_breakpoint": {"mode": "explicit"}}
    ]
    assert body["messages"][0]["content"] == [{"type": "text", "text": "Conduct."}]
    assert body["prompt_cache_options"] == {"mode": "explicit", "ttl": "30m"}
    assert body["prompt_cache_key"] == "line-7"
    assert "cache_control" not in json.dumps(body)


def test_openai_tool_calls_and_results_keep_their_ids() -> None:
    messages = (
        Message("user", "How much?"),
        Message("assistant", "", tool_calls=(ToolCall("t1", "figures", "{}"),)),
        Message("tool", "£12,570", tool_call_id="t1"),
    )
    body = build_openai_body(prepared("openai", messages=messages), stream=True)
    assert body["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "figures", "arguments": "{}"}}],
    }
    assert body["messages"][2] == {"role": "tool", "content": "£12,570", "tool_call_id": "t1"}


@pytest.mark.parametrize("wire", ["anthropic", "openai"])
def test_a_parameter_that_the_model_refuses_is_left_out(wire: Wire) -> None:
    build = build_anthropic_body if wire == "anthropic" else build_openai_body
    traits = ModelTraits(accepts_temperature=False, native_schema=False, max_tokens_field="max_completion_tokens")
    call = prepared(wire, traits=traits, temperature=0.3, response_schema=SCHEMA)
    body = build(call, stream=False)
    assert not {"temperature", "response_format", "output_config"} & set(body)
    assert ("max_completion_tokens" in body) is (wire == "openai")


def test_an_answer_schema_is_sent_in_each_wires_way() -> None:
    anthropic = build_anthropic_body(prepared("anthropic", response_schema=SCHEMA), stream=False)
    assert anthropic["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    openai = build_openai_body(prepared("openai", response_schema=SCHEMA), stream=False)
    assert openai["response_format"]["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
    loose = build_openai_body(prepared("openai", response_schema={"type": "object"}), stream=False)
    assert loose["response_format"]["json_schema"]["strict"] is False


def test_neither_key_nor_metadata_is_in_a_body() -> None:
    call = prepared("anthropic", metadata={"turn_id": "turn_17"})
    for body in (build_anthropic_body(call, stream=True), build_openai_body(call, stream=True)):
        assert "sk-secret" not in json.dumps(body)
        assert "turn_17" not in json.dumps(body)


@given(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)))
def test_moving_breakpoints_move_nothing_else(one: set[int], other: set[int]) -> None:
    def without_marks(wire: Wire, points: set[int]) -> str:
        plan = CachePlan(caching="explicit", breakpoints=tuple(Breakpoint(index, "5m") for index in sorted(points)))
        build = build_anthropic_body if wire == "anthropic" else build_openai_body
        body = build(replace(prepared(wire), plan=plan), stream=True)

        def bare(value: Any) -> Any:
            if isinstance(value, dict):
                marks = ("cache_control", "prompt_cache_breakpoint")
                return {key: bare(inner) for key, inner in value.items() if key not in marks}
            return [bare(inner) for inner in value] if isinstance(value, list) else value

        return json.dumps(bare(body))

    assert without_marks("anthropic", one) == without_marks("anthropic", other)
    assert without_marks("openai", one) == without_marks("openai", other)

"""The key of the response cache: whatever can change an answer changes the key, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest, ToolCall, ToolSpec
from guidance_agent.llm.providers.base import Endpoint, ModelTraits
from guidance_agent.llm.response_key import NOT_IN_KEY, response_key
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.settings import Settings

MODEL = "anthropic/claude-haiku-5-5"
TOOL = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "integer"}}})
REQUEST = ModelRequest(
    model=MODEL,
    messages=(Message("system", "You explain pensions.", "conduct"), Message("user", "What is drawdown?")),
    tools=(TOOL,),
)

OTHER_VALUES: Mapping[str, Any] = {
    "model": "anthropic/claude-sonnet-5-5",
    "messages": (Message("user", "What is drawdown?"),),
    "max_tokens": 1025,
    "temperature": 0.0,
    "stop": ("END",),
    "operation": "classification",
    "tools": (),
    "response_schema": {"type": "object"},
    "use_cache": False,
    "fallbacks": ("openai/gpt-6-luna",),
    "cache_key": "customer-1",
    "metadata": {"turn_id": "turn_1"},
}
"""Another value for each field of a request; a field that is added needs one."""


def prepared(request: ModelRequest = REQUEST, **chosen: Any) -> PreparedCall:
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1234", "OPENAI_API_KEY": "sk-1234"}
    return ModelGateway(Settings.load(**chosen), environ=environ).prepare(request)


def key(call: PreparedCall | ModelRequest = REQUEST, **others: Any) -> str:
    call = prepared(call) if isinstance(call, ModelRequest) else call
    return response_key(call, **{"transport": "anthropic", "release": "1.0", "simulated": False, **others})


def test_every_field_of_a_request_is_looked_at() -> None:
    assert OTHER_VALUES.keys() == {field.name for field in fields(ModelRequest)}


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_another_value_of_a_field_is_another_key_unless_it_is_never_sent(name: str) -> None:
    call = prepared()
    changed = replace(REQUEST, **{name: OTHER_VALUES[name]})
    assert getattr(changed, name) != getattr(REQUEST, name)
    same = key(replace(call, request=changed)) == key(call)
    assert same is (name in NOT_IN_KEY)


def test_only_the_ids_of_the_record_are_left_out() -> None:
    assert {"metadata"} == NOT_IN_KEY


@pytest.mark.parametrize(
    "message",
    [
        Message("assistant", "What is drawdown?"),
        Message("user", "What is drawdown? "),
        Message("user", "What is drawdown?", "conversation"),
        Message("user", "What is drawdown?", None, (ToolCall("1", "figures", "{}"),)),
        Message("user", "What is drawdown?", None, (), "1"),
    ],
)
def test_another_value_in_a_message_is_another_key(message: Message) -> None:
    original = REQUEST.messages[1]
    assert [name.name for name in fields(Message) if getattr(message, name.name) != getattr(original, name.name)]
    assert key(replace(REQUEST, messages=(REQUEST.messages[0], message))) != key()


@pytest.mark.parametrize("name", [field.name for field in fields(ToolSpec)])
def test_another_value_in_a_tool_is_another_key(name: str) -> None:
    others: dict[str, Any] = {"name": "dates", "description": "Looks up dates.", "parameters": {"type": "object"}}
    assert key(replace(REQUEST, tools=(replace(TOOL, **{name: others[name]}),))) != key()


def test_the_order_of_a_schemas_properties_is_part_of_the_key() -> None:
    """A model writes the properties in the order of the schema, and what it writes first shapes the rest."""
    reasons_first = {"properties": {"reason": {"type": "string"}, "score": {"type": "integer"}}}
    score_first = {"properties": {"score": {"type": "integer"}, "reason": {"type": "string"}}}
    assert reasons_first == score_first
    one, other = (replace(REQUEST, response_schema=schema) for schema in (reasons_first, score_first))
    assert key(one) != key(other)


ENDPOINTS: Mapping[str, Any] = {
    "provider": "gateway",
    "base_url": "https://gateway.example",
    "wire": "openai",
    "api_key": "sk-ant-5678",
    "headers": {"x-team": "pensions"},
}


@pytest.mark.parametrize("name", [field.name for field in fields(Endpoint)])
def test_another_place_or_account_is_another_key(name: str) -> None:
    call = prepared()
    assert key(replace(call, endpoint=replace(call.endpoint, **{name: ENDPOINTS[name]}))) != key(call)


def test_the_order_of_headers_is_none_of_the_keys_business() -> None:
    call = prepared()
    one, other = (
        replace(call, endpoint=replace(call.endpoint, headers=headers))
        for headers in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert key(one) == key(other)


@pytest.mark.parametrize("name", [field.name for field in fields(ModelTraits)])
def test_what_the_profile_believes_of_the_model_is_part_of_the_key(name: str) -> None:
    call = prepared()
    value = getattr(call.traits, name)
    other: Any = (not value) if isinstance(value, bool) else "another" if isinstance(value, str) else 12_345
    assert key(replace(call, traits=replace(call.traits, **{name: other}))) != key(call)


@pytest.mark.parametrize(
    "others", [{"transport": "litellm"}, {"release": "1.1"}, {"simulated": True}], ids=lambda others: next(iter(others))
)
def test_transport_release_and_simulation_are_part_of_the_key(others: dict[str, Any]) -> None:
    assert key(**others) != key()


def test_the_cache_plan_is_part_of_the_key() -> None:
    long = replace(REQUEST, messages=(Message("system", "Pensions. " * 4_000, "conduct"), REQUEST.messages[1]))
    planned = prepared(long)
    assert planned.plan.breakpoints
    assert key(planned) != key(prepared(long, enable_prompt_caching=False))
    assert key(planned) != key(replace(planned, plan=replace(planned.plan, breakpoints=())))


def test_a_bare_name_and_its_full_one_are_one_model() -> None:
    assert key(replace(REQUEST, model="claude-haiku-5-5")) == key()


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_what_json_cannot_say_has_no_key(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        key(replace(REQUEST, response_schema={"value": value}))


texts = st.text(max_size=6)
requests = st.builds(
    ModelRequest,
    model=st.just(MODEL),
    messages=st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), texts), max_size=3).map(tuple),
    stop=st.lists(texts, max_size=2).map(tuple),
    max_tokens=st.integers(1, 3),
    temperature=st.sampled_from([None, 0.0, 1.0]),
    response_schema=st.none() | st.dictionaries(texts, texts, max_size=2),
)


@settings(deadline=None)
@given(one=requests, other=requests)
def test_two_requests_share_a_key_only_when_they_are_equal(one: ModelRequest, other: ModelRequest) -> None:
    call = prepared()
    keys = [key(replace(call, request=request)) for request in (one, other)]
    assert (keys[0] == keys[1]) is (repr(one) == repr(other))


@pytest.mark.parametrize(
    "split", [("a", "b c"), ("a b", "c"), ("a b c",), ("a b c", "")], ids=lambda split: "|".join(split)
)
def test_where_one_text_ends_and_the_next_begins_is_part_of_the_key(split: tuple[str, ...]) -> None:
    keys = {
        key(replace(REQUEST, messages=tuple(Message("user", text) for text in texts)))
        for texts in (split, ("a", "b", "c"))
    }
    assert len(keys) == 2


def test_another_process_with_another_hash_seed_makes_the_same_key() -> None:
    program = "from tests.unit.llm.test_response_cache_key import key; print(key())"
    made = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert made == {key()}

"""What LiteLLM is asked for: model name, address, client, marks and parameters."""

from __future__ import annotations

from typing import Any

import pytest

from guidance_agent.errors import UnknownModelError
from guidance_agent.llm.messages import Message, ModelRequest, ToolSpec
from guidance_agent.llm.providers.base import Breakpoint, CachePlan, Endpoint, ModelTraits, Wire
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.litellm_request import chat_arguments, common_arguments, route_of
from guidance_agent.settings import TimeoutSettings

KNOWN = {"anthropic", "openai", "gemini", "bedrock", "ollama", "azure", "groq"}
EXPLICIT = CachePlan(caching="explicit", breakpoints=(Breakpoint(0, "1h"), Breakpoint(2, "5m")), cache_key="key")
MESSAGES = (
    Message("system", "Conduct."),
    Message("user", "First?"),
    Message("assistant", "Answer."),
    Message("user", "Second?"),
)


def prepared(
    model: str,
    base_url: str | None = None,
    wire: Wire | None = None,
    plan: CachePlan = EXPLICIT,
    traits: ModelTraits | None = None,
    **request: Any,
) -> PreparedCall:
    return PreparedCall(
        request=ModelRequest(model=model, messages=MESSAGES, **request),
        endpoint=Endpoint(provider=model.split("/")[0], base_url=base_url, wire=wire, api_key="k", headers={"x": "y"}),
        traits=traits or ModelTraits(native_schema=True),
        plan=plan,
        timeouts=TimeoutSettings(),
    )


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            prepared("anthropic/claude-sonnet-5-5", "https://a.test", "anthropic"),
            ("anthropic", "anthropic/claude-sonnet-5-5", "https://a.test", "http"),
        ),
        (prepared("openai/gpt-6-luna", "https://o.test/v1", "openai"), ("openai", "openai/gpt-6-luna", None, "sdk")),
        (prepared("gemini/gemini-3.6-flash"), ("gemini", "gemini/gemini-3.6-flash", None, "http")),
        (
            prepared("bedrock/anthropic.claude-v9:0/eu"),
            ("bedrock", "bedrock/anthropic.claude-v9:0/eu", None, None),
        ),
        (prepared("ollama/llama9", "http://h:1/v1", "openai"), ("ollama", "ollama/llama9", "http://h:1", "http")),
        (prepared("azure/mine", "https://z.test"), ("azure", "azure/mine", "https://z.test", None)),
        (
            prepared("our-gateway/org/model", "https://g.test/v1", "openai"),
            ("openai", "openai/org/model", "https://g.test/v1", "sdk"),
        ),
        (
            prepared("our-gateway/model", "https://g.test", "anthropic"),
            ("anthropic", "anthropic/model", "https://g.test", "http"),
        ),
    ],
    ids=lambda value: value.request.model if isinstance(value, PreparedCall) else "",
)
def test_a_model_name_leads_to_a_provider_an_address_and_a_client(
    call: PreparedCall, expected: tuple[str, str, str | None, str | None]
) -> None:
    provider, model, base, client = expected
    route = route_of(call, KNOWN)
    assert (route.provider, route.model, route.client) == (provider, model, client)
    assert route.api_base == (base or call.endpoint.base_url)


def test_a_provider_without_wire_that_litellm_does_not_know_is_refused() -> None:
    with pytest.raises(UnknownModelError, match="'nobody'"):
        route_of(prepared("nobody/model"), KNOWN)


def test_anthropic_marks_carry_their_lifetime_on_the_last_block() -> None:
    call = prepared("anthropic/claude-sonnet-5-5", None, "anthropic")
    arguments = chat_arguments(call, route_of(call, KNOWN), stream=True)
    marks = [message["content"][-1].get("cache_control") for message in arguments["messages"]]
    assert marks == [{"type": "ephemeral", "ttl": "1h"}, None, {"type": "ephemeral"}, None]
    assert not {"prompt_cache_options", "prompt_cache_key"} & arguments.keys()


def test_openai_marks_options_and_key_are_its_own() -> None:
    call = prepared("openai/gpt-6-luna", "https://o.test/v1", "openai")
    arguments = chat_arguments(call, route_of(call, KNOWN), stream=True)
    assert "cache_control" not in str(arguments)
    assert arguments["messages"][0]["content"][-1]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert arguments["prompt_cache_options"]["mode"] == "explicit"
    assert arguments["prompt_cache_key"] == "key"


@pytest.mark.parametrize("model", ["gemini/gemini-3.6-flash", "groq/llama", "bedrock/anthropic.claude-v9:0"])
def test_other_providers_get_no_marks_and_no_key(model: str) -> None:
    call = prepared(model)
    arguments = chat_arguments(call, route_of(call, KNOWN), stream=True)
    assert [message["content"] for message in arguments["messages"]] == [message.content for message in MESSAGES]
    assert not {"prompt_cache_options", "prompt_cache_key"} & arguments.keys()


@pytest.mark.parametrize("stream", [True, False])
def test_every_call_has_a_bound_no_retries_no_callbacks_and_a_time_out(stream: bool) -> None:
    call = prepared("openai/gpt-6-luna", "https://o.test/v1", "openai", max_tokens=77)
    route = route_of(call, KNOWN)
    arguments = chat_arguments(call, route, stream=stream) | common_arguments(call, route, seconds=9.0)
    assert arguments["max_tokens"] == 77
    assert arguments["max_retries"] == 0
    assert arguments["no-log"] is True
    assert arguments["timeout"] == 9.0
    assert arguments["extra_headers"] == {"x": "y"}
    assert arguments.get("stream_options") == ({"include_usage": True} if stream else None)


def test_what_the_traits_allow_is_sent_to_openai_whatever_litellm_thinks_of_the_model() -> None:
    traits = ModelTraits(native_schema=True, max_tokens_field="max_completion_tokens")
    tool = ToolSpec("look", "Look.", {"type": "object"})
    call = prepared(
        "openai/gpt-6-luna", "https://o.test/v1", "openai", traits=traits, temperature=0.2, stop=("END",), tools=(tool,)
    )
    arguments = chat_arguments(call, route_of(call, KNOWN), stream=False)
    assert set(arguments["allowed_openai_params"]) == {"max_completion_tokens", "temperature", "stop", "tools"}


def test_a_temperature_that_the_model_refuses_is_left_out() -> None:
    call = prepared("openai/gpt-6-luna", "https://o.test/v1", "openai", temperature=0.2)
    refusing = prepared(
        "openai/gpt-6-luna",
        "https://o.test/v1",
        "openai",
        traits=ModelTraits(accepts_temperature=False),
        temperature=0.2,
    )
    route = route_of(call, KNOWN)
    assert chat_arguments(call, route, stream=False)["temperature"] == 0.2
    assert "temperature" not in chat_arguments(refusing, route, stream=False)

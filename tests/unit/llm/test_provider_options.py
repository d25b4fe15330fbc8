"""What a provider's options add to a request, without a network; and that no option is silently without effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.litellm_request import chat_arguments, route_of
from guidance_agent.llm.transports.openai_body import build_openai_body
from guidance_agent.settings import Settings

KEYS = {name: "key-123456" for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY")}
SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}


def prepared(model: str, options: dict[str, Any], *, transport: str = "auto", **fields: Any) -> PreparedCall:
    provider = model.partition("/")[0]
    settings = Settings.load(providers={provider: {"options": options}}, transport=transport)
    gateway = ModelGateway(settings, environ=KEYS)
    return gateway.prepare(ModelRequest(model=model, messages=(Message("user", "Question"),), **fields))


@pytest.mark.parametrize("model", ["openai/gpt-4o", "openai/gpt-6-luna", "groq/openai/gpt-oss-20b", "ollama/llama9"])
def test_a_seed_goes_where_one_is_taken(model: str) -> None:
    assert build_openai_body(prepared(model, {"seed": 7}), stream=True)["seed"] == 7
    assert "seed" not in build_openai_body(prepared(model, {}), stream=True)


def test_a_seed_of_zero_is_one() -> None:
    assert build_openai_body(prepared("openai/gpt-4o", {"seed": 0}), stream=False)["seed"] == 0


def test_json_mode_is_for_schemas_that_a_model_cannot_be_held_to() -> None:
    options = {"json_mode": True}
    old = build_openai_body(prepared("openai/gpt-3.5-turbo", options, response_schema=SCHEMA), stream=False)
    assert old["response_format"] == {"type": "json_object"}
    new = build_openai_body(prepared("openai/gpt-4o", options, response_schema=SCHEMA), stream=False)
    assert new["response_format"]["type"] == "json_schema"
    assert "response_format" not in build_openai_body(prepared("openai/gpt-3.5-turbo", options), stream=False)
    without = build_openai_body(prepared("openai/gpt-3.5-turbo", {}, response_schema=SCHEMA), stream=False)
    assert "response_format" not in without


def test_safety_settings_reach_gemini_in_a_steady_order() -> None:
    safety = {"HARM_CATEGORY_HATE_SPEECH": "BLOCK_NONE", "HARM_CATEGORY_HARASSMENT": "BLOCK_ONLY_HIGH"}
    call = prepared("gemini/gemini-3.8-flash", {"safety": safety, "seed": 3})
    arguments = chat_arguments(call, route_of(call, {"gemini"}), stream=True)
    assert arguments["safety_settings"] == [
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"},
        {"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"},
    ]
    assert arguments["seed"] == 3


def test_ollamas_own_settings_lead_through_its_own_interface() -> None:
    call = prepared("ollama/llama9", {"keep_alive": 600, "num_ctx": 16_384, "seed": 1})
    assert call.endpoint.wire is None
    assert call.traits.context_window == 16_384
    assert call.plan.life == 600
    route = route_of(call, {"ollama", "ollama_chat"})
    assert (route.model, route.api_base) == ("ollama_chat/llama9", "http://127.0.0.1:11434")
    arguments = chat_arguments(call, route, stream=True)
    assert (arguments["keep_alive"], arguments["num_ctx"], arguments["seed"]) == (600, 16_384, 1)


def test_without_them_ollama_keeps_the_native_transport() -> None:
    call = prepared("ollama/llama9", {"seed": 1})
    assert call.endpoint.wire == "openai"
    assert call.endpoint.base_url == "http://127.0.0.1:11434/v1"
    assert call.plan.life == 300


def test_a_model_that_is_kept_for_ever_keeps_its_prefix() -> None:
    assert prepared("ollama/llama9", {"keep_alive": -1}).plan.life > 1e6


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("anthropic/claude-haiku-5-5", {"seed": 1}, "'anthropic' does not take the option 'seed'; it takes none"),
        ("openai/gpt-4o", {"num_ctx": 4_096}, "'openai' does not take the option 'num_ctx'; it takes json_mode, seed"),
        ("gemini/gemini-3.8-flash", {"keep_alive": 5}, "it takes safety, seed"),
        ("ollama/llama9", {"safety": {"HARM_CATEGORY_HARASSMENT": "OFF"}}, "does not take the option 'safety'"),
    ],
)
def test_an_option_that_a_provider_does_not_take_is_an_error(model: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepared(model, options)
    assert said in str(caught.value)


def test_what_is_set_to_nothing_is_no_option() -> None:
    assert prepared("anthropic/claude-haiku-5-5", {"seed": None, "json_mode": False, "safety": {}}).extra == {}


@pytest.mark.parametrize(
    "options", [{"safety": {"HARM_CATEGORY_HARASSMENT": "sometimes"}}, {"num_ctx": 1}, {"keep_alive": "5m"}]
)
def test_wrong_values_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"providers\.gemini\.options"):
        Settings.load(providers={"gemini": {"options": options}})

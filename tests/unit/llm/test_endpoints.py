"""From a model name to an address, a key and a profile."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from guidance_agent.errors import ConfigurationError, MissingKeyError, UnknownModelError
from guidance_agent.llm.endpoints import default_models, judging_models, qualified_name, resolve, resolve_async
from guidance_agent.llm.price_map import PriceMap, bundled_price_map
from guidance_agent.llm.providers.base import Wire
from guidance_agent.llm.providers.registry import PROFILES
from guidance_agent.settings import ProviderSettings, Settings


def settings(**providers: Any) -> Settings:
    return Settings(providers={name: ProviderSettings(**values) for name, values in providers.items()})


def test_a_known_provider_with_its_key() -> None:
    endpoint, profile = resolve("anthropic/claude-sonnet-5-5", settings(), {"ANTHROPIC_API_KEY": " sk-1\n"})
    assert (endpoint.provider, endpoint.wire) == ("anthropic", "anthropic")
    assert (endpoint.base_url, endpoint.api_key) == ("https://api.anthropic.com", "sk-1")
    assert profile.name == "anthropic"
    assert "sk-1" not in repr(endpoint)


def test_settings_win_over_the_environment() -> None:
    own = settings(openai={"api_key": SecretStr("ours"), "base_url": "http://gw:1/v1", "headers": {"x-team": "a"}})
    environ = {"OPENAI_API_KEY": "theirs", "OPENAI_BASE_URL": "http://other/v1"}
    endpoint = resolve("openai/gpt-6-luna", own, environ).endpoint
    assert (endpoint.api_key, endpoint.base_url, endpoint.headers) == ("ours", "http://gw:1/v1", {"x-team": "a"})


def test_settings_override_the_traits_of_one_model() -> None:
    own = settings(anthropic={"cache_minimum_tokens": {"claude-opus-4-8": 4096}, "context_window": {"mine": 5}})
    profile = resolve("anthropic/mine", own, {"ANTHROPIC_API_KEY": "k"}).profile
    assert profile.traits("claude-opus-4-8").minimum_cache_tokens == 4096
    assert profile.traits("claude-sonnet-5").minimum_cache_tokens == 1024
    assert profile.traits("mine").context_window == 5


@pytest.mark.parametrize(
    ("variable", "value", "model", "expected"),
    [
        ("ANTHROPIC_BASE_URL", "http://gw:8080", "anthropic/claude-sonnet-5-5", "http://gw:8080"),
        ("ANTHROPIC_BASE_URL", "http://gw:8080/v1/", "anthropic/claude-sonnet-5-5", "http://gw:8080"),
        ("ANTHROPIC_API_BASE", "http://gw/claude/v1/messages", "anthropic/claude-sonnet-5-5", "http://gw/claude"),
        ("OPENAI_BASE_URL", "http://gw:8080", "openai/gpt-6-luna", "http://gw:8080/v1"),
        ("OPENAI_BASE_URL", "http://gw:8080/v1/", "openai/gpt-6-luna", "http://gw:8080/v1"),
        ("OPENAI_API_BASE", "http://gw/v1/chat/completions", "openai/gpt-6-luna", "http://gw/v1"),
        ("OPENAI_BASE_URL", "http://gw/v1beta/openai", "openai/gpt-6-luna", "http://gw/v1beta/openai"),
        ("OLLAMA_API_BASE", "http://box:11434", "ollama/llama3.2", "http://box:11434/v1"),
        (
            "GROQ_BASE_URL",
            "https://api.groq.com/openai/v1",
            "groq/openai/gpt-oss-20b",
            "https://api.groq.com/openai/v1",
        ),
        ("GEMINI_API_BASE", "https://gw/gemini/", "gemini/gemini-3.8-flash", "https://gw/gemini"),
    ],
)
def test_an_address_works_with_and_without_its_version(variable: str, value: str, model: str, expected: str) -> None:
    assert resolve(model, settings(), {variable: value}).endpoint.base_url == expected


def test_the_base_url_variable_of_the_provider_wins_over_litellms() -> None:
    environ = {"OPENAI_API_BASE": "http://second", "OPENAI_BASE_URL": "http://first"}
    assert resolve("openai/gpt-6-luna", settings(), environ).endpoint.base_url == "http://first/v1"


@pytest.mark.parametrize(
    "url",
    ["gw:8080", "ftp://gw", "http://", "http://gw:port", "http://gw/?key=1", "//gw", "/v1", "http://[gw"],
)
def test_an_address_that_cannot_work_is_refused_with_its_source(url: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        resolve("openai/gpt-6-luna", settings(), {"OPENAI_BASE_URL": url})


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="user name or password") as raised:
        resolve("openai/gpt-6-luna", settings(), {"OPENAI_BASE_URL": "http://me:secret@gw/v1"})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["sk 1", "sk-\u2013", "sk\n1"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY") as raised:
        resolve("anthropic/claude-sonnet-5-5", settings(), {"ANTHROPIC_API_KEY": key})
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("anthropic/claude-sonnet-5-5", "ANTHROPIC_API_KEY"),
        ("openai/gpt-6-sol", "OPENAI_API_KEY"),
        ("gemini/gemini-3.8-flash", "GEMINI_API_KEY"),
        ("mistral/mistral-large-latest", "MISTRAL_API_KEY"),
    ],
)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_the_variable_to_set(model: str, variable: str, value: str | None) -> None:
    environ = {} if value is None else {variable: value}
    with pytest.raises(MissingKeyError, match=variable):
        resolve(model, settings(), environ)


def test_an_address_of_ones_own_needs_no_key() -> None:
    endpoint = resolve("openai/gpt-6-sol", settings(), {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}).endpoint
    assert endpoint.api_key is None


def test_ollama_needs_neither_key_nor_address() -> None:
    endpoint = resolve("ollama/llama3.2", settings(), {}).endpoint
    assert (endpoint.wire, endpoint.base_url, endpoint.api_key) == ("openai", "http://127.0.0.1:11434/v1", None)


def test_a_server_without_a_default_address_says_which_variable_to_set() -> None:
    with pytest.raises(ConfigurationError, match="HOSTED_VLLM_BASE_URL"):
        resolve("hosted_vllm/llama", settings(), {})


@pytest.mark.parametrize("model", ["azure/my-deployment", "bedrock/anthropic.claude", "vertex_ai/gemini-3.8-flash"])
def test_other_providers_are_left_to_litellm(model: str) -> None:
    endpoint, profile = resolve(model, settings(), {})
    assert (endpoint.wire, endpoint.base_url) == (None, None)
    assert profile.name == model.partition("/")[0]


@pytest.mark.parametrize(("wire", "expected"), [("openai", "http://gw/v1"), ("anthropic", "http://gw")])
def test_a_provider_of_ones_own_by_settings(wire: Wire, expected: str) -> None:
    own = settings(house={"wire": wire, "base_url": "http://gw/v1"})
    endpoint, profile = resolve("house/model", own, {"HOUSE_API_KEY": "k"})
    assert (endpoint.provider, endpoint.wire, endpoint.base_url, endpoint.api_key) == ("house", wire, expected, "k")
    assert profile.traits("model").caching == ("explicit" if wire == "anthropic" else "prefix")


def test_a_provider_of_ones_own_without_an_address_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="GUIDANCE_PROVIDERS__HOUSE__BASE_URL"):
        resolve("house/model", settings(house={"wire": "openai"}), {})


def test_another_wire_of_a_known_provider_needs_its_address() -> None:
    own: dict[str, Any] = {"wire": "anthropic", "api_key": SecretStr("k")}
    with pytest.raises(ConfigurationError, match="DEEPSEEK_BASE_URL"):
        resolve("deepseek/deepseek-v4-pro", settings(deepseek=own), {})
    own["base_url"] = "https://api.deepseek.com/anthropic"
    endpoint = resolve("deepseek/deepseek-v4-pro", settings(deepseek=own), {}).endpoint
    assert (endpoint.wire, endpoint.base_url) == ("anthropic", "https://api.deepseek.com/anthropic")


def test_an_unknown_provider_names_close_ones() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'anthropic'"):
        resolve("antropic/claude-sonnet-5-5", settings(), {})


@pytest.mark.parametrize("model", ["claude-sonet-5-5", "anthropic/", "/claude", ""])
def test_a_name_without_a_provider_is_refused_unless_it_is_known(model: str) -> None:
    with pytest.raises(UnknownModelError, match="provider/model"):
        resolve(model, settings(), {})


def test_a_misspelt_bare_name_names_close_ones() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'claude-sonnet-5-5'"):
        qualified_name("claude-sonet-5-5")


@pytest.mark.parametrize(
    ("bare", "full"),
    [
        ("claude-haiku-5-5", "anthropic/claude-haiku-5-5"),
        ("gpt-6-luna", "openai/gpt-6-luna"),
        ("text-embedding-3-small", "openai/text-embedding-3-small"),
        ("ollama/llama3.2", "ollama/llama3.2"),
    ],
)
def test_bare_names_of_known_models_get_their_provider(bare: str, full: str) -> None:
    assert qualified_name(bare) == full


async def test_resolving_on_an_event_loop_reads_nothing_for_listed_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: PriceMap) -> None:
        raise AssertionError("the price map was read")

    monkeypatch.setattr(PriceMap, "_index", refuse)
    resolved = await resolve_async("gpt-6-luna", settings(), {"OPENAI_API_KEY": "k"})
    assert resolved == resolve("gpt-6-luna", settings(), {"OPENAI_API_KEY": "k"})


async def test_resolving_on_an_event_loop_prepares_what_the_traits_of_others_need() -> None:
    profile = (await resolve_async("groq/openai/gpt-oss-20b", settings(), {"GROQ_API_KEY": "k"})).profile
    assert bundled_price_map().is_warm
    assert profile.traits("openai/gpt-oss-20b").context_window == 131_072


def test_named_models_win() -> None:
    chosen = default_models(Settings(model="gpt-6-astra"), {"ANTHROPIC_API_KEY": "k"})
    assert chosen == ("openai/gpt-6-astra", "openai/gpt-6-luna", True)
    both = default_models(Settings(model="ollama/llama3.2", reasoning_model="claude-haiku-5-5"), {})
    assert both == ("ollama/llama3.2", "anthropic/claude-haiku-5-5", True)
    alone = default_models(Settings(model="ollama/llama3.2"), {})
    assert alone == ("ollama/llama3.2", "ollama/llama3.2", True)


@pytest.mark.parametrize(
    ("environ", "author", "reasoning"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5"),
        ({"ANTHROPIC_BASE_URL": "http://gw"}, "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5"),
        ({"OPENAI_API_KEY": "k"}, "openai/gpt-6-sol", "openai/gpt-6-luna"),
        (
            {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"},
            "anthropic/claude-sonnet-5-5",
            "anthropic/claude-haiku-5-5",
        ),
        ({"ANTHROPIC_API_KEY": "", "GROQ_API_KEY": "k"}, "groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-20b"),
    ],
)
def test_the_first_provider_with_a_key_or_an_address_is_chosen(
    environ: dict[str, str], author: str, reasoning: str
) -> None:
    assert default_models(Settings(), environ) == (author, reasoning, True)


def test_a_key_in_the_settings_chooses_its_provider() -> None:
    assert default_models(settings(openai={"api_key": SecretStr("k")}), {}).author == "openai/gpt-6-sol"


@pytest.mark.parametrize("environ", [{}, {"OPENROUTER_API_KEY": "k"}])
def test_without_a_usable_provider_the_defaults_are_unconfigured(environ: dict[str, str]) -> None:
    chosen = default_models(Settings(), environ)
    assert chosen == ("anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5", False)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_provider_of_the_registry_resolves(name: str) -> None:
    profile = PROFILES[name]
    environ = {profile.key_variables[0]: "k", profile.base_url_variables[0]: "http://127.0.0.1:9/v1"}
    endpoint = resolve(f"{name}/model", settings(), environ).endpoint
    assert (endpoint.provider, endpoint.wire, endpoint.api_key) == (name, profile.wire, "k")


@pytest.mark.parametrize(
    ("given", "environ", "judge", "gate"),
    [
        ({}, {}, "anthropic/claude-sonnet-5", "anthropic/claude-haiku-5-5"),
        ({}, {"OPENAI_API_KEY": "k"}, "openai/gpt-5.6-terra", "openai/gpt-6-luna"),
        ({"model": "claude-sonnet-5"}, {}, "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5"),
        ({"model": "ollama/llama3.2"}, {"OPENAI_API_KEY": "k"}, "ollama/llama3.2", None),
        ({"model": "ollama/llama3.2", "reasoning_model": "ollama/tiny"}, {}, "ollama/llama3.2", "ollama/tiny"),
        ({"judge_model": "gpt-6-sol", "gate_model": "gpt-6-luna"}, {}, "openai/gpt-6-sol", "openai/gpt-6-luna"),
    ],
)
def test_another_model_of_the_same_provider_judges_unless_one_is_named(
    given: dict[str, str], environ: dict[str, str], judge: str, gate: str | None
) -> None:
    assert judging_models(Settings.model_validate(given), environ) == (judge, gate)

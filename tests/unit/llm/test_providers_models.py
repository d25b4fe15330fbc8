"""What is known of each model, against the facts and the price map."""

from __future__ import annotations

import pytest

from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.anthropic import ANTHROPIC
from guidance_agent.llm.providers.compatible import COMPATIBLE
from guidance_agent.llm.providers.gemini import GEMINI
from guidance_agent.llm.providers.models import ANTHROPIC_MODELS, GEMINI_MODELS, OPENAI_MODELS
from guidance_agent.llm.providers.openai import OPENAI
from guidance_agent.llm.providers.registry import PROFILES

RETIRED = {"claude-opus-4-1", "claude-opus-4", "claude-3-5-haiku"}


@pytest.mark.parametrize(
    ("minimum", "models"),
    [
        (512, "claude-opus-5 claude-opus-5-5 claude-fable-5 claude-fable-5-1 claude-mythos-5 claude-mythos-5-1"),
        (512, "claude-sonnet-5-5 claude-haiku-5-5"),
        (1024, "claude-opus-4-8 claude-sonnet-5 claude-sonnet-4-6 claude-sonnet-4-5 claude-opus-4-1 claude-opus-4"),
        (2048, "claude-opus-4-7 claude-3-5-haiku"),
        (4096, "claude-opus-4-6 claude-opus-4-5 claude-haiku-4-5"),
    ],
)
def test_minimum_cacheable_length_of_each_claude_model(minimum: int, models: str) -> None:
    assert {ANTHROPIC.traits(model).minimum_cache_tokens for model in models.split()} == {minimum}


@pytest.mark.parametrize("model", sorted(ANTHROPIC_MODELS.keys() - RETIRED))
def test_the_claude_table_agrees_with_the_price_map(model: str) -> None:
    record = bundled_price_map().record(model)
    traits = ANTHROPIC_MODELS[model]
    assert record is not None
    assert traits.minimum_cache_tokens == record["prompt_cache_min_tokens"]
    assert traits.context_window == record["max_input_tokens"]
    assert traits.accepts_temperature == record.get("supports_sampling_params", True)
    assert traits.always_thinks == record.get("thinking_always_on", False)


@pytest.mark.parametrize("model", sorted(OPENAI_MODELS.keys() - {"gpt-6.1-terra"}))
def test_the_openai_table_agrees_with_the_price_map(model: str) -> None:
    record = bundled_price_map().record(model)
    traits = OPENAI_MODELS[model]
    assert record is not None
    assert traits.context_window == record["max_input_tokens"]
    assert (traits.caching == "explicit") == record.get("supports_prompt_cache_breakpoint", False)


@pytest.mark.parametrize("model", sorted(GEMINI_MODELS))
def test_the_gemini_table_agrees_with_the_price_map(model: str) -> None:
    record = bundled_price_map().record(f"gemini/{model}")
    traits = GEMINI_MODELS[model]
    assert record is not None
    assert traits.context_window == record["max_input_tokens"]
    assert traits.minimum_cache_tokens == record.get("prompt_cache_min_tokens", traits.minimum_cache_tokens)
    assert traits.accepts_temperature == record.get("supports_sampling_params", True)


@pytest.mark.parametrize(
    ("model", "caching"),
    [
        ("gpt-5.6-sol", "explicit"),
        ("gpt-6-luna", "explicit"),
        ("gpt-6.1-terra", "explicit"),
        ("gpt-5.5", "prefix"),
        ("gpt-4o-mini", "prefix"),
    ],
)
def test_openai_has_two_caching_regimes(model: str, caching: str) -> None:
    assert OPENAI.traits(model).caching == caching
    assert OPENAI.traits(model).minimum_cache_tokens == 1024


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.6", "gpt-6-sol", "o4-mini"])
def test_reasoning_models_take_no_temperature_and_name_their_bound_differently(model: str) -> None:
    traits = OPENAI.traits(model)
    assert not traits.accepts_temperature
    assert traits.max_tokens_field == "max_completion_tokens"


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini"])
def test_older_models_take_a_temperature(model: str) -> None:
    traits = OPENAI.traits(model)
    assert traits.accepts_temperature
    assert traits.max_tokens_field == "max_tokens"


@pytest.mark.parametrize(
    ("dated", "family"),
    [("claude-sonnet-5-5-20260901", "claude-sonnet-5-5"), ("claude-haiku-4-5-20251001", "claude-haiku-4-5")],
)
def test_a_dated_claude_snapshot_is_of_its_family(dated: str, family: str) -> None:
    assert ANTHROPIC.traits(dated) is ANTHROPIC_MODELS[family]


@pytest.mark.parametrize("model", ["gpt-4o-2024-08-06", "ft:gpt-4o-2024-08-06:acme::abc123"])
def test_a_dated_or_fine_tuned_openai_model_is_of_its_family(model: str) -> None:
    assert OPENAI.traits(model) is OPENAI_MODELS["gpt-4o"]


@pytest.mark.parametrize("model", ["my-claude-sonnet-5-5", "claude-sonnet-5-5-turbo", "claude-sonnet-5-5-2026"])
def test_a_name_that_only_contains_a_known_one_is_unknown(model: str) -> None:
    traits = ANTHROPIC.traits(model)
    assert (traits.caching, traits.minimum_cache_tokens, traits.context_window) == ("explicit", None, None)


def test_a_model_outside_the_tables_is_read_from_the_price_map() -> None:
    preview = ANTHROPIC.traits("claude-mythos-preview")
    assert (preview.minimum_cache_tokens, preview.context_window, preview.always_thinks) == (512, 1_000_000, True)
    groq = COMPATIBLE["groq"].traits("openai/gpt-oss-120b")
    assert (groq.caching, groq.context_window) == ("prefix", 131_072)


def test_an_openai_model_outside_the_tables_gets_its_regime_from_the_price_map() -> None:
    listed = OPENAI.traits("gpt-5.6-cyber")
    assert (listed.caching, listed.context_window, listed.minimum_cache_tokens) == ("explicit", 400_000, 1024)
    assert OPENAI.traits("gpt-5-search-api").caching == "prefix"
    new = OPENAI.traits("gpt-of-the-future")
    assert (new.caching, new.context_window, new.accepts_temperature) == ("prefix", None, False)


def test_a_gemini_model_outside_the_tables_has_no_made_up_minimum() -> None:
    assert GEMINI.traits("gemini-nobody-knows").minimum_cache_tokens is None


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_default_models_of_a_provider_are_in_the_price_map(name: str) -> None:
    profile = PROFILES[name]
    price_map = bundled_price_map()
    for model in filter(None, (profile.default_model, profile.fast_model, profile.judge_model)):
        assert model.startswith(f"{name}/")
        assert price_map.record(model) or price_map.record(model.partition("/")[2])

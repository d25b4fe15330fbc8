"""Which models can be called with what is set, without a network."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.catalogue import CatalogueEntry, ProviderEntry, model_catalogue
from guidance_agent.llm.providers.registry import PROFILES
from guidance_agent.settings import Settings

TODAY = date(2026, 11, 21)
BOTH = {"ANTHROPIC_API_KEY": "sk-ant-1", "OPENAI_API_KEY": "sk-1"}


def catalogue(environ: dict[str, str] | None = None, /, **options: Any) -> dict[str, ProviderEntry]:
    settings = Settings.load(**options.pop("settings", {}))
    found = model_catalogue(settings, BOTH if environ is None else environ, **{"today": TODAY, **options})
    return {entry.provider: entry for entry in found}


def models(entry: ProviderEntry) -> dict[str, CatalogueEntry]:
    return {model.model: model for model in entry.models}


def test_only_providers_with_a_key_or_an_address_are_listed() -> None:
    assert set(catalogue()) == {"anthropic", "openai"}
    assert set(catalogue({})) == set()
    assert set(catalogue({"OLLAMA_BASE_URL": "http://127.0.0.1:11434"})) == {"ollama"}
    assert set(catalogue({}, unset=True)) == set(PROFILES)
    assert not any(entry.is_set for entry in catalogue({}, unset=True).values())


def test_a_model_has_its_prices_its_batch_price_and_what_it_can_do() -> None:
    haiku = models(catalogue()["anthropic"])["anthropic/claude-haiku-5-5"]
    assert haiku.prices is not None and haiku.batch_prices is not None
    assert haiku.prices.input == pytest.approx(0.10 / 1e6)
    assert haiku.batch_prices.output == pytest.approx(0.25 / 1e6)
    assert haiku.traits.caching == "explicit"
    assert haiku.traits.minimum_cache_tokens == 512
    assert haiku.transport == "native"


def test_what_a_model_is_used_for_follows_the_settings() -> None:
    found = models(catalogue(settings={"judge_model": "openai/gpt-6-sol"})["openai"])
    assert found["openai/gpt-6-sol"].uses == ("judges",)
    found = models(catalogue()["anthropic"])
    assert found["anthropic/claude-sonnet-5-5"].uses == ("answers",)
    assert found["anthropic/claude-haiku-5-5"].uses == ("makes notes", "decides sentences")


def test_a_model_that_the_settings_name_is_listed_whatever_is_known_of_it() -> None:
    found = models(catalogue(settings={"model": "openai/gpt-of-tomorrow"})["openai"])
    assert found["openai/gpt-of-tomorrow"].uses == ("answers",)
    assert found["openai/gpt-of-tomorrow"].prices is None


def test_retired_models_are_left_out_until_everything_is_asked_for() -> None:
    early, late = catalogue(today=date(2026, 11, 30)), catalogue(today=date(2026, 12, 1))
    name = "anthropic/claude-sonnet-4-5"
    assert models(early["anthropic"])[name].retires == "2026-11-30"
    assert name not in models(late["anthropic"])
    assert name in models(catalogue(today=date(2026, 12, 1), everything=True)["anthropic"])


def test_a_provider_without_a_table_is_listed_from_the_price_map() -> None:
    found = catalogue({"GROQ_API_KEY": "gsk"})["groq"]
    assert "groq/openai/gpt-oss-120b" in models(found)
    assert all(model.model.startswith("groq/") for model in found.models)


def test_a_server_of_ones_own_serves_what_is_loaded_there() -> None:
    found = catalogue({}, settings={"providers": {"acme": {"wire": "openai", "base_url": "http://127.0.0.1:9"}}})
    assert found["acme"].open_ended
    assert found["acme"].models == ()
    assert catalogue({"OLLAMA_BASE_URL": "http://127.0.0.1:11434"})["ollama"].open_ended


def test_litellm_is_said_where_it_is_the_way() -> None:
    assert all(model.transport == "litellm" for model in catalogue({"GEMINI_API_KEY": "k"})["gemini"].models)
    found = catalogue(settings={"transport": "litellm"})["openai"]
    assert {model.transport for model in found.models} == {"litellm"}


def test_a_wrong_default_model_does_not_hide_the_list() -> None:
    assert catalogue(settings={"model": "no-such-model"})["anthropic"].models


def test_own_prices_and_corrections_are_shown(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"openai/gpt-6-luna": {"input": 7, "output": 8}}', encoding="utf-8")
    corrected = {"openai": {"context_window": {"gpt-6-luna": 5}}}
    try:
        found = models(catalogue(settings={"prices_file": prices, "providers": corrected})["openai"])
    except ConfigurationError as error:
        pytest.fail(str(error))
    luna = found["openai/gpt-6-luna"]
    assert luna.traits.context_window == 5
    assert luna.prices is not None and luna.prices.source == str(prices)

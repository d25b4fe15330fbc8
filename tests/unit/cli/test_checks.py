"""What `doctor` finds in folders and settings, and never tells."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine

from guidance_agent import Settings
from guidance_agent.cli.checks import environment
from guidance_agent.cli.checks.configuration import (
    check_cache,
    check_keys,
    check_models,
    check_prices,
    check_settings,
    check_transport,
)
from guidance_agent.cli.checks.environment import check_data_folder, check_litellm, check_start_up_files
from guidance_agent.cli.checks.services import check_knowledge
from guidance_agent.cli.exit_codes import ExitCode


@pytest.fixture
def site_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "_site_folders", lambda: iter((tmp_path,)))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("paths.pth", "/some/where\n", "ok"),
        ("distutils-precedence.pth", "import os; os\n", "ok"),
        ("surprise.pth", "/some/where\nimport os; os\n", "warn"),
        ("litellm_init.pth", "import base64\n", "fail"),
    ],
)
def test_a_start_up_file_that_runs_code_is_reported(site_folder: Path, name: str, content: str, status: str) -> None:
    (site_folder / name).write_text(content)
    check = check_start_up_files()
    assert check.status == status
    assert (name in check.message) is (status != "ok")


@pytest.mark.parametrize(("version", "status"), [("1.82.8", "fail"), ("1.0.0", "warn"), ("1.106.2", "ok")])
def test_an_untested_or_malicious_litellm_is_reported(
    monkeypatch: pytest.MonkeyPatch, version: str, status: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    assert check_litellm().status == status


def test_a_data_folder_below_a_file_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = check_data_folder(tmp_path / "file" / "data")
    assert (check.status, check.code) == ("fail", ExitCode.STORAGE)
    assert "--data-dir" in (check.next_step or "")


def test_settings_are_told_with_their_sources_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.toml"
    file.write_text('max_answer_tokens = 500\n[providers.openai]\napi_key = "sk-secret"\n')
    monkeypatch.setenv("GUIDANCE_CONFIG", str(file))
    monkeypatch.setenv("GUIDANCE_DATABASE_URL", "postgresql://user:pass@host/db")
    message = check_settings(Settings.load(model="openai/gpt-6-sol"), {"model": "--model"}).message
    assert f"max_answer_tokens = 500 ({file})" in message
    assert "model = openai/gpt-6-sol (--model)" in message
    assert "database_url (GUIDANCE_DATABASE_URL)" in message
    assert "sk-secret" not in message and "pass" not in message


def test_keys_are_named_by_their_place_only(settings: Settings) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1", "OPENAI_BASE_URL": "https://user:pw@gateway.example/v1"}
    message = check_keys(settings, environ).message
    assert "anthropic (ANTHROPIC_API_KEY)" in message
    assert "openai (address gateway.example)" in message
    assert "sk-ant" not in message and "pw" not in message


def test_the_choice_of_models_is_explained(settings: Settings) -> None:
    assert "simulator" in check_models(settings, {}, {}).message
    assert "OPENAI_API_KEY" in check_models(settings, {"OPENAI_API_KEY": "k"}, {}).message
    named = settings.model_copy(update={"model": "ollama/llama3.2"})
    assert "named by --model" in check_models(named, {}, {"model": "--model"}).message


def test_an_unknown_price_is_a_warning_and_a_known_one_is_told(settings: Settings) -> None:
    assert "$2 in, $10 out" in check_prices(settings, {}).message
    check = check_prices(settings.model_copy(update={"model": "ollama/llama3.2"}), {})
    assert (check.status, "ollama/llama3.2" in check.message) == ("warn", True)


def test_a_prompt_below_the_models_minimum_is_a_warning(settings: Settings) -> None:
    assert check_cache(settings, {}).status == "ok"
    values = {"cache_minimum_tokens": {"claude-sonnet-5-5": 50_000}}
    short = Settings.load(data_dir=settings.data_dir, providers={"anthropic": values})
    check = check_cache(short, {})
    assert (check.status, "50,000" in check.message) == ("warn", True)


def test_a_transport_that_cannot_reach_the_model_fails(settings: Settings) -> None:
    assert "native (anthropic format)" in check_transport(settings, {}).message
    cornered = settings.model_copy(update={"model": "vertex_ai/gemini-3.5-flash", "transport": "native"})
    check = check_transport(cornered, {})
    assert (check.status, check.code) == ("fail", ExitCode.CONFIGURATION)


def test_facts_that_end_soon_are_a_warning(settings: Settings) -> None:
    with time_machine.travel(datetime(2026, 11, 21, 12, tzinfo=UTC), tick=False):
        check = check_knowledge(settings)
        assert check.status == "ok" and "the next end on 2026-12-31" in check.message
    with time_machine.travel(datetime(2026, 12, 20, 12, tzinfo=UTC), tick=False):
        assert check_knowledge(settings).status == "warn"

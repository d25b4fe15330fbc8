"""`guidance-agent models`: the list for a person and for a program."""

from __future__ import annotations

import json

import pytest

from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.main import run

Capture = pytest.CaptureFixture[str]


def test_the_list_names_models_prices_and_capabilities(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-shown")
    assert run(["models"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    [line] = [line for line in shown.splitlines() if "claude-haiku-5-5 " in line]
    for word in ("0.1", "0.05 / 0.25", "1,000,000", "makes notes", "cache by breakpoints", "JSON Schema"):
        assert word in line
    assert "openai" not in shown
    assert "never-shown" not in shown


def test_the_json_has_the_same_for_programs(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    assert run(["models", "--json"]) == ExitCode.DONE
    out = capsys.readouterr().out
    [provider] = json.loads(out)["providers"]
    luna = next(model for model in provider["models"] if model["model"] == "openai/gpt-6-luna")
    assert luna["usd_per_million"]["input"] == 0.1
    assert luna["usd_per_million"]["cache_read"] == 0.01
    assert luna["batch_usd_per_million"]["output"] == 0.25
    assert luna["caching"] == "explicit"
    assert "never-shown" not in out


def test_without_a_key_the_next_step_is_said(capsys: Capture) -> None:
    assert run(["models"]) == ExitCode.DONE
    assert "export ANTHROPIC_API_KEY=" in capsys.readouterr().out


def test_one_provider_is_shown_with_what_it_needs(capsys: Capture) -> None:
    assert run(["models", "--provider", "gemini"]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "gemini (not set up: export GEMINI_API_KEY=…)" in shown
    assert "by LiteLLM" in shown


def test_an_unknown_provider_is_an_error_with_the_next_step(capsys: Capture) -> None:
    assert run(["models", "--provider", "acme"]) == ExitCode.CONFIGURATION
    assert "'acme' is not known" in capsys.readouterr().err

"""Wrong settings are told in words that help, and no word of them is a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import Settings

KEY = "sk-ant-api03-ThisMustNeverBeSeenAnywhere"


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modle": "a/b"}, "modle: is no setting. Did you mean 'model'?"),
        ({"timeouts": {"conect": 3}}, "timeouts.conect: is no setting. Did you mean 'timeouts.connect'?"),
        ({"max_attempts": 3}, "max_attempts: is no setting. Did you mean "),
        ({"requests_per_minute": 60}, "Did you mean 'providers.NAME.limits.requests_per_minute' or "),
        ({"providers": {"acme": {"retry": {"max_attempt": 3}}}}, "'providers.acme.retry.max_attempts'?"),
        (
            {"providers": {"acme": {"limits": {"models": {"m": {"tokens_per_minut": 3}}}}}},
            "Did you mean 'providers.acme.limits.models.m.tokens_per_minute'?",
        ),
        ({"refinement": {"zzz": 1}}, "Use one of borderline, never_passes, rounds"),
    ],
)
def test_an_unknown_name_brings_the_one_that_was_meant(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"timeouts": {"connect": "5s"}},
        {"retry": {"max_wait": "2 minutes"}},
        {"providers": {"acme": {"limits": {"requests_per_minute": "600/min"}}}},
        {"max_answer_tokens": "1k"},
        {"judge_calls": 2.5},
    ],
)
def test_a_unit_beside_a_number_is_said_to_be_one_too_many(values: dict[str, Any]) -> None:
    assert "must be a number without a unit (times are in seconds)" in refusal(values)


@pytest.mark.parametrize(
    "values", [{"timeouts": {"connect": 5_000}}, {"retry": {"max_wait": 30_000}}, {"limits": {"burst": 500}}]
)
def test_milliseconds_are_not_taken_for_seconds(values: dict[str, Any]) -> None:
    assert "times are in seconds" in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"model": KEY},
        {"model": f"anthropic/{KEY}"},
        {"fallbacks": ["openai/gpt-6-luna", KEY]},
        {"providers": {KEY: {"base_url": "https://acme.example"}}},
        {"providers": {"acme": {"base_url": f"https://acme.example/{KEY}"}}},
        {"trace": {"project": KEY}},
        {"api_key": KEY},
        {"anthropic_api_key": KEY},
        {"providers": {"acme": {"token": KEY}}},
        {KEY: "value"},
        {"providers": {"acme": KEY}},
        {"timeouts": {"connect": KEY}},
    ],
)
def test_a_key_in_the_wrong_place_is_told_where_it_belongs_and_never_shown(values: dict[str, Any]) -> None:
    said = refusal(values)
    assert "Keys belong into the provider's own variable" in said
    assert "NeverBeSeen" not in said


def test_a_key_in_the_wrong_place_of_a_file_or_variable_is_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "guidance.toml"
    file.write_text(f'judge_model = "{KEY}"\n', encoding="utf-8")
    monkeypatch.setenv("GUIDANCE_GATE_MODEL", KEY)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(file)
    assert "judge_model: this looks like a key" in str(caught.value)
    assert "gate_model: this looks like a key" in str(caught.value)
    assert "NeverBeSeen" not in str(caught.value)


def test_keys_where_they_belong_are_left_alone() -> None:
    loaded = Settings.load(
        database_url=f"postgresql://user:{KEY}@localhost/guidance",
        providers={"acme": {"api_key": KEY, "headers": {"authorization": f"Bearer {KEY}"}}},
    )
    assert loaded.providers["acme"].api_key is not None


@pytest.mark.parametrize(
    "name", ["test_markdown_has_tables_in_what_it_prints0", "risk-2026-notes-and-papers", "sk-notes-and-other-papers"]
)
def test_a_folder_whose_name_only_resembles_a_key_may_be_used(tmp_path: Path, name: str) -> None:
    assert Settings.load(data_dir=tmp_path / name).data_dir == tmp_path / name

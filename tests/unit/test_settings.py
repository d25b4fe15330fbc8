"""Settings: which source wins, what is refused and how it is said, and that no secret is ever shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import ProviderSettings, RetrySettings, Settings

SECRET = "sk-never-to-be-seen"


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**overrides)
    return str(caught.value)


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_arguments_win_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "c.toml", 'model = "file/m"\nreasoning_model = "file/r"\nembedding_model = "file/e"\n')
    monkeypatch.setenv("GUIDANCE_MODEL", "environment/m")
    monkeypatch.setenv("GUIDANCE_REASONING_MODEL", "environment/r")
    loaded = Settings.load(file, model="argument/m")
    assert (loaded.model, loaded.reasoning_model, loaded.embedding_model) == ("argument/m", "environment/r", "file/e")


def test_one_table_may_take_its_values_from_all_three_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.toml", "[retry]\nmax_attempts = 2\nmax_wait = 2.0\ndeadline = 2.0\n")
    monkeypatch.setenv("GUIDANCE_RETRY__MAX_WAIT", "3")
    monkeypatch.setenv("GUIDANCE_RETRY__MAX_ATTEMPTS", "3")
    loaded = Settings.load(file, retry={"max_attempts": 4})
    assert loaded.retry == RetrySettings(max_attempts=4, max_wait=3.0, deadline=2.0)


def test_a_whole_section_given_as_an_argument_replaces_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_RETRY__MAX_WAIT", "3")
    assert Settings.load(retry=RetrySettings(max_attempts=4)).retry == RetrySettings(max_attempts=4)


def test_nested_environment_variables_reach_a_named_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_PROVIDERS__OLLAMA__BASE_URL", "http://127.0.0.1:11434/v1")
    monkeypatch.setenv("GUIDANCE_PROVIDERS__OLLAMA__RETRY__MAX_ATTEMPTS", "7")
    provider = Settings.load(providers={"ollama": {"wire": "openai"}}).providers["ollama"]
    assert provider == ProviderSettings(
        base_url="http://127.0.0.1:11434/v1", wire="openai", retry=RetrySettings(max_attempts=7)
    )


def test_an_empty_variable_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "DATA_DIR", "DATABASE_URL", "CONFIG", "MAX_ANSWER_TOKENS", "TIMEOUTS__CONNECT"):
        monkeypatch.setenv(f"GUIDANCE_{name}", "")
    assert Settings.load() == Settings.load().model_copy(
        update={"model": None, "data_dir": tmp_path / "xdg" / "guidance-agent", "database_url": None, "config": None}
    )


def test_the_file_is_looked_for_by_name_then_here_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "xdg" / "guidance-agent" / "config.toml", 'model = "data/folder"')
    assert Settings.load().model == "data/folder"
    write(Path("guidance.toml"), 'model = "working/directory"')
    assert Settings.load().model == "working/directory"
    monkeypatch.setenv("GUIDANCE_CONFIG", str(write(tmp_path / "c.toml", 'model = "named/file"')))
    assert Settings.load().model == "named/file"
    assert Settings.load(write(tmp_path / "d.toml", 'model = "given/file"')).model == "given/file"


@pytest.mark.parametrize("given_by", ["argument", "text argument", "environment"])
def test_a_config_file_in_the_chosen_data_folder_is_found(
    given_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "chosen"
    write(folder / "config.toml", 'model = "chosen/folder"')
    if given_by == "environment":
        monkeypatch.setenv("GUIDANCE_DATA_DIR", str(folder))
        assert Settings.load().model == "chosen/folder"
    else:
        assert Settings.load(data_dir=folder if given_by == "argument" else str(folder)).model == "chosen/folder"


def test_a_tilde_means_the_home_folder_wherever_a_path_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GUIDANCE_DATA_DIR", "~/records")
    monkeypatch.setenv("GUIDANCE_CONFIG", "~/c.toml")
    write(tmp_path / "c.toml", 'knowledge_dir = "~/facts"\nprices_file = "~/prices.json"\n')
    loaded = Settings.load()
    assert (loaded.data_dir, loaded.knowledge_dir, loaded.prices_file) == (
        tmp_path / "records",
        tmp_path / "facts",
        tmp_path / "prices.json",
    )


def test_a_home_folder_that_does_not_exist_is_said_so() -> None:
    assert "'~nobody-of-that-name/records'" in refusal(data_dir="~nobody-of-that-name/records")


def test_a_file_with_a_byte_order_mark_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b'\xef\xbb\xbfmodel = "a/b"\n')
    assert Settings.load(file).model == "a/b"


def test_a_missing_config_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_CONFIG", str(tmp_path / "missing.toml"))
    assert str(tmp_path / "missing.toml") in refusal()


def test_a_folder_is_not_a_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_CONFIG", str(tmp_path))
    assert "is not a file" in refusal()


@pytest.mark.parametrize(
    "content", [b"model = ", b"[retry\n", b"\xff\xfe\x00binary\x00", b"model = 'a'\nmodel = 'b'\n"]
)
def test_a_broken_or_binary_config_file_is_named_with_the_reason(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        Settings.load(file)
    assert str(file) in str(caught.value)


def test_every_wrong_field_of_every_source_is_named_in_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "c.toml", 'transport = "carrier pigeon"\nmodle = "a/b"\n[timeouts]\nconect = 3\n')
    monkeypatch.setenv("GUIDANCE_MAX_ANSWER_TOKENS", "many")
    monkeypatch.setenv("GUIDANCE_RETRY__MAX_ATTEMPTS", "0")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(file, providers={"acme": {"wire": "telegraph"}}, auto_migrate="perhaps")
    fields = [clause.split(": ")[0] for clause in str(caught.value).split(": ", 1)[1].split("; ")]
    assert sorted(fields) == [
        "auto_migrate",
        "max_answer_tokens",
        "modle",
        "providers.acme.wire",
        "retry.max_attempts",
        "timeouts.conect",
        "transport",
    ]
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_time_out_must_be_a_positive_number(value: float) -> None:
    assert "timeouts.turn" in refusal(timeouts={"turn": value})


@pytest.mark.parametrize("variable", ["GUIDANCE_FALLBACKS", "GUIDANCE_PROVIDERS"])
def test_a_list_or_table_that_is_not_json_names_its_field_and_the_form_needed(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "{not json")
    said = refusal()
    assert variable.removeprefix("GUIDANCE_").lower() in said
    assert "JSON" in said


def test_settings_and_their_sections_cannot_be_changed() -> None:
    loaded = Settings.load()
    with pytest.raises(ValidationError):
        loaded.model = "a/b"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        loaded.timeouts.connect = 1.0  # type: ignore[misc]


def test_no_secret_is_shown_when_settings_are_printed() -> None:
    loaded = Settings.load(
        database_url=f"postgresql://advisor:{SECRET}@db/guidance",
        providers={"acme": {"api_key": SECRET, "headers": {"Authorization": f"Bearer {SECRET}"}}},
    )
    assert loaded.providers["acme"].headers == {"Authorization": f"Bearer {SECRET}"}
    for shown in (repr(loaded), str(loaded), f"{loaded.providers}", repr(loaded.providers["acme"])):
        assert SECRET not in shown
        assert "acme" in shown or "ProviderSettings" in shown or "wire" in shown


@pytest.mark.parametrize(
    "provider",
    [
        {"api_kye": SECRET},
        {"api_key": [SECRET]},
        {"headers": {"Authorization": [SECRET]}},
        {"headers": SECRET},
        {"api_key": SECRET, "wire": "telegraph"},
        SECRET,
    ],
)
def test_no_secret_is_shown_in_an_error_or_in_what_it_came_from(provider: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(providers={"acme": provider})
    assert SECRET not in everything_said(caught.value)
    assert "providers.acme" in str(caught.value)


def test_no_secret_is_shown_when_the_environment_cannot_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_PROVIDERS", f'{{"acme": {{"api_key": "{SECRET}"')
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert SECRET not in everything_said(caught.value)


def test_no_secret_is_shown_when_the_file_cannot_be_parsed(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", f'[providers.acme]\napi_key = "{SECRET}\n')
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(file)
    assert SECRET not in everything_said(caught.value)

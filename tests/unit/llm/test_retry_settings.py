"""Which retry settings a call gets: general, its provider's, its operation's, field by field."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.core.batch_processing import BatchKind
from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import OPERATIONS, RetrySettings, Settings

SOURCE = Path(__file__).parents[3] / "src" / "guidance_agent"

FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": st.integers(1, 20),
        "backoff_factor": st.floats(0, 10),
        "max_wait": st.floats(0, 100),
        "respect_retry_after": st.booleans(),
        "deadline": st.floats(0.1, 1_000),
    },
)


@given(FIELDS, FIELDS, FIELDS)
def test_each_field_comes_from_the_narrowest_section_that_names_it(
    general: dict[str, object], provider: dict[str, object], operation: dict[str, object]
) -> None:
    settings = Settings(
        retry=RetrySettings.model_validate(general),
        providers={"acme": {"retry": provider}},
        operations={"reasoning": {"retry": operation}},
    )
    defaults = RetrySettings().model_dump()
    assert settings.retry_for("acme", "reasoning").model_dump() == {**defaults, **general, **provider, **operation}
    assert settings.retry_for("acme", "guidance").model_dump() == {**defaults, **general, **provider}
    assert settings.retry_for("other", "reasoning").model_dump() == {**defaults, **general, **operation}
    assert settings.retry_for("other", "guidance").model_dump() == {**defaults, **general}


def test_a_field_that_is_named_with_its_default_still_wins() -> None:
    settings = Settings.load(
        retry={"max_attempts": 9},
        providers={"acme": {"retry": {"max_attempts": 7}}},
        operations={"importance": {"retry": {"max_attempts": RetrySettings().max_attempts}}},
    )
    assert settings.retry_for("acme", "importance").max_attempts == RetrySettings().max_attempts


def test_the_sections_are_read_from_file_and_environment_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        "[retry]\nmax_wait = 8.0\n"
        "[providers.acme.retry]\nmax_attempts = 5\n"
        "[operations.reasoning.retry]\nmax_attempts = 1\ndeadline = 2.0\n"
    )
    monkeypatch.setenv("GUIDANCE_OPERATIONS__REASONING__RETRY__DEADLINE", "1.5")
    monkeypatch.setenv("GUIDANCE_OPERATIONS__EMBEDDING__RETRY__RESPECT_RETRY_AFTER", "false")
    settings = Settings.load(file, operations={"embedding": {"retry": {"backoff_factor": 0.1}}})
    assert settings.retry_for("acme", "guidance") == RetrySettings(max_attempts=5, max_wait=8.0)
    assert settings.retry_for("acme", "reasoning") == RetrySettings(max_attempts=1, max_wait=8.0, deadline=1.5)
    assert settings.retry_for("other", "embedding") == RetrySettings(
        max_wait=8.0, backoff_factor=0.1, respect_retry_after=False
    )


def test_all_sections_may_stand_in_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_OPERATIONS", '{"guidance": {"retry": {"max_attempts": 6}}}')
    assert Settings.load().retry_for("acme", "guidance") == RetrySettings(max_attempts=6)


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ({"reasonning": {"retry": {"max_attempts": 1}}}, "'reasonning' is no operation. Did you mean 'reasoning'?"),
        (
            {"anthropic": {}},
            "Use one of audit, batch, calculation, check_set, completion, consolidation, doctor, embedding, gate, ",
        ),
        ({"reasoning": {"retry": {"max_attemps": 1}}}, "operations.reasoning.retry.max_attemps"),
        ({"reasoning": {"max_attempts": 1}}, "operations.reasoning.max_attempts"),
        ({"reasoning": {"retry": {"max_attempts": 0}}}, "operations.reasoning.retry.max_attempts"),
    ],
)
def test_a_section_that_would_do_nothing_is_refused_and_named(operations: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(operations=operations)
    assert said in str(caught.value)


def test_an_unknown_operation_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDANCE_OPERATIONS__GUIDENCE__RETRY__MAX_ATTEMPTS", "1")
    with pytest.raises(ConfigurationError, match="Did you mean 'guidance'"):
        Settings.load()


def test_every_operation_of_the_package_can_be_configured() -> None:
    found = {name for path in SOURCE.rglob("*.py") if "provider_simulator" not in path.parts for name in named_in(path)}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(
    "operation", ["audit", "consolidation", "insights", "reflection", BatchKind(name="x").operation]
)
def test_calls_of_a_batch_that_are_made_online_let_chats_go_first(operation: str) -> None:
    assert Settings().priority_of(operation) == "background"


def test_every_operation_is_explained() -> None:
    page = (SOURCE.parents[1] / "specs" / "configuration.md").read_text(encoding="utf-8")
    section = page.partition("## Operations")[2].partition("\n## ")[0]
    assert [name for name in OPERATIONS if f"`{name}`" not in section] == []


def named_in(path: Path) -> Iterator[str]:
    """Yield the operations that a module names: as an argument, as a default, or where it makes its requests."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.keyword(arg="operation", value=ast.Constant(value=str(name))):
                yield name
            case ast.AnnAssign(target=ast.Name(id="operation"), value=ast.Constant(value=str(name))):
                yield name
            case ast.Call(func=ast.Name(id="request"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case ast.arguments(kwonlyargs=parameters, kw_defaults=defaults):
                for parameter, default in zip(parameters, defaults, strict=True):
                    match parameter.arg, default:
                        case "operation", ast.Constant(value=str(name)):
                            yield name

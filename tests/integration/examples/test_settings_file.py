"""The example of a settings file: every setting stands in it, it is valid, and what it sets is the default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from guidance_agent.settings import Settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "guidance_agent.toml"
_commented = re.compile(r"^# ([A-Za-z0-9_-]+ = )", re.MULTILINE)


def names(owner: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting by its dotted name; a table by name has `*` for the name."""
    for name, field in owner.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        is_table = getattr(field.annotation, "__origin__", None) is dict
        if inner is not None:
            yield from names(inner, f"{prefix}{name}.{'*.' if is_table else ''}")
        else:
            yield f"{prefix}{name}{'.*' if is_table else ''}"


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def as_pattern(name: str) -> str:
    return re.escape(name).replace(r"\*", "[^.]+")


@pytest.fixture
def uncommented(tmp_path: Path) -> Path:
    """The example with everything in it switched on."""
    path = tmp_path / "all.toml"
    path.write_text(_commented.sub(r"\1", EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def test_as_it_stands_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GUIDANCE_GATE__CLOSING", "GUIDANCE_GATE__ASK"):
        monkeypatch.delenv(variable)
    shipped, defaults = Settings.load(EXAMPLE), Settings.load()
    for name in Settings.model_fields:
        if name not in ("providers", "operations"):
            assert getattr(shipped, name) == getattr(defaults, name), name
    assert shipped.retry_for("anthropic", "judge") == defaults.retry
    assert shipped.limits_for("anthropic", "claude-haiku-5-5") == defaults.limits_for("anthropic", "claude-haiku-5-5")
    assert shipped.priority_of("judge") == defaults.priority_of("judge")


def test_every_setting_stands_in_it(uncommented: Path) -> None:
    told = set(leaves(tomllib.loads(uncommented.read_text(encoding="utf-8"))))
    wanted = set(names(Settings))
    assert [name for name in sorted(wanted) if not any(re.fullmatch(as_pattern(name), each) for each in told)] == []
    assert [each for each in sorted(told) if not any(re.fullmatch(as_pattern(name), each) for name in wanted)] == []


def test_everything_that_is_commented_out_is_valid(uncommented: Path) -> None:
    loaded = Settings.load(uncommented)
    assert loaded.limits_for("anthropic", "claude-haiku-5-5").requests_per_minute == 4_000
    assert loaded.limits_for("anthropic", "claude-opus-5").requests_per_minute == 1_000
    assert loaded.retry_for("anthropic", "judge").deadline == 600


def test_what_has_a_default_is_not_commented_out() -> None:
    values = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    told = set(leaves(values))
    for name in names(Settings):
        if "*" in name or name == "data_dir":
            continue
        owner: Any = Settings.load()
        for part in name.split("."):
            owner = getattr(owner, part)
        assert (name in told) == (owner is not None), name

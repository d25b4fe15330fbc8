"""The documentation is true: its code runs, its commands parse, its links, tests, targets and settings exist.

A fenced block's first word is its language. Python runs with an open `advisor`, a `customer` and a `history` at hand,
and may `await`; SQL runs against the records of one finished turn. `no-run`, `no-rows` and `prices` after the language
say what else a block is.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import json
import re
import shlex
import sqlite3
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple, get_args

import pytest
import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import guidance_agent.errors
from guidance_agent import AdvisorAgent, CustomerProfile, Settings
from guidance_agent.cli.main import app
from guidance_agent.llm.pricing import PriceTable

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *(page for folder in ("docs/guides", "specs") for page in sorted((ROOT / folder).glob("*.md"))),
)
HISTORY = [{"role": "customer", "content": "Can I take my pension at 55?"}]


class Block(NamedTuple):
    """A fenced block; `name` tells page and line."""

    name: str
    language: str
    mark: str
    text: str


def blocks_of(path: Path) -> Iterator[Block]:
    page = path.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        line = page.count("\n", 0, found.start()) + 1
        yield Block(f"{path.relative_to(ROOT)}:{line}", *found.groups())


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


def all_of(*languages: str) -> pytest.MarkDecorator:
    chosen = [pytest.param(block, id=block.name) for block in BLOCKS if block.language in languages]
    assert chosen, f"the documentation has no block of {languages}"
    return pytest.mark.parametrize("block", chosen)


@pytest.fixture(autouse=True)
def a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user's machine without a key: what a block leaves behind stays in its own folder."""
    monkeypatch.setenv("GUIDANCE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("GUIDANCE_SIMULATOR", "instant")
    # A block ends within milliseconds: what the background would do for it later only makes its end less certain.
    monkeypatch.setenv("GUIDANCE_BACKGROUND", "false")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def customer() -> CustomerProfile:
    return CustomerProfile(customer_id="c-1042", first_name="Janet", age=56)


@all_of("python")
def test_python_runs(block: Block, customer: CustomerProfile) -> None:
    if block.mark == "no-run":
        compile(block.text, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return
    names: dict[str, Any] = {"__name__": "__main__", "customer": customer, "history": HISTORY}
    code = compile(block.text, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(awaited(code, names))
    else:
        exec(code, names)  # noqa: S102 - the documentation's own code


async def awaited(code: CodeType, names: dict[str, Any]) -> None:
    async with AdvisorAgent() as advisor:
        await eval(code, names | {"advisor": advisor})  # noqa: S307 - the documentation's own code


@all_of("sql")
def test_sql_finds_the_finished_turn(block: Block, customer: CustomerProfile, tmp_path: Path) -> None:
    turn_id = asyncio.run(finished_turn(customer))
    given = {"customer_id": customer.customer_id, "turn_id": turn_id, "simulated": 1}
    assert set(re.findall(r"(?<!\w):(\w+)", block.text)) <= given.keys()
    records = sqlite3.connect(f"file:{tmp_path / 'data' / 'guidance.db'}?mode=ro", uri=True)
    try:
        rows = records.execute(block.text, given).fetchall()
    finally:
        records.close()
    assert bool(rows) is (block.mark != "no-rows")


async def finished_turn(customer: CustomerProfile) -> str:
    async with AdvisorAgent() as advisor:
        async for _ in advisor.provide_guidance_stream(customer, HISTORY):
            pass
        async with advisor.consult(customer.model_copy(update={"presenting_question": "Is it taxed?"})) as turn:
            async for _ in turn:
                pass
        return turn.turn_id


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_are_understood(path: Path) -> None:
    group: Any = typer.main.get_command(app)
    for line in commands_of(path):
        words = shlex.split(line, comments=True)
        end = next((place for place, word in enumerate(words) if word in ("|", ">", "<", "&&")), len(words))
        context = group.make_context("guidance-agent", words[1:end])
        command, *arguments = context._protected_args + context.args
        group.commands[command].make_context(command, arguments, parent=context)


def commands_of(path: Path) -> Iterator[str]:
    """Yield the command lines of blocks and of code between words; one with `[` or `…` stands for others."""
    for block in blocks_of(path):
        if block.language in ("console", "sh"):
            yield from (line for line in block.text.splitlines() if line.startswith("guidance-agent "))
    for code in re.findall(r"`(guidance-agent [^`\n]+)`", path.read_text(encoding="utf-8")):
        if not set(code) & set("[…"):
            yield code


@all_of("toml")
def test_configuration_is_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "guidance.toml"
    path.write_text(block.text, encoding="utf-8")
    if block.mark == "prices":
        model = next(iter(tomllib.loads(block.text)))
        prices = PriceTable.load(path).prices(model)
        assert prices is not None
        assert str(path) in prices.source
    else:
        assert Settings.load(path).model_fields_set


def default_of(name: str) -> object:
    owner: type[BaseModel] = Settings
    *sections, last = name.split(".")
    for section in sections:
        annotation = owner.model_fields[section].annotation
        assert isinstance(annotation, type)
        owner = annotation
    field = owner.model_fields[last]
    return field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)


def setting_names(owner: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in owner.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from setting_names(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_is_told_with_its_default() -> None:
    page = (ROOT / "specs" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| (?:`(\w+)`|see below) \| (.+?) \|", page, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(setting_names(Settings))
    for name, variable, told in rows:
        assert variable in ("", f"GUIDANCE_{name.upper().replace('.', '__')}")
        assert told == ("`~/.local/share/guidance-agent`" if name == "data_dir" else in_words(default_of(name)))


def in_words(default: object) -> str:
    return "none" if default is None else f"`{default if isinstance(default, str) else json.dumps(default)}`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_variables_are_settings(path: Path) -> None:
    for variable in sorted(set(re.findall(r"GUIDANCE_[A-Z]+(?:_{1,2}[A-Z]+)*", path.read_text(encoding="utf-8")))):
        if variable.startswith("GUIDANCE_TEST_"):
            continue
        owner: type[BaseModel] = Settings
        levels = variable.removeprefix("GUIDANCE_").lower().split("__")
        for place, level in enumerate(levels):
            if levels[:place] == ["providers"]:
                continue
            assert level in owner.model_fields, variable
            annotation = owner.model_fields[level].annotation
            inner = next((kind for kind in (annotation, *get_args(annotation)) if _is_section(kind)), None)
            owner = inner or owner


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, titles), target


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_named_tests_files_targets_and_errors_exist(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    for name, test in re.findall(r"`((?:tests|src|benchmarks|specs|locks)/[\w./*-]+)(?:::(\w+))?`", page):
        found = list(ROOT.glob(name))
        assert found, name
        if test:
            assert f"def {test}(" in found[0].read_text(encoding="utf-8"), test
    code = "\n".join([block.text for block in blocks_of(path)] + re.findall(r"`([^`\n]+)`", page))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|[\n;&])\s*make ([a-z]+)", code)) <= targets
    for error in re.findall(r"`([A-Z]\w+Error|HistoryMismatch|StreamTruncated)`", page):
        assert hasattr(guidance_agent.errors, error) or hasattr(builtins, error), error

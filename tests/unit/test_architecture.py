"""The house: imports point downwards only, the public names are what they are, files stay readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import guidance_agent

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "guidance_agent"

FLOORS = {
    "guidance_agent.cli": 7,
    "guidance_agent.web": 7,
    "guidance_agent.testing": 7,
    "guidance_agent": 6,
    "guidance_agent.batch_runtime": 6,
    "guidance_agent.runtime": 6,
    "guidance_agent.advisor": 5,
    "guidance_agent.compliance": 5,
    "guidance_agent.learning": 5,
    "guidance_agent.core.annotation_delivery": 4,
    "guidance_agent.core.phoenix_rest": 4,
    "guidance_agent.core.phoenix_address": 4,
    "guidance_agent.core.background": 4,
    "guidance_agent.core.batch_claims": 4,
    "guidance_agent.core.batch_jobs": 4,
    "guidance_agent.core.batch_processing": 4,
    "guidance_agent.core.batch_work": 4,
    "guidance_agent.core.batches": 4,
    "guidance_agent.core.durable": 4,
    "guidance_agent.core.durable_dbos": 4,
    "guidance_agent.core.jobs": 4,
    "guidance_agent.core.journal": 4,
    "guidance_agent.core.cache_report": 4,
    "guidance_agent.core.call_report": 4,
    "guidance_agent.core.ledger": 4,
    "guidance_agent.core.limit_store": 4,
    "guidance_agent.calculators": 3,
    "guidance_agent.retrieval": 3,
    "guidance_agent.knowledge": 3,
    "guidance_agent.core.memory": 3,
    "guidance_agent.core.memory_windows": 3,
    "guidance_agent.llm": 2,
    "guidance_agent.core.annotations": 2,
    "guidance_agent.core.columns": 2,
    "guidance_agent.core.database": 2,
    "guidance_agent.core.delivered_text": 2,
    "guidance_agent.core.evidence": 2,
    "guidance_agent.core.insight_counts": 2,
    "guidance_agent.core.insight_days": 2,
    "guidance_agent.core.insight_records": 2,
    "guidance_agent.core.migrations": 2,
    "guidance_agent.core.records": 2,
    "guidance_agent.core.response_cache": 2,
    "guidance_agent.core.reviews": 2,
    "guidance_agent.core.schema": 2,
    "guidance_agent.core.schema_audit": 2,
    "guidance_agent.core.schema_insights": 2,
    "guidance_agent.core.schema_jobs": 2,
    "guidance_agent.core.schema_learning": 2,
    "guidance_agent.core.schema_limits": 2,
    "guidance_agent.core.schema_memory": 2,
    "guidance_agent.core.schema_work": 2,
    "guidance_agent.core.slots": 2,
    "guidance_agent.core.verdict_storing": 2,
    "guidance_agent.core.verdicts": 2,
    "guidance_agent.core.clock": 1,
    "guidance_agent.core.text": 1,
    "guidance_agent.core.transcript": 1,
    "guidance_agent.core.types": 1,
    "guidance_agent.core": 1,
    "guidance_agent.errors": 1,
    "guidance_agent.phoenix": 1,
    "guidance_agent.settings": 1,
    "guidance_agent.settings_faults": 1,
    "guidance_agent.tracing": 1,
}
SIMULATOR = "guidance_agent.provider_simulator"
"""Stands apart: it imports nothing of the rest; only what starts it may import it."""

MAY_START_THE_SIMULATOR = ("guidance_agent.runtime", "guidance_agent.cli", "guidance_agent.testing")
THE_PACKAGE_REGISTERS_ITS_DEFAULT = ("guidance_agent", "guidance_agent.advisor.services")
SIDES_OF_FLOOR_2 = ("guidance_agent.llm", "guidance_agent.core.")

PUBLIC_NAMES = [
    "AdvisorAgent",
    "AdvisorProfile",
    "Completed",
    "ContextRetrieved",
    "Corrected",
    "CustomerProfile",
    "Event",
    "Failed",
    "GuidanceAgentError",
    "Judged",
    "Pension",
    "PublicEvent",
    "ReasoningDelta",
    "Runtime",
    "Settings",
    "TextDelta",
    "Turn",
    "TurnStarted",
    "Withheld",
    "__version__",
    "event_from_json",
    "event_to_json",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_of(module: str) -> int | None:
    while module:
        if module in FLOORS:
            return FLOORS[module]
        module = module.rpartition(".")[0]
    return None


def is_module(name: str) -> bool:
    path = SOURCE.parent / Path(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


MODULES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_downwards_only(path: Path) -> None:
    name = module_name(path)
    targets = {target for target in imports_of(path) if target.startswith("guidance_agent") and is_module(target)}
    if name.startswith(SIMULATOR):
        assert all(target.startswith(SIMULATOR) for target in targets)
        return
    floor = floor_of(name)
    assert floor is not None, f"{name} has no floor"
    for target in targets - {"guidance_agent"}:
        if target.startswith(SIMULATOR):
            assert name.startswith(MAY_START_THE_SIMULATOR), f"{name} imports {target}"
            continue
        below = floor_of(target)
        assert below is not None, f"{target} has no floor"
        assert below <= floor, f"{name} (floor {floor}) imports {target} (floor {below})"


def test_models_and_database_do_not_know_each_other() -> None:
    for path in MODULES:
        name = module_name(path)
        targets = {target for target in imports_of(path) if is_module(target)}
        if name.startswith("guidance_agent.llm"):
            assert not {t for t in targets if t.startswith("guidance_agent.core") and floor_of(t) == 2}, name
        if floor_of(name) == 2 and name.startswith("guidance_agent.core"):
            assert not {t for t in targets if t.startswith("guidance_agent.llm")}, name


def test_providers_are_named_in_their_own_rooms_only() -> None:
    rooms = ("llm/providers", "llm/transports", "provider_simulator", "cli", "llm/endpoints.py", "llm/tokens.py")
    for path in MODULES:
        relative = path.relative_to(SOURCE).as_posix()
        if relative.startswith(rooms):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        } | {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        named = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and any(provider in node.value.lower() for provider in ("anthropic", "openai", "gemini", "ollama"))
        ]
        allowed = {"anthropic", "openai"} if relative in {"settings.py", "llm/messages.py"} else set()
        assert set(named) <= allowed, f"{relative} names a provider: {named}"


def test_the_public_names_are_these() -> None:
    assert sorted(guidance_agent.__all__) == PUBLIC_NAMES
    assert all(getattr(guidance_agent, name) is not None for name in PUBLIC_NAMES)


def test_every_file_can_be_read_in_one_sitting() -> None:
    files = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in files
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not too_long


def test_public_modules_say_what_they_export() -> None:
    for path in MODULES:
        if path.name.startswith("_") or "migrations" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__all__" in names, f"{path.relative_to(SOURCE)} has no __all__"


def test_importing_the_public_names_loads_nothing_heavy() -> None:
    program = (
        "import sys; from guidance_agent import AdvisorAgent, AdvisorProfile, CustomerProfile;"
        "heavy = {'aiohttp', 'sqlalchemy', 'numpy', 'litellm', 'openai', 'anthropic', 'fastapi', 'typer', 'rich',"
        " 'alembic', 'jinja2', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_lock_lists_are_hash_pinned_and_name_no_address() -> None:
    lists = [*(ROOT / "locks").glob("*.txt"), SOURCE / "phoenix" / "requirements.txt"]
    assert len(lists) == 3
    for path in lists:
        text = path.read_text(encoding="utf-8")
        requirements = text.replace("\\\n", " ").splitlines()
        assert requirements
        for line in requirements:
            assert not line.startswith("-"), f"{path.name}: {line}"
            assert "://" not in line
            assert " --hash=sha256:" in line, f"{path.name}: {line}"
            assert "==" in line

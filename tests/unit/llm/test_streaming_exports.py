"""The names of the package of models: all there, and cheap to ask for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import guidance_agent.llm

NAMES = [
    "Completion",
    "Cost",
    "Delta",
    "Embeddings",
    "Message",
    "ModelCall",
    "ModelGateway",
    "ModelRequest",
    "ModelStream",
    "ObservedStream",
    "Progress",
    "TextPieces",
    "Timing",
    "ToolCall",
    "ToolSpec",
    "Usage",
    "WrittenFile",
    "collect",
    "iterate_sync",
    "partial_text",
    "rechunk",
    "to_file",
    "with_callbacks",
]


def test_the_public_names_are_these() -> None:
    assert sorted(guidance_agent.llm.__all__) == NAMES
    assert all(callable(getattr(guidance_agent.llm, name)) for name in NAMES)
    assert set(NAMES) <= set(dir(guidance_agent.llm))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'collekt'"):
        guidance_agent.llm.collekt  # noqa: B018


def test_the_stream_tools_load_nothing_heavy() -> None:
    program = (
        "import sys; from guidance_agent.llm import collect, iterate_sync, rechunk, to_file, with_callbacks;"
        "heavy = {'aiohttp', 'sqlalchemy', 'numpy', 'litellm', 'pydantic', 'alembic', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

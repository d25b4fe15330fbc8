"""The names of the package of models: all there, and cheap to ask for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import guidance_agent.llm

NAMES = [
    "BatchConfig",
    "BatchErrorStrategy",
    "BatchProgress",
    "BatchRequest",
    "BatchResponse",
    "BatchResult",
    "BatchStream",
    "Completion",
    "Cost",
    "Delta",
    "Embeddings",
    "Message",
    "Model",
    "ModelAnswer",
    "ModelCall",
    "ModelGateway",
    "ModelRequest",
    "ModelStream",
    "ObservedStream",
    "Progress",
    "TextPieces",
    "Timing",
    "Tool",
    "ToolAnswer",
    "ToolCall",
    "ToolOptions",
    "ToolRun",
    "ToolSpec",
    "Usage",
    "WrittenFile",
    "batch_complete",
    "batch_complete_simple",
    "batch_complete_sync",
    "collect",
    "complete_with_tools",
    "get_model",
    "iterate_sync",
    "partial_text",
    "rechunk",
    "stream_batch",
    "stream_with_tools",
    "to_file",
    "tool",
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

"""One door to every model: requests, streams and the tools for them.

Names are loaded on first use, so that importing a part of the package costs only that part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidance_agent.llm.concurrent import (
        BatchConfig,
        BatchErrorStrategy,
        BatchProgress,
        BatchRequest,
        BatchResponse,
        BatchResult,
        BatchStream,
        batch_complete,
        batch_complete_simple,
        batch_complete_sync,
        stream_batch,
    )
    from guidance_agent.llm.gateway import Embeddings, ModelGateway
    from guidance_agent.llm.messages import (
        Completion,
        Cost,
        Delta,
        Message,
        ModelCall,
        ModelRequest,
        Timing,
        ToolCall,
        ToolSpec,
        Usage,
    )
    from guidance_agent.llm.model import Model, get_model
    from guidance_agent.llm.model_answer import ModelAnswer
    from guidance_agent.llm.model_stream import ModelStream
    from guidance_agent.llm.streaming import (
        ObservedStream,
        Progress,
        TextPieces,
        WrittenFile,
        collect,
        iterate_sync,
        partial_text,
        rechunk,
        to_file,
        with_callbacks,
    )
    from guidance_agent.llm.tool_loop import ToolAnswer, complete_with_tools, stream_with_tools
    from guidance_agent.llm.tool_runs import ToolOptions, ToolRun
    from guidance_agent.llm.tools import Tool, tool

__all__ = [
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

_HOMES = {
    "Embeddings": "gateway",
    "ModelGateway": "gateway",
    "Model": "model",
    "ModelAnswer": "model_answer",
    "ModelStream": "model_stream",
    "get_model": "model",
    **dict.fromkeys(
        [
            "BatchConfig",
            "BatchErrorStrategy",
            "BatchProgress",
            "BatchRequest",
            "BatchResponse",
            "BatchResult",
            "BatchStream",
            "batch_complete",
            "batch_complete_simple",
            "batch_complete_sync",
            "stream_batch",
        ],
        "concurrent",
    ),
    "Tool": "tools",
    "tool": "tools",
    "ToolAnswer": "tool_loop",
    "complete_with_tools": "tool_loop",
    "stream_with_tools": "tool_loop",
    "ToolOptions": "tool_runs",
    "ToolRun": "tool_runs",
    **dict.fromkeys(
        [
            "Completion",
            "Cost",
            "Delta",
            "Message",
            "ModelCall",
            "ModelRequest",
            "Timing",
            "ToolCall",
            "ToolSpec",
            "Usage",
        ],
        "messages",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'streaming')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

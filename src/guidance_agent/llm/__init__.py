"""One door to every model: requests, streams and the tools for them.

Names are loaded on first use, so that importing a part of the package costs only that part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

__all__ = [
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

_HOMES = {
    "Embeddings": "gateway",
    "ModelGateway": "gateway",
    "ModelStream": "model_stream",
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

"""Imports LiteLLM on first use, off the event loop, with everything off that a library should not do by itself.

LiteLLM costs seconds to import, reads a `.env` file and fetches its price map over the network unless told otherwise.
Variables that the user has set are left as they are.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import threading
import warnings
from typing import Any, NamedTuple

from guidance_agent.errors import MissingExtraError

__all__ = ["LiteLLMModules", "keep_quiet", "load"]

_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOG": "ERROR",
}
_TALKATIVE_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "openai", "httpx", "httpcore")
# LiteLLM ignores these about its own models, once, when it is imported.
_OWN_WARNINGS = (
    ".*conflict with protected namespace.*",
    ".*Accessing the.*attribute on the instance is deprecated.*",
    ".*`ReadOnly` qualifier.*",
)


class LiteLLMModules(NamedTuple):
    """What is imported only when LiteLLM is used: the library, and the tap that is built on its HTTP client."""

    litellm: Any
    tap: Any


# Keeps two threads from setting up the library at the same time; held for the import only.
_lock = threading.Lock()
_loaded: LiteLLMModules | None = None


async def load() -> LiteLLMModules:
    """Return the imported modules; the first call takes seconds, in a thread.

    Raises:
        MissingExtraError: when LiteLLM cannot be imported.
    """
    return _loaded if _loaded is not None else await asyncio.to_thread(_load)


def keep_quiet() -> None:
    """Ignore the warnings that LiteLLM ignores itself, again where its filters were lost since its import.

    Whoever leaves `warnings.catch_warnings` puts older filters back, even those of before an import that another thread
    finished meanwhile. Where warnings are errors, LiteLLM would then break off answers in OpenAI's format.
    """
    ignored = {
        pattern.pattern for action, pattern, *_ in warnings.filters if action == "ignore" and pattern is not None
    }
    for message in _OWN_WARNINGS:
        if message not in ignored:
            warnings.filterwarnings("ignore", message=message)


def _load() -> LiteLLMModules:
    global _loaded
    with _lock:
        if _loaded is None:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            try:
                litellm = importlib.import_module("litellm")
                tap = importlib.import_module("guidance_agent.llm.transports.litellm_tap")
            except ImportError as error:
                raise MissingExtraError(
                    f"The LiteLLM transport cannot be used: {error.name or 'litellm'!r} cannot be imported. "
                    "Install it with `pip install litellm==1.106.2`, or set GUIDANCE_TRANSPORT=native."
                ) from error
            _quieten(litellm)
            _ask_ollama_nothing(importlib.import_module("litellm.llms.ollama.common_utils"))
            _loaded = LiteLLMModules(litellm, tap)
        return _loaded


def _quieten(litellm: Any) -> None:
    litellm.suppress_debug_info = True
    # A model may well repeat itself; the guard would turn that into a server error in the middle of an answer.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize
    # At lower levels these loggers write prompts, answers and addresses; a level that was set on purpose stays.
    for name in _TALKATIVE_LOGGERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def _ask_ollama_nothing(common_utils: Any) -> None:
    """Have LiteLLM take an Ollama model for what it is used as.

    After each answer it would ask the server what the model costs, on the event loop and without await: everything else
    stands still meanwhile, for as long as that server takes.
    """

    def known(self: object, model: str, api_base: str | None = None, api_key: str | None = None) -> dict[str, Any]:
        return {
            "key": model,
            "litellm_provider": "ollama",
            "mode": "chat",
            "supports_function_calling": True,
            "input_cost_per_token": 0.0,
            "output_cost_per_token": 0.0,
            "max_tokens": None,
            "max_input_tokens": None,
            "max_output_tokens": None,
        }

    common_utils.OllamaModelInfo.get_runtime_model_info = known

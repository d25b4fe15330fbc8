"""Which batch API serves a call, imported on first use, because HTTP clients are slow to import."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from guidance_agent.errors import BatchesUnsupportedError
from guidance_agent.llm.providers.base import Endpoint
from guidance_agent.llm.transports.batches.base import BatchWire
from guidance_agent.settings import Settings

__all__ = ["THROUGH_LITELLM", "BatchWires"]

_HOMES = {
    "anthropic": ("guidance_agent.llm.transports.batches.anthropic", "AnthropicBatches"),
    "openai": ("guidance_agent.llm.transports.batches.openai", "OpenAIBatches"),
}
_LITELLM = "guidance_agent.llm.transports.batches.litellm"
THROUGH_LITELLM = frozenset({"azure", "bedrock", "hosted_vllm", "litellm_proxy", "mistral", "vertex_ai", "xai"})
"""Providers whose batch API is no copy of OpenAI's, or whose format only LiteLLM speaks."""


class BatchWires:
    """The batch APIs of a processor, each made once; closed with `aclose`.

    Args:
        settings: Whether LiteLLM is to be used for everything that it can do; None leaves that to the provider.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._transport = "auto" if settings is None else settings.transport
        self._made: dict[str, BatchWire] = {}

    async def of(self, endpoint: Endpoint) -> BatchWire:
        """Return the batch API that an endpoint speaks.

        Raises:
            BatchesUnsupportedError: none is known for it.
        """
        if self._goes_through_litellm(endpoint):
            return await self._one(f"litellm {endpoint.provider}", _LITELLM, "LiteLLMBatches", endpoint.provider)
        if endpoint.wire is None:
            raise BatchesUnsupportedError(
                f"No batch API is known for the provider {endpoint.provider!r}. Choose a model of a provider with one, "
                "or ask concurrently at the interactive price."
            )
        return await self._one(endpoint.wire, *_HOMES[endpoint.wire])

    def _goes_through_litellm(self, endpoint: Endpoint) -> bool:
        if self._transport == "native":
            return False
        # LiteLLM submits no batches to Anthropic: there its transport is no choice.
        return endpoint.provider in THROUGH_LITELLM or (self._transport == "litellm" and endpoint.wire == "openai")

    async def _one(self, name: str, module: str, kind: str, *arguments: str) -> BatchWire:
        if name not in self._made:
            imported: Any = await asyncio.to_thread(import_module, module)
            self._made.setdefault(name, getattr(imported, kind)(*arguments))
        return self._made[name]

    async def aclose(self) -> None:
        made, self._made = self._made, {}
        for wire in made.values():
            await wire.aclose()

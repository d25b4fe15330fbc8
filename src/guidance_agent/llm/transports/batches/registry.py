"""Which batch API serves a call, imported on first use, because HTTP clients are slow to import."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from guidance_agent.errors import BatchesUnsupportedError
from guidance_agent.llm.providers.base import Endpoint
from guidance_agent.llm.transports.batches.base import BatchWire

__all__ = ["BatchWires"]

_HOMES = {
    "anthropic": ("guidance_agent.llm.transports.batches.anthropic", "AnthropicBatches"),
    "openai": ("guidance_agent.llm.transports.batches.openai", "OpenAIBatches"),
}


class BatchWires:
    """The batch APIs of a processor, each made once; closed with `aclose`."""

    def __init__(self) -> None:
        self._made: dict[str, BatchWire] = {}

    async def of(self, endpoint: Endpoint) -> BatchWire:
        """Return the batch API that an endpoint speaks.

        Raises:
            BatchesUnsupportedError: none is known for it.
        """
        if endpoint.wire is None:
            raise BatchesUnsupportedError(
                f"No batch API is known for the provider {endpoint.provider!r}. Choose a model of a provider with one, "
                "or ask concurrently at the interactive price."
            )
        if endpoint.wire not in self._made:
            module, kind = _HOMES[endpoint.wire]
            imported: Any = await asyncio.to_thread(import_module, module)
            self._made.setdefault(endpoint.wire, getattr(imported, kind)())
        return self._made[endpoint.wire]

    async def aclose(self) -> None:
        made, self._made = self._made, {}
        for wire in made.values():
            await wire.aclose()

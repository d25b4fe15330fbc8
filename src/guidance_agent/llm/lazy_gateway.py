"""A gateway that is opened when it is first asked for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from guidance_agent.llm.opening import OpenedGateway, open_gateway

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = ["LazyGateway"]


class LazyGateway:
    """A gateway that is opened when it is first asked for, on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str | None, settings: Settings | None) -> None:
        """`name` is the model that is asked where none is named; None leaves it to the settings."""
        self.loop = loop
        self._name = name
        self._settings = settings
        self._stack = AsyncExitStack()
        # Holds the opening: calls that come meanwhile wait for it, and open no second one.
        self._lock = asyncio.Lock()
        self._opened: OpenedGateway | None = None

    async def opened(self) -> OpenedGateway:
        """Return the gateway, open."""
        async with self._lock:
            if self._opened is None:
                settings = self._settings
                if settings is None:
                    settings = await asyncio.to_thread(_loaded)
                if self._name is not None:
                    settings = settings.model_copy(update={"model": self._name})
                self._opened = await self._stack.enter_async_context(open_gateway(settings))
            return self._opened

    async def aclose(self) -> None:
        """Close it."""
        async with self._lock:
            self._opened = None
            await self._stack.aclose()


def _loaded() -> Settings:
    # Loaded on first use: who passes a gateway needs none.
    from guidance_agent.settings import Settings

    return Settings.load()

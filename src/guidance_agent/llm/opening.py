"""A gateway for those who hand none over: how it is opened is registered by whoever may build one.

Only the composition root knows where answers come from when no provider is set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from guidance_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.settings import Settings

__all__ = ["GatewayOpener", "LazyGateway", "OpenedGateway", "open_gateway", "register_gateway_opener"]


class OpenedGateway(NamedTuple):
    """A gateway, and the model that is asked where none is named."""

    gateway: ModelGateway
    model: str


GatewayOpener: TypeAlias = "Callable[[Settings | None], AbstractAsyncContextManager[OpenedGateway]]"

_openers: list[GatewayOpener] = []


def register_gateway_opener(opener: GatewayOpener) -> None:
    """Have `opener` make the gateways of those who have none; the last registration counts."""
    _openers.append(opener)


def open_gateway(settings: Settings | None = None) -> AbstractAsyncContextManager[OpenedGateway]:
    """Return what opens a gateway of its own, and closes it.

    Args:
        settings: None loads them from file and environment.

    Raises:
        ConfigurationError: nobody has said how; or, on entering, models and keys cannot work.
    """
    if not _openers:
        raise ConfigurationError("No gateway can be opened. Import guidance_agent first, or pass a gateway.")
    return _openers[-1](settings)


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

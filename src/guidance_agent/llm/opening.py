"""A gateway for those who hand none over: how it is opened is registered by whoever may build one.

Only the composition root knows where answers come from when no provider is set up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from guidance_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.settings import Settings

__all__ = ["GatewayOpener", "OpenedGateway", "open_gateway", "register_gateway_opener"]


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

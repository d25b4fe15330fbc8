"""Which transport serves a call, and how it is made: imported on first use, because HTTP clients are slow to import."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from guidance_agent.errors import UnknownModelError
from guidance_agent.llm.providers.base import Endpoint
from guidance_agent.llm.transports.base import PreparedCall, Transport
from guidance_agent.settings import Settings

__all__ = ["check_transport", "make_transport", "transport_name"]

_HOMES = {
    "anthropic": ("guidance_agent.llm.transports.anthropic", "AnthropicTransport"),
    "openai": ("guidance_agent.llm.transports.openai", "OpenAITransport"),
    "litellm": ("guidance_agent.llm.transports.litellm", "LiteLLMTransport"),
}


def transport_name(call: PreparedCall, settings: Settings) -> str:
    """Return the name of the transport for `call`: its wire format, or `litellm`.

    Raises:
        UnknownModelError: only native transports are allowed, and none speaks the provider's format.
    """
    check_transport(call.request.model, call.endpoint, settings)
    if settings.transport == "litellm" or call.endpoint.wire is None:
        return "litellm"
    return call.endpoint.wire


def check_transport(model: str, endpoint: Endpoint, settings: Settings) -> None:
    """Raise `UnknownModelError` when only native transports are allowed, and none speaks the provider's format."""
    if settings.transport == "native" and endpoint.wire is None:
        raise UnknownModelError(
            f"The model {model!r} has no native transport. Use GUIDANCE_TRANSPORT=auto, or set the wire format of "
            f"provider {endpoint.provider!r}."
        )


async def make_transport(name: str, settings: Settings) -> Transport:
    """Return a new transport of this name, imported off the event loop, which must not stand still that long."""
    module, kind = _HOMES[name]
    imported: Any = await asyncio.to_thread(import_module, module)
    made: Transport = getattr(imported, kind)(settings)
    return made

"""The transports under test: each wire format by our own transport and by LiteLLM.

A transport that is added is added here, and every suite that takes `SUBJECTS` runs on it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from guidance_agent.llm.gateway import ModelGateway, UsageSink
from guidance_agent.llm.transports.base import Transport
from guidance_agent.settings import Settings

__all__ = ["SUBJECTS", "Subject", "Wire", "open_gateway"]

Wire = Literal["anthropic", "openai"]

_KEYS = {"ANTHROPIC_API_KEY": "sk-ant-test-123456", "OPENAI_API_KEY": "sk-test-123456"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One transport on one wire format, with a model that speaks it."""

    wire: Wire
    transport: Literal["native", "litellm"]
    model: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.wire}"


_MODELS: Mapping[Wire, str] = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}
_TRANSPORTS: tuple[Literal["native", "litellm"], ...] = ("native", "litellm")

SUBJECTS = tuple(
    Subject(wire=wire, transport=transport, model=model) for transport in _TRANSPORTS for wire, model in _MODELS.items()
)


@asynccontextmanager
async def open_gateway(
    subject: Subject,
    base_url: str,
    *,
    sinks: Sequence[UsageSink] = (),
    transports: Mapping[str, Transport] | None = None,
    rng: random.Random | None = None,
    **settings: Any,
) -> AsyncIterator[ModelGateway]:
    """Open a gateway that reaches the subject's provider at `base_url`; one attempt unless `settings` say otherwise."""
    settings.setdefault("retry", {"max_attempts": 1})
    loaded = Settings.load(transport=subject.transport, **settings)
    environ = _KEYS | {"ANTHROPIC_BASE_URL": base_url, "OPENAI_BASE_URL": f"{base_url}/v1"}
    async with ModelGateway(loaded, environ=environ, sinks=sinks, transports=transports, rng=rng) as gateway:
        yield gateway

"""UK pension guidance, streamed from language models, with a record of everything that was said.

    from guidance_agent import AdvisorAgent, AdvisorProfile, CustomerProfile

Names are loaded on first use, so that importing the package costs little.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from guidance_agent.advisor.services import AdvisorServices, register_default_services
from guidance_agent.llm.opening import OpenedGateway, register_gateway_opener

if TYPE_CHECKING:
    from guidance_agent.advisor.agent import AdvisorAgent
    from guidance_agent.advisor.events import (
        Completed,
        ContextRetrieved,
        Corrected,
        Event,
        Failed,
        Judged,
        PublicEvent,
        ReasoningDelta,
        TextDelta,
        TurnStarted,
        Withheld,
        event_from_json,
        event_to_json,
    )
    from guidance_agent.advisor.turn import Turn
    from guidance_agent.core.types import AdvisorProfile, CustomerProfile, Pension
    from guidance_agent.errors import GuidanceAgentError
    from guidance_agent.runtime import Runtime
    from guidance_agent.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AdvisorAgent",
    "AdvisorProfile",
    "Completed",
    "ContextRetrieved",
    "Corrected",
    "CustomerProfile",
    "Event",
    "Failed",
    "GuidanceAgentError",
    "Judged",
    "Pension",
    "PublicEvent",
    "ReasoningDelta",
    "Runtime",
    "Settings",
    "TextDelta",
    "Turn",
    "TurnStarted",
    "Withheld",
    "__version__",
    "event_from_json",
    "event_to_json",
]

_HOMES = {
    "AdvisorAgent": "advisor.agent",
    "AdvisorProfile": "core.types",
    "CustomerProfile": "core.types",
    "GuidanceAgentError": "errors",
    "Pension": "core.types",
    "Runtime": "runtime",
    "Settings": "settings",
    "Turn": "advisor.turn",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'advisor.events')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _open_runtime(settings: Settings) -> AbstractAsyncContextManager[AdvisorServices]:
    from guidance_agent.runtime import Runtime

    return Runtime(settings)


def _open_gateway(settings: Settings | None) -> AbstractAsyncContextManager[OpenedGateway]:
    from guidance_agent.runtime_gateway import open_gateway_alone

    return open_gateway_alone(settings)


register_default_services(_open_runtime)
register_gateway_opener(_open_gateway)

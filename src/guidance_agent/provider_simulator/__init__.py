"""A faithful local provider over HTTP, for first runs, tests and benchmarks.

It speaks the Anthropic Messages and the OpenAI Chat Completions and Embeddings formats, both kinds of batches, keeps
prompt-cache accounts by the published rules, and fails on request. It imports nothing from the rest of the package, so
that it can judge it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidance_agent.provider_simulator.clock import Clock, ManualClock, SystemClock
    from guidance_agent.provider_simulator.faults import Fault
    from guidance_agent.provider_simulator.process import ProviderSimulatorProcess
    from guidance_agent.provider_simulator.scripts import Script
    from guidance_agent.provider_simulator.server import ProviderSimulator
    from guidance_agent.provider_simulator.settings import LatencyProfile, SimulatorSettings

__all__ = [
    "SIMULATOR_HEADER",
    "SIMULATOR_VERSION",
    "Clock",
    "Fault",
    "LatencyProfile",
    "ManualClock",
    "ProviderSimulator",
    "ProviderSimulatorProcess",
    "Script",
    "SimulatorSettings",
    "SystemClock",
]

SIMULATOR_VERSION = "1"
SIMULATOR_HEADER = "x-provider-simulator"

_HOMES = {
    "Clock": "clock",
    "Fault": "faults",
    "LatencyProfile": "settings",
    "ManualClock": "clock",
    "ProviderSimulator": "server",
    "ProviderSimulatorProcess": "process",
    "Script": "scripts",
    "SimulatorSettings": "settings",
    "SystemClock": "clock",
}


def __getattr__(name: str) -> Any:
    # The server pulls in aiohttp; who only asks for a name or a setting does not pay for it.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

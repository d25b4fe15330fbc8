"""Prompt caches."""

from __future__ import annotations

from dataclasses import dataclass

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.settings import SimulatorSettings


@dataclass(slots=True)
class CacheLease:
    use: CacheUse

    def commit(self, now: float) -> None:
        """Nothing is kept yet."""


class PromptCaches:
    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings

    def begin(self, prompt: Prompt, *, workspace: str, now: float) -> CacheLease:
        return CacheLease(CacheUse(uncached=prompt.input_tokens))

    size = 0

    def clear(self) -> None:
        """Forget everything."""

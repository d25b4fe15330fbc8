"""Ollama: models on one's own machine, which keep the evaluated start of the last prompt as long as they are loaded.

Only the order of the prompt helps: the model reuses the longest common start with what it read last. How much it reused
is not reported, nothing is billed, and there is no shortest length. The context window is set where the server is
started, so only the settings can say it.
"""

from __future__ import annotations

from dataclasses import dataclass

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.providers.base import CachePlan, ModelTraits, Profile
from guidance_agent.llm.providers.planning import measure_prompt, plan_prefix

__all__ = ["OLLAMA", "OllamaProfile"]

_TRAITS = ModelTraits(caching="prefix", native_schema=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaProfile(Profile):
    """An Ollama server, by its OpenAI-compatible interface."""

    def known_traits(self, model: str) -> ModelTraits:
        return _TRAITS

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        return plan_prefix(measure_prompt(request), self.traits(request.model.partition("/")[2]))


OLLAMA = OllamaProfile(
    name="ollama",
    wire="openai",
    default_base_url="http://127.0.0.1:11434/v1",
    key_variables=("OLLAMA_API_KEY",),
    base_url_variables=("OLLAMA_BASE_URL", "OLLAMA_API_BASE"),
    needs_key=False,
)

"""Ollama: models on one's own machine, which keep the evaluated start of the last prompt as long as they are loaded.

Only the order of the prompt helps: the model reuses the longest common start with what it read last. How much it
reused is not reported, nothing is billed, and there is no shortest length. A model stays loaded for five minutes after
its last call, or as long as `OLLAMA_KEEP_ALIVE` says where the server is started. The OpenAI-style interface ignores a
keep-alive and a context size in a request; where the options set one of them, calls go through LiteLLM, which speaks
Ollama's own interface.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.providers.base import CachePlan, ModelTraits, Profile, Wire
from guidance_agent.llm.providers.planning import SWITCHED_OFF, measure_prompt, plan_none, plan_prefix

__all__ = ["OLLAMA", "OllamaProfile"]

_OWN_INTERFACE = frozenset({"keep_alive", "num_ctx"})
_FOR_EVER = 31_536_000.0
_TRAITS = ModelTraits(caching="prefix", minimum_cache_tokens=0, native_schema=True, reports_cache=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaProfile(Profile):
    """An Ollama server, by its OpenAI-compatible interface.

    Attributes:
        keep_alive: Seconds that the server keeps a model, and so its prefix, after the last call.
    """

    keep_alive: float = 300.0
    known_options: frozenset[str] = frozenset({"seed", "keep_alive", "num_ctx"})

    def wire_for(self, options: Collection[str]) -> Wire | None:
        return None if _OWN_INTERFACE & set(options) else self.wire

    def extra_fields(self, request: ModelRequest) -> Mapping[str, Any]:
        return {name: value for name, value in self.options.items() if name == "seed" or name in _OWN_INTERFACE}

    def known_traits(self, model: str) -> ModelTraits:
        size = self.options.get("num_ctx")
        return _TRAITS if size is None else replace(_TRAITS, context_window=size)

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        traits, prompt = self.traits(request.model.partition("/")[2]), measure_prompt(request)
        if not request.use_cache:
            return plan_none(prompt, traits, note=SWITCHED_OFF, enabled=False)
        kept: float = self.options.get("keep_alive", self.keep_alive)
        return plan_prefix(prompt, traits, life=_FOR_EVER if kept < 0 else kept)


OLLAMA = OllamaProfile(
    name="ollama",
    wire="openai",
    default_base_url="http://127.0.0.1:11434/v1",
    key_variables=("OLLAMA_API_KEY",),
    base_url_variables=("OLLAMA_BASE_URL", "OLLAMA_API_BASE"),
    needs_key=False,
)

"""Gemini: implicit caching of the start of a prompt from 2.5 on, without a knob for its life.

Only the order of the prompt helps, and its shortest length of 2,048 or 4,096 tokens; LiteLLM sends the system messages
as one instruction before the conversation. A cache mark would have it make an explicit cached content instead, which
costs storage by the hour and calls of its own, and which reads do not renew: none is sent.

Safety settings say from which probability on Google withholds an answer. They are the account's unless the options set
them by category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.base import CachePlan, ModelTraits, Profile
from guidance_agent.llm.providers.models import GEMINI_MODELS, find_model, traits_from_record
from guidance_agent.llm.providers.planning import SWITCHED_OFF, measure_prompt, plan_none, plan_prefix

__all__ = ["GEMINI", "GeminiProfile"]

_UNLISTED = ModelTraits(caching="prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiProfile(Profile):
    """Google's Gemini API, which LiteLLM speaks."""

    known_options: frozenset[str] = frozenset({"seed", "safety"})

    def extra_fields(self, request: ModelRequest) -> Mapping[str, Any]:
        made: dict[str, Any] = {}
        if (seed := self.options.get("seed")) is not None:
            made["seed"] = seed
        if safety := self.options.get("safety"):
            made["safety_settings"] = [{"category": name, "threshold": safety[name]} for name in sorted(safety)]
        return made

    def known_traits(self, model: str) -> ModelTraits:
        known = find_model(GEMINI_MODELS, model)
        if known is not None:
            return known
        record = bundled_price_map().record(f"gemini/{model}")
        if record is None:
            return _UNLISTED
        # The map names every model that caches; of one that it lists without saying so there is nothing to expect.
        caches = record.get("supports_prompt_caching") is True
        return traits_from_record(record, _UNLISTED if caches else replace(_UNLISTED, caching="none"))

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        traits = self.traits(request.model.partition("/")[2])
        prompt = measure_prompt(request)
        if not request.use_cache:
            return plan_none(prompt, traits, note=SWITCHED_OFF, enabled=False)
        if traits.caching == "none":
            return plan_none(prompt, traits, note="this model does not cache")
        return plan_prefix(prompt, traits)


GEMINI = GeminiProfile(
    name="gemini",
    key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    base_url_variables=("GEMINI_BASE_URL", "GEMINI_API_BASE"),
    default_model="gemini/gemini-3.8-flash",
    fast_model="gemini/gemini-3.1-flash-lite",
    judge_model="gemini/gemini-4-argon",
)

"""Gemini: implicit caching of the start of a prompt from 2.5 on, without a knob for its life.

Explicit cached contents are not used: they cost storage by the hour and extra calls, and reads do not renew them.
"""

from __future__ import annotations

from dataclasses import dataclass

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.base import CachePlan, ModelTraits, Profile
from guidance_agent.llm.providers.models import GEMINI_MODELS, find_model, traits_from_record
from guidance_agent.llm.providers.planning import measure_prompt, plan_none, plan_prefix

__all__ = ["GEMINI", "GeminiProfile"]

_UNLISTED = ModelTraits(caching="prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiProfile(Profile):
    """Google's Gemini API, which LiteLLM speaks."""

    def known_traits(self, model: str) -> ModelTraits:
        known = find_model(GEMINI_MODELS, model)
        if known is not None:
            return known
        record = bundled_price_map().record(f"gemini/{model}")
        return _UNLISTED if record is None else traits_from_record(record, _UNLISTED)

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        traits = self.traits(request.model.partition("/")[2])
        prompt = measure_prompt(request)
        if not request.use_cache:
            note = "caching is switched off for this call; the provider may cache all the same"
            return plan_none(prompt, traits, note=note, enabled=False)
        return plan_prefix(prompt, traits)


GEMINI = GeminiProfile(
    name="gemini",
    key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    base_url_variables=("GEMINI_BASE_URL", "GEMINI_API_BASE"),
    default_model="gemini/gemini-3.8-flash",
    fast_model="gemini/gemini-3.1-flash-lite",
)

"""Anthropic: cached only at breakpoints, at most four, the long-lived ones first.

The stable parts live for an hour: a customer who thinks for ten minutes still finds them, and the parts that all
customers share are read far more often than the two times that pay for the dearer write. The conversation lives for
five minutes: its entry is read once, by the next turn, and every read renews it without charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.base import CachePlan, CacheTtl, ModelTraits, Profile
from guidance_agent.llm.providers.models import ANTHROPIC_MODELS, find_model, traits_from_record
from guidance_agent.llm.providers.planning import MOVING_PARTS, measure_prompt, plan_explicit, plan_none

__all__ = ["ANTHROPIC", "AnthropicProfile"]

# Recorded answers of Claude models count about 15 % more tokens than the estimate does.
_TOKEN_FACTOR = 1.15

# A breakpoint looks at 20 positions, its own included.
_LOOK_BACK = 19

# A model that nobody has listed is most likely new, and the new ones refuse a temperature.
_UNLISTED = ModelTraits(caching="explicit", accepts_temperature=False, limited_tokens="uncached")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicProfile(Profile):
    """Anthropic's API, or a gateway that speaks its format.

    An unlisted model is marked like the others, because a breakpoint below the minimum costs nothing; its plan says
    that the minimum is not known.
    """

    def known_traits(self, model: str) -> ModelTraits:
        known = find_model(ANTHROPIC_MODELS, model)
        if known is not None:
            return known
        record = bundled_price_map().record(model)
        if record is None or record.get("litellm_provider") != "anthropic":
            return _UNLISTED
        defaults = ModelTraits(caching="explicit", minimum_cache_tokens=None, limited_tokens="uncached")
        return traits_from_record(record, defaults)

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        traits = self.traits(request.model.partition("/")[2])
        prompt = measure_prompt(request, token_factor=_TOKEN_FACTOR)
        if not request.use_cache:
            return plan_none(prompt, traits, note="caching is switched off for this call", enabled=False)
        return plan_explicit(prompt, traits, ttl=_ttl, look_back=_LOOK_BACK)


def _ttl(part: str) -> CacheTtl:
    return "5m" if part in MOVING_PARTS else "1h"


ANTHROPIC = AnthropicProfile(
    name="anthropic",
    wire="anthropic",
    default_base_url="https://api.anthropic.com",
    key_variables=("ANTHROPIC_API_KEY",),
    base_url_variables=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"),
    default_model="anthropic/claude-sonnet-5-5",
    fast_model="anthropic/claude-haiku-5-5",
    judge_model="anthropic/claude-sonnet-5",
)

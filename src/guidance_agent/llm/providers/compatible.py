"""Providers that speak the OpenAI wire format under an address of their own, as a table, and any other by settings.

They cache the start of a prompt by themselves, if at all, and say so in the usage; vLLM says so only where it was
started with `--enable-prompt-tokens-details`, and of a server that only the settings know nobody can tell. None is sent
a cache key or a breakpoint: a server that does not know the field may refuse the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.base import CachePlan, ModelTraits, Profile, Wire
from guidance_agent.llm.providers.models import traits_from_record
from guidance_agent.llm.providers.openai_fields import openai_extra_fields
from guidance_agent.llm.providers.planning import SWITCHED_OFF, measure_prompt, plan_none, plan_prefix

__all__ = ["COMPATIBLE", "CompatibleProfile", "custom_profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleProfile(Profile):
    """A provider known by its address; what its models can do is read from the price map where they are listed."""

    native_schema: bool = False
    reports_cache: bool = True
    known_options: frozenset[str] = frozenset({"seed", "json_mode"})

    def extra_fields(self, request: ModelRequest) -> Mapping[str, Any]:
        return openai_extra_fields(self, request)

    def known_traits(self, model: str) -> ModelTraits:
        defaults = ModelTraits(caching="prefix", native_schema=self.native_schema, reports_cache=self.reports_cache)
        record = bundled_price_map().record(f"{self.name}/{model}")
        return defaults if record is None else traits_from_record(record, defaults)

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        traits, prompt = self.traits(request.model.partition("/")[2]), measure_prompt(request)
        if not request.use_cache:
            return plan_none(prompt, traits, note=SWITCHED_OFF, enabled=False)
        return plan_prefix(prompt, traits)


def _compatible(
    name: str,
    base_url: str | None,
    *,
    default: str | None = None,
    fast: str | None = None,
    keys: tuple[str, ...] = (),
    native_schema: bool = False,
    reports_cache: bool = True,
) -> CompatibleProfile:
    upper = name.upper()
    return CompatibleProfile(
        name=name,
        wire="openai",
        default_base_url=base_url,
        key_variables=(f"{upper}_API_KEY", *keys),
        base_url_variables=(f"{upper}_BASE_URL", f"{upper}_API_BASE"),
        needs_key=base_url is not None,
        default_model=default and f"{name}/{default}",
        fast_model=fast and f"{name}/{fast}",
        native_schema=native_schema,
        reports_cache=reports_cache,
    )


_PROFILES = (
    _compatible("mistral", "https://api.mistral.ai/v1", default="mistral-large-latest", fast="mistral-small-latest"),
    _compatible("groq", "https://api.groq.com/openai/v1", default="openai/gpt-oss-120b", fast="openai/gpt-oss-20b"),
    _compatible("xai", "https://api.x.ai/v1", default="grok-4.3", fast="grok-4.20-non-reasoning"),
    _compatible("deepseek", "https://api.deepseek.com/v1", default="deepseek-v4-pro", fast="deepseek-v4-flash"),
    _compatible("openrouter", "https://openrouter.ai/api/v1"),
    _compatible("together_ai", "https://api.together.xyz/v1", keys=("TOGETHERAI_API_KEY", "TOGETHER_API_KEY")),
    _compatible("fireworks_ai", "https://api.fireworks.ai/inference/v1", keys=("FIREWORKS_API_KEY",)),
    _compatible("cerebras", "https://api.cerebras.ai/v1"),
    _compatible("hosted_vllm", None, native_schema=True, reports_cache=False),
)

COMPATIBLE: Mapping[str, CompatibleProfile] = {profile.name: profile for profile in _PROFILES}


def custom_profile(name: str, wire: Wire | None) -> CompatibleProfile:
    """Return the profile of a provider that only the settings know, or that only LiteLLM speaks (`wire` None)."""
    upper = name.upper().replace("-", "_")
    return CompatibleProfile(
        name=name,
        wire=wire,
        key_variables=(f"{upper}_API_KEY",),
        base_url_variables=(f"{upper}_BASE_URL", f"{upper}_API_BASE"),
        needs_key=False,
        reports_cache=False,
    )

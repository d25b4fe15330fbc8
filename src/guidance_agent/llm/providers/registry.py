"""The providers that the package knows, in the order in which one is chosen for a user who named none."""

from __future__ import annotations

from collections.abc import Mapping

from guidance_agent.llm.providers.anthropic import ANTHROPIC, AnthropicProfile
from guidance_agent.llm.providers.base import Profile, Wire
from guidance_agent.llm.providers.compatible import COMPATIBLE, custom_profile
from guidance_agent.llm.providers.gemini import GEMINI
from guidance_agent.llm.providers.models import ANTHROPIC_MODELS, GEMINI_MODELS, OPENAI_MODELS, find_model
from guidance_agent.llm.providers.ollama import OLLAMA
from guidance_agent.llm.providers.openai import OPENAI

__all__ = [
    "HALF_PRICE_BATCHES",
    "PROFILES",
    "listed_model",
    "listed_models",
    "listed_of",
    "profile_for",
    "provider_of_model",
]

PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (ANTHROPIC, OPENAI, GEMINI, *COMPATIBLE.values(), OLLAMA)
}

HALF_PRICE_BATCHES = frozenset({ANTHROPIC.name})
"""Providers that bill every token of a batch, written to and read from a cache too, at half its price."""

_TABLES = {"anthropic": ANTHROPIC_MODELS, "openai": OPENAI_MODELS, "gemini": GEMINI_MODELS}


def profile_for(provider: str, wire: Wire | None = None) -> Profile:
    """Return the profile of `provider`; one that the package does not know gets that of the `wire` it speaks."""
    known = PROFILES.get(provider)
    if known is not None:
        return known
    custom = custom_profile(provider, wire)
    if wire != "anthropic":
        return custom
    return AnthropicProfile(
        name=provider,
        wire=wire,
        key_variables=custom.key_variables,
        base_url_variables=custom.base_url_variables,
        needs_key=False,
    )


def provider_of_model(model: str) -> str | None:
    """Return the provider of a model id without prefix, if it is listed."""
    return next((name for name, table in _TABLES.items() if find_model(table, model) is not None), None)


def listed_model(provider: str, model: str) -> bool:
    """Whether the traits of the model are known without the price map."""
    table = _TABLES.get(provider)
    return provider == "ollama" or (table is not None and find_model(table, model) is not None)


def listed_models() -> tuple[str, ...]:
    """Return the ids of all models whose traits are listed."""
    return tuple(model for table in _TABLES.values() for model in table)


def listed_of(provider: str) -> tuple[str, ...]:
    """Return the ids of the models of `provider` whose traits are listed."""
    return tuple(_TABLES.get(provider, ()))

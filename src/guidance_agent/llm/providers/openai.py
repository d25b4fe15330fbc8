"""OpenAI: two caching regimes, and a key that routes prompts with the same start to the same cache.

From GPT-5.6 on, a prefix is cached only where the prompt marks it, writing costs 1.25 times the input price, and
without a mark at the end of the stable part nothing is ever read. An entry is found only where the new prompt has a
mark too, so that the end of the conversation is marked both where it is now and where it was a turn ago. Earlier models
cache the start of a prompt by themselves.

A key should see no more than about 15 requests a minute. One key for all customers breaks that at the sixteenth; one
per consultation stays under it but makes every consultation write the parts that all of them share. So the key is the
fingerprint of the shared parts and one of a few shards, chosen by the consultation: its turns meet the same cache, and
the shared parts are written once for each shard. Four shards carry 60 requests a minute and model. A busier service
needs more of them; a quiet one reads more with fewer, since every shard has to be written again after its life.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.base import CachePlan, CacheTtl, ModelTraits, Profile
from guidance_agent.llm.providers.models import OPENAI_MODELS, find_model, traits_from_record
from guidance_agent.llm.providers.openai_fields import openai_extra_fields
from guidance_agent.llm.providers.planning import (
    MOVING_PARTS,
    PERSONAL_PARTS,
    MeasuredPrompt,
    measure_prompt,
    plan_explicit,
    plan_none,
    plan_prefix,
)

__all__ = ["OPENAI", "OpenAIProfile"]

_UNLISTED = ModelTraits(
    caching="prefix",
    minimum_cache_tokens=1024,
    accepts_temperature=False,
    max_tokens_field="max_completion_tokens",
    native_schema=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIProfile(Profile):
    """OpenAI's API.

    An unlisted model is treated as a new one of OpenAI's that caches by itself; a server of one's own belongs under
    `hosted_vllm`, `ollama` or a provider of its own in the settings, which take a temperature.
    """

    cache_keys: int = 4
    known_options: frozenset[str] = frozenset({"seed", "json_mode"})

    def extra_fields(self, request: ModelRequest) -> Mapping[str, Any]:
        return openai_extra_fields(self, request)

    def known_traits(self, model: str) -> ModelTraits:
        known = find_model(OPENAI_MODELS, model)
        if known is not None:
            return known
        record = bundled_price_map().record(model)
        if record is None or record.get("litellm_provider") != "openai":
            return _UNLISTED
        # Writes have a price only where prompts are marked; the map does not flag every such model.
        marked = record.get("cache_creation_input_token_cost") is not None
        return traits_from_record(record, replace(_UNLISTED, caching="explicit") if marked else _UNLISTED)

    def cache_plan(self, request: ModelRequest) -> CachePlan:
        traits = self.traits(request.model.partition("/")[2])
        prompt = measure_prompt(request)
        if not request.use_cache:
            return plan_none(prompt, traits, note="caching is switched off for this call", enabled=False)
        key = _cache_key(prompt, request.cache_key, self.cache_keys)
        if traits.caching == "explicit":
            return plan_explicit(prompt, traits, ttl=_ttl, look_back=0, cache_key=key)
        return plan_prefix(prompt, traits, cache_key=key)


def _ttl(part: str) -> CacheTtl:
    return "30m"


def _cache_key(prompt: MeasuredPrompt, asked: str | None, shards: int) -> str | None:
    """Return a key of at most 64 characters that equal shared parts and equal consultations share."""
    shared = [part for part in prompt.parts if part.name not in PERSONAL_PARTS]
    if not shared:
        return hashlib.sha256(asked.encode()).hexdigest()[:32] if asked else None
    steady = [part for part in prompt.parts if part.name not in MOVING_PARTS]
    spread = asked if asked is not None else steady[-1].fingerprint
    shard = int.from_bytes(hashlib.sha256(spread.encode()).digest()[:4], "big") % shards
    return f"{shared[-1].fingerprint[:32]}-{shard}"


OPENAI = OpenAIProfile(
    name="openai",
    wire="openai",
    default_base_url="https://api.openai.com/v1",
    key_variables=("OPENAI_API_KEY",),
    base_url_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    default_model="openai/gpt-6-sol",
    fast_model="openai/gpt-6-luna",
    judge_model="openai/gpt-5.6-terra",
)

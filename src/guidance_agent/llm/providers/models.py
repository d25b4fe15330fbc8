"""What is known of each model, as data.

A model is found by its exact id, then by its id without a date (`-YYYYMMDD`, `-YYYY-MM-DD`) or `-latest`, then, for a
fine-tuned OpenAI model, by the model it was made from. An id is never matched by a part of its name. What is not listed
here may still be in LiteLLM's price map; the tables hold the common models so that an answer never waits for that file.

Minimum cacheable lengths: Anthropic's prompt-caching page and OpenAI's prompt-caching guide, as of November 2026. An
older text of Anthropic's gives 4,096 tokens for Opus 4.7 and 4.8 and 2,048 for Fable 5 and Sonnet 4.6; the settings
`providers.<name>.cache_minimum_tokens` correct a single model where an account shows another limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from guidance_agent.llm.providers.base import Caching, ModelTraits

__all__ = ["ANTHROPIC_MODELS", "GEMINI_MODELS", "OPENAI_MODELS", "find_model", "traits_from_record", "undated"]

_dated = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


def _claude(minimum: int, window: int, *, temperature: bool = False, always_thinks: bool = False) -> ModelTraits:
    return ModelTraits(
        caching="explicit",
        minimum_cache_tokens=minimum,
        context_window=window,
        accepts_temperature=temperature,
        native_schema=True,
        always_thinks=always_thinks,
        limited_tokens="uncached",
    )


ANTHROPIC_MODELS: Mapping[str, ModelTraits] = {
    "claude-haiku-5-5": _claude(512, 1_000_000),
    "claude-sonnet-5-5": _claude(512, 1_000_000, always_thinks=True),
    "claude-opus-5-5": _claude(512, 1_000_000, always_thinks=True),
    "claude-opus-5": _claude(512, 1_000_000),
    "claude-fable-5": _claude(512, 1_000_000, always_thinks=True),
    "claude-fable-5-1": _claude(512, 1_000_000, always_thinks=True),
    "claude-mythos-5": _claude(512, 1_000_000, always_thinks=True),
    "claude-mythos-5-1": _claude(512, 1_000_000, always_thinks=True),
    "claude-sonnet-5": _claude(1024, 1_000_000),
    "claude-opus-4-8": _claude(1024, 1_000_000),
    "claude-sonnet-4-6": _claude(1024, 1_000_000, temperature=True),
    "claude-sonnet-4-5": _claude(1024, 200_000, temperature=True),
    "claude-opus-4-1": _claude(1024, 200_000, temperature=True),
    "claude-opus-4": _claude(1024, 200_000, temperature=True),
    "claude-opus-4-7": _claude(2048, 1_000_000),
    "claude-3-5-haiku": _claude(2048, 200_000, temperature=True),
    "claude-opus-4-6": _claude(4096, 1_000_000, temperature=True),
    "claude-opus-4-5": _claude(4096, 200_000, temperature=True),
    "claude-haiku-4-5": _claude(4096, 200_000, temperature=True),
}


def _gpt(caching: Caching, window: int, *, reasons: bool = True) -> ModelTraits:
    """A model that reasons takes no temperature but the default and names its bound `max_completion_tokens`."""
    return ModelTraits(
        caching=caching,
        minimum_cache_tokens=1024,
        context_window=window,
        accepts_temperature=not reasons,
        max_tokens_field="max_completion_tokens" if reasons else "max_tokens",
        native_schema=True,
    )


_breakpoints = _gpt("explicit", 922_000)
_prefix_long = _gpt("prefix", 1_050_000)
_prefix = _gpt("prefix", 272_000)
_o_series = _gpt("prefix", 200_000)
_gpt_4_1 = _gpt("prefix", 1_047_576, reasons=False)
_gpt_4o = _gpt("prefix", 128_000, reasons=False)

OPENAI_MODELS: Mapping[str, ModelTraits] = {
    "gpt-6.1-sol": _breakpoints,
    "gpt-6.1-terra": _breakpoints,
    "gpt-6-astra": _breakpoints,
    "gpt-6-sol": _breakpoints,
    "gpt-6-luna": _breakpoints,
    "gpt-5.6": _breakpoints,
    "gpt-5.6-sol": _breakpoints,
    "gpt-5.6-terra": _breakpoints,
    "gpt-5.6-luna": _breakpoints,
    "gpt-5.5": _prefix_long,
    "gpt-5.4": _prefix_long,
    "gpt-5.4-mini": _prefix,
    "gpt-5.4-nano": _prefix,
    "gpt-5.2": _prefix,
    "gpt-5.1": _prefix,
    "gpt-5": _prefix,
    "gpt-5-mini": _prefix,
    "gpt-5-nano": _prefix,
    "o3": _o_series,
    "o3-mini": _o_series,
    "o4-mini": _o_series,
    "gpt-4.1": _gpt_4_1,
    "gpt-4.1-mini": _gpt_4_1,
    "gpt-4.1-nano": _gpt_4_1,
    "gpt-4o": _gpt_4o,
    "gpt-4o-mini": _gpt_4o,
}


def _gemini(minimum: int, *, temperature: bool = True) -> ModelTraits:
    return ModelTraits(
        caching="prefix",
        minimum_cache_tokens=minimum,
        context_window=1_048_576,
        accepts_temperature=temperature,
        native_schema=True,
    )


GEMINI_MODELS: Mapping[str, ModelTraits] = {
    "gemini-4-argon": _gemini(4096),
    "gemini-3.8-flash": _gemini(4096, temperature=False),
    "gemini-3.7-flash": _gemini(4096, temperature=False),
    "gemini-3.6-flash": _gemini(4096, temperature=False),
    "gemini-3.5-flash": _gemini(4096),
    "gemini-3.5-flash-lite": _gemini(4096, temperature=False),
    "gemini-3.1-flash-lite": _gemini(4096),
    "gemini-3.1-flash-lite-preview": _gemini(4096),
    "gemini-3.1-pro-preview": _gemini(4096),
    "gemini-3.1-pro-preview-customtools": _gemini(4096),
    "gemini-3-flash-preview": _gemini(4096),
    "gemini-2.5-pro": _gemini(2048),
    "gemini-2.5-flash": _gemini(2048),
    "gemini-2.5-flash-lite": _gemini(2048),
}


def find_model(table: Mapping[str, ModelTraits], model: str) -> ModelTraits | None:
    """Return what `table` knows of `model`, by the rules of the module."""
    if model.startswith("ft:"):
        model = model.split(":")[1]
    return table.get(model) or table.get(undated(model))


def undated(model: str) -> str:
    """Return `model` without the date of its snapshot."""
    return _dated.sub("", model)


def traits_from_record(record: Mapping[str, Any], defaults: ModelTraits) -> ModelTraits:
    """Return `defaults` with what a record of LiteLLM's price map says; the caching regime stays the default's."""
    minimum = record.get("prompt_cache_min_tokens")
    window = record.get("max_input_tokens")
    explicit = record.get("supports_prompt_cache_breakpoint") is True
    return ModelTraits(
        caching="explicit" if explicit else defaults.caching,
        minimum_cache_tokens=int(minimum) if isinstance(minimum, int | float) else defaults.minimum_cache_tokens,
        context_window=int(window) if isinstance(window, int | float) else defaults.context_window,
        accepts_temperature=defaults.accepts_temperature and record.get("supports_sampling_params") is not False,
        max_tokens_field=defaults.max_tokens_field,
        native_schema=record.get("supports_response_schema") is True,
        always_thinks=record.get("thinking_always_on") is True,
        reports_cache=defaults.reports_cache,
        limited_tokens=defaults.limited_tokens,
    )

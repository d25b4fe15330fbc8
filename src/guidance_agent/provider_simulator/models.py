"""The models that the simulator knows: who serves them, how long a prompt may be, and how their prompt cache works."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["CacheRegime", "ModelSpec", "Wire", "known_models", "resolve_model"]

Wire = Literal["anthropic", "openai"]
CacheRegime = Literal["anthropic", "openai_breakpoints", "openai_prefix", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What the simulator must know of a model.

    `cache_minimum` is the shortest cacheable prefix in tokens. `pace` names the latency profile.
    """

    name: str
    wire: Wire
    context_window: int
    max_output: int = 64_000
    cache_minimum: int = 1_024
    regime: CacheRegime = "anthropic"
    pace: str = "author"
    dimensions: int = 0


_FAST = frozenset(
    {
        "claude-haiku-4-5",
        "claude-haiku-5-5",
        "gpt-4.1-mini",
        "gpt-4o-mini",
        "gpt-5-mini",
        "gpt-5-nano",
        "gpt-5.4-mini",
        "gpt-5.4-nano",
        "gpt-5.6-luna",
        "gpt-6-luna",
    }
)


def _claude(name: str, minimum: int, window: int = 1_000_000, max_output: int = 128_000) -> ModelSpec:
    pace = "fast" if name in _FAST else "author"
    return ModelSpec(
        name=name,
        wire="anthropic",
        context_window=window,
        max_output=max_output,
        cache_minimum=minimum,
        pace=pace,
    )


def _gpt(name: str, regime: CacheRegime, window: int, max_output: int = 128_000) -> ModelSpec:
    pace = "fast" if name in _FAST else "author"
    return ModelSpec(name=name, wire="openai", context_window=window, max_output=max_output, regime=regime, pace=pace)


def _embedding(name: str, dimensions: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        wire="openai",
        context_window=8_191,
        max_output=0,
        regime="none",
        pace="embedding",
        dimensions=dimensions,
    )


_MODELS = (
    _claude("claude-haiku-5-5", 512),
    _claude("claude-sonnet-5-5", 512),
    _claude("claude-opus-5-5", 512),
    _claude("claude-opus-5", 512),
    _claude("claude-fable-5", 512),
    _claude("claude-fable-5-1", 512),
    _claude("claude-fable-5-2", 512),
    _claude("claude-mythos-5", 512),
    _claude("claude-mythos-5-1", 512),
    _claude("claude-sonnet-5", 1_024),
    _claude("claude-sonnet-4-6", 1_024),
    _claude("claude-sonnet-4-5", 1_024, 200_000, 64_000),
    _claude("claude-opus-4-8", 1_024),
    _claude("claude-opus-4-7", 2_048),
    _claude("claude-opus-4-6", 4_096),
    _claude("claude-opus-4-5", 4_096, 200_000, 64_000),
    _claude("claude-haiku-4-5", 4_096, 200_000, 64_000),
    _gpt("gpt-6-luna", "openai_breakpoints", 922_000),
    _gpt("gpt-6-sol", "openai_breakpoints", 922_000),
    _gpt("gpt-6-astra", "openai_breakpoints", 922_000),
    _gpt("gpt-6.1-sol", "openai_breakpoints", 922_000),
    _gpt("gpt-6.1-terra", "openai_breakpoints", 922_000),
    _gpt("gpt-5.6", "openai_breakpoints", 922_000),
    _gpt("gpt-5.6-luna", "openai_breakpoints", 922_000),
    _gpt("gpt-5.6-terra", "openai_breakpoints", 922_000),
    _gpt("gpt-5.6-sol", "openai_breakpoints", 922_000),
    _gpt("gpt-5.5", "openai_prefix", 1_050_000),
    _gpt("gpt-5.4", "openai_prefix", 1_050_000),
    _gpt("gpt-5.4-mini", "openai_prefix", 272_000),
    _gpt("gpt-5.4-nano", "openai_prefix", 272_000),
    _gpt("gpt-5", "openai_prefix", 272_000),
    _gpt("gpt-5-mini", "openai_prefix", 272_000),
    _gpt("gpt-5-nano", "openai_prefix", 272_000),
    _gpt("gpt-4.1", "openai_prefix", 1_047_576, 32_768),
    _gpt("gpt-4.1-mini", "openai_prefix", 1_047_576, 32_768),
    _gpt("gpt-4o", "openai_prefix", 128_000, 16_384),
    _gpt("gpt-4o-mini", "openai_prefix", 128_000, 16_384),
    _embedding("text-embedding-3-small", 1_536),
    _embedding("text-embedding-3-large", 3_072),
)
_BY_NAME = {spec.name: spec for spec in _MODELS}
_DATED = re.compile(r"(.+)-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)")
_SCRIPTED = re.compile(r"script-(?:\d+x\d+|bytes-\d+)")


def known_models(wire: Wire, settings: SimulatorSettings) -> list[ModelSpec]:
    """The models that the list endpoint of a wire shows."""
    found = [spec for spec in _MODELS if spec.wire == wire]
    for name in settings.extra_models:
        spec = resolve_model(name, wire, settings)
        if spec is not None:
            found.append(spec)
    return found


def resolve_model(name: str, wire: Wire, settings: SimulatorSettings) -> ModelSpec | None:
    """The model that answers to `name` on this wire; dated names mean their family. None when there is none."""
    spec = _BY_NAME.get(settings.extra_models.get(name, name))
    if spec is None and (dated := _DATED.fullmatch(name)):
        spec = _BY_NAME.get(dated.group(1))
    if spec is None and (settings.any_model or _SCRIPTED.fullmatch(name)):
        spec = _BY_NAME["claude-sonnet-5-5" if wire == "anthropic" else "gpt-6-sol"]
    if spec is None or spec.wire != wire:
        return None
    return replace(
        spec,
        name=name,
        context_window=settings.context_windows.get(name, spec.context_window),
        cache_minimum=settings.cache_minimums.get(name, spec.cache_minimum),
    )

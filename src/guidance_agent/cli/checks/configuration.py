"""Checks of what was configured: settings and where each came from, keys, and the models that follow from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from guidance_agent.cli.checks.result import Check, failed, ok, warn
from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.endpoints import DefaultModels, default_models, judging_models, resolve
from guidance_agent.llm.pricing import PriceTable
from guidance_agent.llm.providers.base import Profile
from guidance_agent.llm.providers.registry import PROFILES, profile_for
from guidance_agent.settings import ProviderSettings, Settings

__all__ = ["check_cache", "check_keys", "check_models", "check_prices", "check_settings", "check_transport"]

# Their values may hold a password or a key.
_UNSHOWN = frozenset({"database_url", "providers"})


def check_settings(settings: Settings, arguments: Mapping[str, str]) -> Check:
    """Say which settings differ from the defaults and where they came from. `arguments` maps settings to options."""
    told = []
    for name in sorted(settings.model_fields_set - {"config"}):
        value = "" if name in _UNSHOWN else f" = {getattr(settings, name)}"
        told.append(f"{name}{value} ({_source(name, settings, arguments)})")
    return ok("Settings", "; ".join(told) if told else "all defaults")


def _source(name: str, settings: Settings, arguments: Mapping[str, str]) -> str:
    if name in arguments:
        return arguments[name]
    variable = f"GUIDANCE_{name.upper()}"
    found = [key for key in os.environ if key.upper() == variable or key.upper().startswith(f"{variable}__")]
    return ", ".join(sorted(found)) or _config_file(settings)


def _config_file(settings: Settings) -> str:
    candidates = (settings.config, Path("guidance.toml"), settings.data_dir / "config.toml")
    return next((str(path) for path in candidates if path is not None and path.is_file()), "config file")


def check_keys(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Say for which providers a key or an address is set, without showing any."""
    found = [
        f"{name} ({', '.join(places)})" for name in PROFILES if (places := _places(PROFILES[name], settings, environ))
    ]
    found += [f"{name} (settings)" for name in settings.providers if name not in PROFILES]
    if not found:
        return warn(
            "Keys",
            "No provider has a key or an address: answers are simulated.",
            "For a real model: export ANTHROPIC_API_KEY=… or export OPENAI_API_KEY=…, or --model ollama/….",
        )
    return ok("Keys", f"set for {', '.join(found)}")


def _places(profile: Profile, settings: Settings, environ: Mapping[str, str]) -> list[str]:
    own = settings.providers.get(profile.name, ProviderSettings())
    places = [name for name in profile.key_variables if environ.get(name, "").strip()]
    places += ["providers.api_key"] if own.api_key is not None else []
    addresses = [environ.get(name, "").strip() for name in profile.base_url_variables] + [own.base_url or ""]
    # Only the host: an address may hold a password.
    places += [f"address {urlsplit(address).hostname}" for address in addresses if address]
    return places


def check_models(settings: Settings, environ: Mapping[str, str], arguments: Mapping[str, str]) -> Check:
    """Check that the chosen models can be called, and say how they were chosen."""
    try:
        chosen = default_models(settings, environ)
        judging = judging_models(settings, environ)
        if chosen.configured:
            for model in filter(None, (chosen.author, chosen.reasoning, *judging)):
                resolve(model, settings, environ)
    except ConfigurationError as error:
        return failed("Models", error)
    how = _how_chosen(chosen, settings, environ, arguments)
    gate = f"{judging.gate} decides doubtful sentences" if judging.gate else "nobody is asked about single sentences"
    told = f"{chosen.author} answers, {chosen.reasoning} makes notes, {judging.judge} judges, {gate}; {how}"
    if judging.judge == chosen.author:
        return warn("Models", told, "The author judges its own answers: name another model in GUIDANCE_JUDGE_MODEL.")
    return ok("Models", told)


def _how_chosen(
    chosen: DefaultModels, settings: Settings, environ: Mapping[str, str], arguments: Mapping[str, str]
) -> str:
    if settings.model is not None:
        return f"named by {_source('model', settings, arguments)}"
    if not chosen.configured:
        return "played by the local simulator, because no key is set"
    profile = PROFILES[chosen.author.partition("/")[0]]
    return f"the first provider that is set up ({', '.join(_places(profile, settings, environ))})"


def check_prices(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Check that costs can be told."""
    try:
        chosen = default_models(settings, environ)
        judging = judging_models(settings, environ)
        table = PriceTable.load(settings.prices_file)
    except ConfigurationError as error:
        return failed("Prices", error)
    told, unknown = [], []
    for model in dict.fromkeys(filter(None, (chosen.author, chosen.reasoning, *judging))):
        prices = table.prices(model)
        if prices is None:
            unknown.append(model)
        else:
            told.append(f"{model} ${prices.input * 1e6:g} in, ${prices.output * 1e6:g} out per million tokens")
    if unknown:
        return warn(
            "Prices",
            f"No price is known for {', '.join(unknown)}: costs are shown as unknown.",
            "State them in a file: GUIDANCE_PRICES_FILE.",
        )
    return ok("Prices", "; ".join(told))


def check_cache(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Check that the stable parts of a prompt are long enough for the author model to cache them."""
    from guidance_agent.advisor.conversation import read_conversation
    from guidance_agent.advisor.prompts import TurnContext, build_guidance_prompt
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.core.types import AdvisorProfile
    from guidance_agent.knowledge.tax_years import tax_year
    from guidance_agent.llm.messages import ModelRequest
    from guidance_agent.testing import load_persona

    if not settings.enable_prompt_caching:
        return warn("Prompt cache", "Switched off.", "Set GUIDANCE_ENABLE_PROMPT_CACHING=true.")
    try:
        chosen = default_models(settings, environ)
        own = settings.providers.get(chosen.author.partition("/")[0], ProviderSettings())
        profile = profile_for(chosen.author.partition("/")[0], own.wire)
        profile = profile.with_overrides(own.cache_minimum_tokens, own.context_window, own.cache_keys)
    except ConfigurationError as error:
        return failed("Prompt cache", error)
    customer, today = load_persona("janet").profile, SystemClock().today()
    prompt = build_guidance_prompt(
        AdvisorProfile.default(),
        customer.prompt_values(),
        read_conversation(customer, None),
        TurnContext(today=today.isoformat(), tax_year=tax_year(today)),
    )
    plan = profile.cache_plan(ModelRequest(model=chosen.author, messages=prompt))
    parts = [part for part in plan.parts if part.index >= 0]
    length = max((part.tokens for part in parts), default=0)
    minimum = "unknown" if plan.minimum_tokens is None else f"{plan.minimum_tokens:,}"
    told = f"stable parts of about {length:,} tokens, the model's minimum is {minimum}"
    if any(part.cached for part in parts):
        return ok("Prompt cache", told)
    notes = "; ".join(dict.fromkeys(part.note for part in parts if part.note)) or "this model does not cache"
    return warn("Prompt cache", f"{told}: {notes}", "Nothing breaks; input costs its full price with this model.")


def check_transport(settings: Settings, environ: Mapping[str, str]) -> Check:
    """Say which way the author model is called, and check that the settings allow it."""
    try:
        chosen = default_models(settings, environ)
        provider = chosen.author.partition("/")[0]
        wire = settings.providers.get(provider, ProviderSettings()).wire or profile_for(provider).wire
    except ConfigurationError as error:
        return failed("Transport", error)
    if settings.transport == "native" and wire is None:
        return failed(
            "Transport",
            f"{chosen.author} has no native transport, and GUIDANCE_TRANSPORT is native.",
            "Set GUIDANCE_TRANSPORT=auto.",
        )
    used = "litellm" if settings.transport == "litellm" or wire is None else f"native ({wire} format)"
    return ok("Transport", f"{settings.transport}: {chosen.author} goes through {used}")

"""From a model name to the address, the key and the profile of its provider.

A name is `provider/model`, as LiteLLM writes it; a bare name is accepted where it is listed under a provider. Keys and
addresses come from the settings, then from the variables that the provider's own tools read. A key is needed only for
the provider's own address: a gateway or a local server may have its own ways.

Addresses are accepted with and without their version: `ANTHROPIC_BASE_URL` is commonly written without `/v1`,
`OPENAI_BASE_URL` with it, and LiteLLM's `<PROVIDER>_API_BASE` either way.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from guidance_agent.errors import ConfigurationError, MissingKeyError, UnknownModelError
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.providers.base import Endpoint, Profile, ProviderProfile, Wire
from guidance_agent.llm.providers.registry import (
    PROFILES,
    listed_model,
    listed_models,
    profile_for,
    provider_of_model,
)
from guidance_agent.settings import ProviderSettings, Settings

__all__ = [
    "DefaultModels",
    "JudgingModels",
    "Resolved",
    "default_models",
    "is_set",
    "judging_models",
    "qualified_name",
    "resolve",
    "resolve_async",
]

_version = re.compile(r"/v\d+[a-z0-9]*(?:/|$)")
_operation = re.compile(r"/(?:v1/messages|chat/completions)$")


class Resolved(NamedTuple):
    """Where a model is called, and what is known of its provider."""

    endpoint: Endpoint
    profile: ProviderProfile


class DefaultModels(NamedTuple):
    """The author and its fast companion. `configured` is False when no provider can be called without the simulator."""

    author: str
    reasoning: str
    configured: bool


class JudgingModels(NamedTuple):
    """Who judges whole answers, and who decides single sentences; `gate` is None where no fast model is set up."""

    judge: str
    gate: str | None


def resolve(model: str, settings: Settings, environ: Mapping[str, str]) -> Resolved:
    """Return the endpoint and the profile of `model`.

    For a provider that is not built in this may read LiteLLM's price map, which takes tens of milliseconds; on an event
    loop use `resolve_async`.

    Raises:
        UnknownModelError: no provider of that name, or a bare name that no provider is known for.
        MissingKeyError: the provider's own address needs a key and none is set; the message names the variable.
        ConfigurationError: an address or a key cannot be used as it is written.
    """
    provider = qualified_name(model).partition("/")[0]
    own = settings.providers.get(provider, ProviderSettings())
    profile = _profile(model, provider, own)
    options = _options(provider, profile, own)
    wire = own.wire or profile.wire_for(options)
    base_url = _base_url(profile, wire, own, environ)
    has_default = profile.default_base_url is not None and wire == profile.wire
    if wire is not None and base_url is None and not has_default:
        variable = profile.base_url_variables[0]
        raise ConfigurationError(
            f"The provider {provider!r} of model {model!r} has no address. Set {variable} or "
            f"{_setting(provider, 'base_url')}."
        )
    key = _key(profile, own, environ)
    if key is None and base_url is None and profile.needs_key:
        raise MissingKeyError(
            f"The model {model!r} needs a key of {provider}. Set {profile.key_variables[0]} or "
            f"{_setting(provider, 'api_key')}."
        )
    endpoint = Endpoint(
        provider=provider,
        base_url=base_url or profile.default_base_url,
        wire=wire,
        api_key=key,
        headers=dict(own.headers),
    )
    return Resolved(
        endpoint, profile.with_overrides(own.cache_minimum_tokens, own.context_window, own.cache_keys, options)
    )


async def resolve_async(model: str, settings: Settings, environ: Mapping[str, str]) -> Resolved:
    """Do the same as `resolve` without blocking: what the model's traits need is read in a thread, if anything."""
    provider, _, bare = model.partition("/")
    listed = listed_model(provider, bare) if bare else provider_of_model(model) is not None
    if not listed:
        await asyncio.to_thread(bundled_price_map().warm)
    return resolve(model, settings, environ)


def qualified_name(model: str) -> str:
    """Return `model` with its provider.

    Raises:
        UnknownModelError: a bare name that no provider is known for; the message names close ones.
    """
    provider, slash, bare = model.partition("/")
    if slash and provider and bare:
        return model
    found = None if slash else provider_of_model(model) or _provider_in_map(model)
    if found is None:
        close = _close(model, listed_models())
        raise UnknownModelError(
            f"No provider is known for the model {model!r}.{close} Write the name as 'provider/model', such as "
            f"'{PROFILES['anthropic'].default_model}'."
        )
    return f"{found}/{model}"


def default_models(settings: Settings, environ: Mapping[str, str]) -> DefaultModels:
    """Choose the models for a user who may have named none.

    What the settings name wins. Otherwise it is the first provider, in the order of the registry, that has default
    models and whose key or address is set.
    """
    named = None if settings.reasoning_model is None else qualified_name(settings.reasoning_model)
    if settings.model is not None:
        author = qualified_name(settings.model)
        fast = profile_for(author.partition("/")[0]).fast_model
        return DefaultModels(author, named or fast or author, True)
    usable = (profile for profile in PROFILES.values() if profile.default_model and is_set(profile, settings, environ))
    chosen = next(usable, None)
    profile = chosen or next(iter(PROFILES.values()))
    author = profile.default_model or ""
    return DefaultModels(author, named or profile.fast_model or author, chosen is not None)


def judging_models(settings: Settings, environ: Mapping[str, str]) -> JudgingModels:
    """Choose the models that judge what the author writes.

    What the settings name wins. Otherwise it is a model of the author's own provider, so that a customer's words reach
    nobody whom the settings did not choose: its judge, else its default model, and the author only where there is no
    other.
    """
    chosen = default_models(settings, environ)
    profile = profile_for(chosen.author.partition("/")[0])
    others = (model for model in (profile.judge_model, profile.default_model) if model not in (None, chosen.author))
    judge = settings.judge_model or next(others, None) or chosen.author
    fast = settings.gate_model or settings.reasoning_model or profile.fast_model
    return JudgingModels(qualified_name(judge), None if fast is None else qualified_name(fast))


def _options(provider: str, profile: Profile, own: ProviderSettings) -> dict[str, Any]:
    """Return the options that are set; one that the provider does not take would only look as if it worked."""
    named = {name: getattr(own.options, name) for name in own.options.model_fields_set}
    wanted = {name: value for name, value in named.items() if not (value is None or value is False or value == {})}
    if unknown := sorted(wanted.keys() - profile.known_options):
        taken = ", ".join(sorted(profile.known_options)) or "none"
        raise ConfigurationError(
            f"The provider {provider!r} does not take the option {unknown[0]!r}; it takes {taken}. Remove "
            f"{_setting(provider, 'options')}__{unknown[0].upper()}."
        )
    return wanted


def _profile(model: str, provider: str, own: ProviderSettings) -> Profile:
    if provider in PROFILES or own.wire is not None:
        return profile_for(provider, own.wire)
    known = bundled_price_map().providers()
    if provider not in known:
        close = _close(provider, tuple(sorted(known | PROFILES.keys())))
        raise UnknownModelError(
            f"The provider {provider!r} of model {model!r} is not known.{close} For a provider of your own set "
            f"{_setting(provider, 'wire')} and {_setting(provider, 'base_url')}."
        )
    return profile_for(provider)


def _provider_in_map(model: str) -> str | None:
    record = bundled_price_map().record(model)
    provider = None if record is None else record.get("litellm_provider")
    return provider if isinstance(provider, str) and provider in PROFILES else None


def _key(profile: Profile, own: ProviderSettings, environ: Mapping[str, str]) -> str | None:
    candidates = [(_setting(profile.name, "api_key"), own.api_key.get_secret_value() if own.api_key else "")]
    candidates += [(variable, environ.get(variable, "")) for variable in profile.key_variables]
    for source, value in candidates:
        key = value.strip()
        if not key:
            continue
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigurationError(
                f"The key in {source} holds characters that no key has, such as a space or a line break. Copy it again."
            )
        return key
    return None


def _base_url(profile: Profile, wire: Wire | None, own: ProviderSettings, environ: Mapping[str, str]) -> str | None:
    candidates = [(_setting(profile.name, "base_url"), own.base_url or "")]
    candidates += [(variable, environ.get(variable, "")) for variable in profile.base_url_variables]
    for source, value in candidates:
        if value.strip():
            return _normalised(value.strip(), wire, source)
    return None


def _normalised(url: str, wire: Wire | None, source: str) -> str:
    """Return the address as the wire's transport joins it with its paths."""
    fault = _url_fault(url)
    if fault:
        raise ConfigurationError(
            f"The address in {source} cannot be used: {fault}. Write it like 'https://gateway.example/v1'."
        )
    url = _operation.sub("", url.rstrip("/")) if wire is not None else url.rstrip("/")
    if wire == "anthropic":
        return url.removesuffix("/v1")
    if wire == "openai" and not _version.search(urlsplit(url).path):
        return f"{url}/v1"
    return url


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or password, which belong into the key"
    if parts.scheme not in ("http", "https"):
        return f"{url!r} starts with neither http:// nor https://"
    if not host:
        return f"{url!r} names no host"
    if parts.query or parts.fragment:
        return f"{url!r} has a query or a fragment"
    return None


def is_set(profile: Profile, settings: Settings, environ: Mapping[str, str]) -> bool:
    """Return whether a key or an address of the provider is set."""
    own = settings.providers.get(profile.name, ProviderSettings())
    variables = (*profile.key_variables, *profile.base_url_variables)
    return bool(own.api_key or own.base_url) or any(environ.get(variable, "").strip() for variable in variables)


def _setting(provider: str, field: str) -> str:
    return f"GUIDANCE_PROVIDERS__{provider.upper()}__{field.upper()}"


def _close(name: str, known: tuple[str, ...]) -> str:
    matches = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""

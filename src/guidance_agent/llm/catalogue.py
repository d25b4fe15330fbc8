"""Which models can be called with the keys and addresses that are set, at which price, and what they can do.

Nothing is asked over the network: the models are those that the package lists and, where it lists none, those of
LiteLLM's price map. A server of one's own serves what is loaded there, which only its owner knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.endpoints import default_models, is_set, judging_models
from guidance_agent.llm.messages import UnitPrices
from guidance_agent.llm.price_map import bundled_price_map
from guidance_agent.llm.pricing import PriceTable
from guidance_agent.llm.providers.base import ModelTraits
from guidance_agent.llm.providers.models import undated
from guidance_agent.llm.providers.registry import PROFILES, listed_of, profile_for
from guidance_agent.settings import ProviderSettings, Settings

__all__ = ["CatalogueEntry", "ProviderEntry", "model_catalogue"]

Use = Literal["answers", "makes notes", "judges", "decides sentences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One model.

    Attributes:
        model: Name with its provider, as the settings take it.
        transport: How it is called: `native` or `litellm`.
        prices: Per token, for calls below every tier; None where they are not known.
        batch_prices: The same through the provider's batch API.
        traits: What it can do.
        retires: The day after which its provider serves it no more, if that is announced.
        uses: What the present settings use it for.
    """

    model: str
    transport: Literal["native", "litellm"]
    prices: UnitPrices | None
    batch_prices: UnitPrices | None
    traits: ModelTraits
    retires: str | None = None
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEntry:
    """One provider and its models. `open_ended` says that it may serve others: those that are loaded there."""

    provider: str
    is_set: bool
    key_variable: str | None
    models: tuple[CatalogueEntry, ...]
    open_ended: bool


def model_catalogue(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    today: date,
    unset: bool = False,
    everything: bool = False,
    only: str | None = None,
) -> tuple[ProviderEntry, ...]:
    """Return the models that can be called, by provider. Reads the price map, which takes tens of milliseconds.

    Args:
        settings: Keys, addresses, transport and prices of one's own.
        environ: Where provider keys and addresses are read.
        today: Models that were retired before it are left out.
        unset: Whether providers without a key or an address are listed too.
        everything: Whether all models of the price map are listed, dated snapshots and retired ones too.
        only: The one provider that is wanted.

    Raises:
        ConfigurationError: the price file cannot be read.
    """
    prices = PriceTable.load(settings.prices_file)
    uses = _uses(settings, environ)
    names = [*PROFILES, *(name for name in settings.providers if name not in PROFILES)]
    entries = [
        _provider(name, settings, environ, prices, uses, everything=everything)
        for name in names
        if only in (None, name)
    ]
    wanted = [entry for entry in entries if unset or entry.is_set]
    return tuple(wanted if everything else (_without_retired(entry, today.isoformat()) for entry in wanted))


def _without_retired(entry: ProviderEntry, today: str) -> ProviderEntry:
    return replace(entry, models=tuple(m for m in entry.models if m.uses or not m.retires or m.retires >= today))


def _provider(
    name: str,
    settings: Settings,
    environ: Mapping[str, str],
    prices: PriceTable,
    uses: Mapping[str, tuple[Use, ...]],
    *,
    everything: bool,
) -> ProviderEntry:
    own = settings.providers.get(name, ProviderSettings())
    profile = profile_for(name, own.wire)
    options = {name: getattr(own.options, name) for name in own.options.model_fields_set}
    wire = own.wire or profile.wire_for(options)
    named = [model for model in (*uses, profile.default_model, profile.fast_model, profile.judge_model) if model]
    bare = [model.partition("/")[2] for model in named if model.startswith(f"{name}/")]
    listed = listed_of(name)
    priced = _in_map(name, dated=everything) if everything or not listed else ()
    known = list(dict.fromkeys((*listed, *priced, *bare)))
    overridden = profile.with_overrides(own.cache_minimum_tokens, own.context_window, own.cache_keys, options)
    native = wire is not None and settings.transport != "litellm"
    return ProviderEntry(
        provider=name,
        is_set=is_set(profile, settings, environ) or (name not in PROFILES and name in settings.providers),
        key_variable=next(iter(profile.key_variables), None),
        models=tuple(
            CatalogueEntry(
                model=f"{name}/{model}",
                transport="native" if native else "litellm",
                prices=prices.prices(f"{name}/{model}"),
                batch_prices=prices.prices(f"{name}/{model}", batch=True),
                traits=overridden.traits(model),
                retires=_retires(name, model),
                uses=uses.get(f"{name}/{model}", ()),
            )
            for model in known
        ),
        open_ended=not profile.needs_key or not known,
    )


def _in_map(provider: str, *, dated: bool) -> Iterator[str]:
    """Return the models of a provider that answer in a chat, as the price map names them."""
    if provider not in PROFILES or not PROFILES[provider].needs_key:
        # A local server's list in the map is an example of what may be loaded there.
        return
    price_map = bundled_price_map()
    for name in price_map.names():
        record = price_map.record(name) or {}
        if record.get("mode") != "chat" or record.get("litellm_provider") != provider:
            continue
        prefix, slash, rest = name.partition("/")
        if slash and prefix != provider:
            continue
        model = rest if slash else name
        if (dated or undated(model) == model) and not model.startswith("ft:"):
            yield model


def _retires(provider: str, model: str) -> str | None:
    price_map = bundled_price_map()
    record = price_map.record(f"{provider}/{model}") or price_map.record(model) or {}
    date = record.get("deprecation_date")
    return date if isinstance(date, str) else None


def _uses(settings: Settings, environ: Mapping[str, str]) -> dict[str, tuple[Use, ...]]:
    try:
        chosen, judging = default_models(settings, environ), judging_models(settings, environ)
    except ConfigurationError:
        # A list of what can be used is what somebody with a wrong name needs.
        return {}
    pairs: Sequence[tuple[str | None, Use]] = (
        (chosen.author, "answers"),
        (chosen.reasoning, "makes notes"),
        (judging.judge, "judges"),
        (judging.gate, "decides sentences"),
    )
    found: dict[str, tuple[Use, ...]] = {}
    for model, use in pairs:
        if model is not None and chosen.configured:
            found[model] = (*found.get(model, ()), use)
    return found

"""`guidance-agent models`: what can be called with the present keys, at which price, and what it can do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import write_output

if TYPE_CHECKING:
    from guidance_agent.llm.catalogue import CatalogueEntry, ProviderEntry
    from guidance_agent.llm.messages import UnitPrices

__all__ = ["EXAMPLES", "models"]

EXAMPLES = (
    "guidance-agent models",
    "guidance-agent models --provider openai --all",
    "guidance-agent models --json",
)
_MILLION = 1_000_000


def models(
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Only this provider, with or without a key.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also providers without a key, and all that the price map knows of each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the list as one JSON object.")] = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """List the models that can be called with the present keys, with prices and what they can do.

    Prices are US dollars per million tokens. Nothing is asked over the network.
    """
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.errors import UnknownModelError
    from guidance_agent.llm.catalogue import model_catalogue

    settings = options.load_settings(data_dir=data_dir)
    found = model_catalogue(
        settings,
        os.environ,
        today=SystemClock().today(),
        unset=everything or provider is not None,
        everything=everything,
        only=provider,
    )
    if provider is not None and not found:
        raise UnknownModelError(
            f"The provider {provider!r} is not known. Leave --provider out to see who is, with --all all of them."
        )
    if as_json:
        write_output(json.dumps({"providers": [_as_json(entry) for entry in found]}, indent=2) + "\n")
    elif not found:
        write_output(
            "No provider has a key or an address: answers are simulated. For a real model: export "
            "ANTHROPIC_API_KEY=… or export OPENAI_API_KEY=…. What there would be: guidance-agent models --all\n"
        )
    else:
        write_output("\n".join(_as_text(entry) for entry in found))
    return ExitCode.DONE


def _as_json(entry: ProviderEntry) -> dict[str, Any]:
    return {
        "provider": entry.provider,
        "usable": entry.is_set,
        "key_variable": entry.key_variable,
        "other_models": entry.open_ended,
        "models": [
            {
                "model": model.model,
                "uses": list(model.uses),
                "transport": model.transport,
                "usd_per_million": _prices(model.prices),
                "batch_usd_per_million": _prices(model.batch_prices),
                "context_window": model.traits.context_window,
                "caching": model.traits.caching,
                "minimum_cache_tokens": model.traits.minimum_cache_tokens,
                "accepts_temperature": model.traits.accepts_temperature,
                "native_schema": model.traits.native_schema,
                "always_thinks": model.traits.always_thinks,
                "retires": model.retires,
            }
            for model in entry.models
        ],
    }


def _prices(prices: UnitPrices | None) -> dict[str, float | None] | None:
    if prices is None:
        return None
    columns = {
        "input": prices.input,
        "output": prices.output,
        "cache_read": prices.cache_read,
        "cache_write_5m": prices.cache_write_5m,
        "cache_write_1h": prices.cache_write_1h,
    }
    return {name: None if price is None else round(price * _MILLION, 6) for name, price in columns.items()}


def _as_text(entry: ProviderEntry) -> str:
    state = "" if entry.is_set else f" (not set up: export {entry.key_variable}=…)"
    lines = [f"{entry.provider}{state}"]
    if entry.models:
        width = max(len(model.model) for model in entry.models)
        lines.append(
            f"  {'model':<{width}}  {'in':>8}  {'out':>8}  {'read':>8}  {'batch in/out':>15}  {'window':>10}  can"
        )
        lines += [_line(model, width) for model in entry.models]
    if entry.open_ended:
        lines.append(f"  {entry.provider}/NAME for every model that it serves")
    return "\n".join(lines) + "\n"


def _line(entry: CatalogueEntry, width: int) -> str:
    prices, batch, traits = entry.prices, entry.batch_prices, entry.traits
    told = [
        *entry.uses,
        {"explicit": "cache by breakpoints", "prefix": "cache of the beginning", "none": "no cache"}[traits.caching],
        *(["JSON Schema"] if traits.native_schema else []),
        *(["always thinks"] if traits.always_thinks else []),
        *([] if traits.accepts_temperature else ["no temperature"]),
        *(["by LiteLLM"] if entry.transport == "litellm" else []),
        *([f"retires {entry.retires}"] if entry.retires else []),
    ]
    both = "–" if batch is None else f"{_usd(batch.input)} / {_usd(batch.output)}"
    window = "–" if traits.context_window is None else f"{traits.context_window:,}"
    read = None if prices is None else prices.cache_read
    columns = (None if prices is None else prices.input, None if prices is None else prices.output, read)
    figures = "  ".join(f"{_usd(price):>8}" for price in columns)
    return f"  {entry.model:<{width}}  {figures}  {both:>15}  {window:>10}  {', '.join(told)}"


def _usd(price: float | None) -> str:
    return "–" if price is None else f"{price * _MILLION:g}"

"""What a call cost: reported usage times the unit prices of that model, tier and mode.

Prices come from the user's file, else from LiteLLM's bundled map. A model that neither knows has no price: its cost is
None, never 0. The map writes 0 for free tiers, subscriptions and local models alike; since it does not say which, a
model whose input and output are both 0 counts as unpriced too. A price file can state 0.

Rules where the map is silent, each named in `UnitPrices.source`:

- Anthropic bills a batch at half of every column, cache reads and writes included; a missing batch column is half the
  ordinary one, and so is the 1 h write, for which the map has no batch price at all.
- For other providers a missing batch cache price is the batch input price: no discount is assumed. Without a batch
price
  of input and output a batch has no price.
- Above a tier's threshold every token of the call is billed at the tier. A column without a tier of its own rises like
  the input price.
- A cache read or write without a price of its own costs what input costs; `UnitPrices` then holds None.
"""

from __future__ import annotations

import re
from asyncio import to_thread
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from guidance_agent.llm.messages import Cost, UnitPrices, Usage
from guidance_agent.llm.price_file import FilePrices, read_price_file
from guidance_agent.llm.price_map import PriceMap, bundled_price_map
from guidance_agent.llm.providers.models import undated
from guidance_agent.llm.providers.registry import HALF_PRICE_BATCHES

__all__ = ["PriceTable", "cost_of"]

_INPUT = "input_cost_per_token"
_OUTPUT = "output_cost_per_token"
_READ = "cache_read_input_token_cost"
_WRITE_5M = "cache_creation_input_token_cost"
_WRITE_1H = "cache_creation_input_token_cost_above_1hr"
_tier = re.compile(rf"{_INPUT}_above_(\d+)k_tokens")

_FAMILIES = {"bedrock": ("bedrock_converse",), "vertex_ai": ("vertex_ai-",)}
_KEPT = 256
"""For so many models what the map says of them is kept: a batch asks twice for each of its items."""


class _Listed(NamedTuple):
    """A record of the map, and the tiers whose input has a price in it: above how many thousand tokens they begin."""

    name: str
    record: Mapping[str, Any]
    tiers: tuple[int, ...]


class PriceTable:
    """Unit prices by model name. Reading the map is lazy: `await ready()` on an event loop before the first use."""

    def __init__(self, price_map: PriceMap, own: Mapping[str, FilePrices], own_source: str) -> None:
        self._map = price_map
        self._own = own
        self._own_source = own_source
        self._listed = lru_cache(maxsize=_KEPT)(self._record)
        self._unit_prices = lru_cache(maxsize=_KEPT)(self._priced)

    @classmethod
    def load(cls, prices_file: Path | None = None) -> PriceTable:
        """Return a table over the bundled map and, in front of it, the user's file.

        Raises:
            ConfigurationError: the file cannot be read or a price in it is not valid.
        """
        own = {} if prices_file is None else read_price_file(prices_file)
        return cls(bundled_price_map(), own, "" if prices_file is None else str(prices_file))

    async def ready(self) -> None:
        """Read the map in a thread, once; until then `prices` would read it where it is called."""
        if not self._map.is_warm:
            await to_thread(self._map.warm)

    def prices(self, model: str, *, total_input_tokens: int = 0, batch: bool = False) -> UnitPrices | None:
        """Return the unit prices of a call of `model`, or None where they are not known.

        Args:
            model: Name with its provider, such as `anthropic/claude-haiku-5-5`, or a bare id of the map.
            total_input_tokens: All input of the call, cached or not; decides the tier.
            batch: Whether the call goes through the provider's batch API.
        """
        own = self._own.get(model) or self._own.get(model.partition("/")[2])
        if own is not None:
            return own.unit_prices(batch=batch, source=self._own_source)
        found = self._listed(model)
        if found is None:
            return None
        tier = max((tier for tier in found.tiers if total_input_tokens > tier * 1000), default=0)
        return self._unit_prices(model, tier, batch)

    def cost(self, model: str, usage: Usage, *, batch: bool = False) -> Cost | None:
        """Return what `usage` cost, or None where the model has no price."""
        prices = self.prices(model, total_input_tokens=usage.total_input_tokens, batch=batch)
        return None if prices is None else cost_of(usage, prices)

    def _priced(self, model: str, tier: int, batch: bool) -> UnitPrices | None:
        found = self._listed(model)
        if found is None:
            return None
        source = f"{found.name} in the price map of LiteLLM {self._map.version}"
        return _unit_prices(found.record, tier=tier, batch=batch, source=source)

    def _record(self, model: str) -> _Listed | None:
        provider, slash, bare = model.partition("/")
        if not slash:
            provider, bare = "", model
        for name in dict.fromkeys((model, undated(model), bare, undated(bare))):
            record = self._map.record(name)
            if record is not None and (name.startswith(f"{provider}/") or _sells(record, provider)):
                return _Listed(name, record, _tiers(record))
        return None


def cost_of(usage: Usage, prices: UnitPrices) -> Cost:
    """Return the cost of `usage`; tokens without a price of their own are billed as input."""
    write_5m = prices.input if prices.cache_write_5m is None else prices.cache_write_5m
    usd = (
        usage.input_tokens * prices.input
        + usage.cache_read_tokens * (prices.input if prices.cache_read is None else prices.cache_read)
        + usage.cache_write_5m_tokens * write_5m
        + usage.cache_write_1h_tokens * (write_5m if prices.cache_write_1h is None else prices.cache_write_1h)
        + usage.output_tokens * prices.output
    )
    return Cost(usd, prices, estimated=usage.estimated)


def _sells(record: Mapping[str, Any], provider: str) -> bool:
    """Whether the record is of this provider: equal ids of two providers have different prices."""
    listed = str(record.get("litellm_provider", ""))
    return not provider or listed == provider or listed.startswith(_FAMILIES.get(provider, ("\0",)))


def _tiers(record: Mapping[str, Any]) -> tuple[int, ...]:
    found = ((_tier.fullmatch(key), _price(record, key)) for key in record)
    return tuple(int(match[1]) for match, price in found if match and price is not None)


def _price(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _unit_prices(record: Mapping[str, Any], *, tier: int, batch: bool, source: str) -> UnitPrices | None:
    columns = _Columns(record, tier)
    price_in, price_out = columns.ordinary(_INPUT), columns.ordinary(_OUTPUT)
    if price_in is None or price_out is None or (price_in == 0 and price_out == 0):
        return None
    if columns.tier:
        source += f", above {columns.tier}k input tokens"
    read, write_5m, write_1h = (columns.ordinary(name) for name in (_READ, _WRITE_5M, _WRITE_1H))
    if batch:
        halved = record.get("litellm_provider") in HALF_PRICE_BATCHES
        batch_in, batch_out = columns.batch(_INPUT, price_in, halved), columns.batch(_OUTPUT, price_out, halved)
        if batch_in is None or batch_out is None:
            return None
        price_in, price_out = batch_in, batch_out
        read, write_5m, write_1h = (
            None if price is None else columns.batch(name, price, halved)
            for name, price in ((_READ, read), (_WRITE_5M, write_5m), (_WRITE_1H, write_1h))
        )
        source += ", batch"
    if columns.derived:
        source += f"; derived: {', '.join(columns.derived)}"
    return UnitPrices(
        input=price_in,
        output=price_out,
        cache_read=read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        source=source,
    )


_NAMES = {
    _INPUT: "input",
    _OUTPUT: "output",
    _READ: "cache read",
    _WRITE_5M: "5 m cache write",
    _WRITE_1H: "1 h cache write",
}


class _Columns:
    """A record's columns at the tier of one call; `derived` lists those that a rule of the module made."""

    def __init__(self, record: Mapping[str, Any], tier: int) -> None:
        self._record = record
        self.derived: list[str] = []
        self.tier = tier
        self._suffix = f"_above_{self.tier}k_tokens" if self.tier else ""

    def ordinary(self, name: str) -> float | None:
        base = self._price(name)
        if base is None or not self.tier:
            return base
        price = self._price(name + self._suffix)
        if price is not None:
            return price
        self.derived.append(f"{_NAMES[name]} of the tier")
        below, above = self._price(_INPUT), self._price(_INPUT + self._suffix)
        return base * above / below if above is not None and below else base

    def batch(self, name: str, ordinary: float, halved: bool) -> float | None:
        price = self._price(f"{name}{self._suffix}_batches")
        if price is not None:
            return price
        below, base = self._price(f"{name}_batches"), self._price(name)
        if halved:
            self.derived.append(f"half of the {_NAMES[name]}")
            return ordinary / 2
        if below is not None and base:
            self.derived.append(f"{_NAMES[name]} of the tier in a batch")
            return ordinary * below / base
        return None

    def _price(self, key: str) -> float | None:
        return _price(self._record, key)

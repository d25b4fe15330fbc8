"""What all interactive calls would have cost, by model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.prices import list_price

__all__ = ["Ledger", "Tally"]


@dataclass(slots=True, kw_only=True)
class Tally:
    """Tokens and money of many requests; `unpriced` counts those whose model has no listed price."""

    requests: int = 0
    uncached: int = 0
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    output: int = 0
    usd: float = 0.0
    unpriced: int = 0

    def add(self, use: CacheUse, output_tokens: int, usd: float | None) -> None:
        self.requests += 1
        self.uncached += use.uncached
        self.read += use.read
        self.written_5m += use.written_5m
        self.written_1h += use.written_1h
        self.output += output_tokens
        self.usd += usd or 0.0
        self.unpriced += usd is None


class Ledger:
    """Running totals per model."""

    def __init__(self) -> None:
        self._models: dict[str, Tally] = {}

    def add(self, model: str, use: CacheUse, output_tokens: int) -> None:
        tally = self._models.setdefault(model, Tally())
        tally.add(use, output_tokens, list_price(model, use, output_tokens))

    def clear(self) -> None:
        self._models.clear()

    @property
    def usd(self) -> float:
        return sum(tally.usd for tally in self._models.values())

    def as_json(self) -> dict[str, Any]:
        return {model: asdict(tally) for model, tally in sorted(self._models.items())}

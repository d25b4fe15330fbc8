"""What tokens cost, so that a test can ask what its calls would have cost.

US dollars per million tokens, as the providers list them in November 2026: input, output, cache read, cache write
(Anthropic five minutes), cache write for an hour. A batch costs half of every column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from guidance_agent.provider_simulator.accounting import CacheUse

__all__ = ["BATCH_SHARE", "list_price"]

BATCH_SHARE = 0.5
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class _Rates:
    """Above `long_from` input tokens the whole request costs `long_input` and `long_output` times as much."""

    input: float
    output: float
    read: float
    write: float = 0.0
    write_hour: float = 0.0
    long_from: int | None = None
    long_input: float = 1.0
    long_output: float = 1.0


def _gpt(input: float, output: float, read: float, write: float | None = None, *, long: bool = True) -> _Rates:
    # Written tokens of the models that write for free are never reported: they are part of the input.
    return _Rates(input, output, read, input if write is None else write, 0.0, 272_000 if long else None, 2.0, 1.5)


_RATES = {
    "claude-haiku-5-5": _Rates(0.10, 0.50, 0.01, 0.125, 0.20, 100_000, 5.0, 5.0),
    "claude-haiku-4-5": _Rates(1, 5, 0.10, 1.25, 2),
    "claude-sonnet-5-5": _Rates(2, 10, 0.10, 2.50, 4),
    "claude-sonnet-5": _Rates(2, 10, 0.20, 2.50, 4),
    "claude-sonnet-4-6": _Rates(3, 15, 0.30, 3.75, 6),
    "claude-sonnet-4-5": _Rates(3, 15, 0.30, 3.75, 6),
    "claude-opus-5-5": _Rates(4, 20, 0.20, 5, 8),
    "claude-opus-5": _Rates(5, 25, 0.50, 6.25, 10),
    "claude-opus-4-8": _Rates(5, 25, 0.50, 6.25, 10),
    "claude-opus-4-7": _Rates(5, 25, 0.50, 6.25, 10),
    "claude-opus-4-6": _Rates(5, 25, 0.50, 6.25, 10),
    "claude-opus-4-5": _Rates(5, 25, 0.50, 6.25, 10),
    "claude-fable-5": _Rates(10, 50, 1.00, 12.5, 20),
    "claude-mythos-5": _Rates(10, 50, 1.00, 12.5, 20),
    "claude-fable-5-1": _Rates(10, 50, 0.25, 12.5, 20),
    "claude-mythos-5-1": _Rates(10, 50, 0.25, 12.5, 20),
    "gpt-6-luna": _gpt(0.10, 0.50, 0.01, 0.125),
    "gpt-6-sol": _gpt(2, 10, 0.20, 2.50),
    "gpt-6-astra": _gpt(10, 50, 1, 12.5),
    "gpt-6.1-sol": _gpt(2, 10, 0.10, 2.50),
    "gpt-6.1-terra": _gpt(1, 5, 0.05, 1.25),
    "gpt-5.6": _gpt(4, 20, 0.40, 5),
    "gpt-5.6-luna": _gpt(0.20, 1.20, 0.02, 0.25),
    "gpt-5.6-terra": _gpt(2, 12, 0.20, 2.50),
    "gpt-5.6-sol": _gpt(4, 20, 0.40, 5),
    "gpt-5.5": _gpt(5, 30, 0.50),
    "gpt-5.4": _gpt(2.5, 15, 0.25),
    "gpt-5.4-mini": _gpt(0.75, 4.5, 0.075, long=False),
    "gpt-5.4-nano": _gpt(0.20, 1.25, 0.02, long=False),
    "gpt-5": _gpt(1.25, 10, 0.125, long=False),
    "gpt-5-mini": _gpt(0.25, 2, 0.025, long=False),
    "gpt-5-nano": _gpt(0.05, 0.40, 0.005, long=False),
    "gpt-4.1": _gpt(2, 8, 0.50, long=False),
    "gpt-4.1-mini": _gpt(0.40, 1.60, 0.10, long=False),
    "gpt-4o": _gpt(2.50, 10, 1.25, long=False),
    "gpt-4o-mini": _gpt(0.15, 0.60, 0.075, long=False),
    "text-embedding-3-small": _gpt(0.02, 0, 0.02, long=False),
    "text-embedding-3-large": _gpt(0.13, 0, 0.13, long=False),
}
_DATED = re.compile(r"(.+)-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)")


def list_price(model: str, use: CacheUse, output_tokens: int) -> float | None:
    """US dollars of one interactive request; None for a model without a listed price."""
    rates = _RATES.get(model)
    if rates is None and (dated := _DATED.fullmatch(model)):
        rates = _RATES.get(dated.group(1))
    if rates is None:
        return None
    long = rates.long_from is not None and use.total > rates.long_from
    spent = (
        use.uncached * rates.input
        + use.read * rates.read
        + use.written_5m * rates.write
        + use.written_1h * rates.write_hour
    )
    answered = output_tokens * rates.output
    return (spent * (rates.long_input if long else 1) + answered * (rates.long_output if long else 1)) / _MILLION

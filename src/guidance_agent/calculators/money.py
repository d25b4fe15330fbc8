"""Amounts of money: exact, in pounds and pence, and refused where they are none."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from guidance_agent.errors import CalculationError

__all__ = ["amount", "pence", "share"]

_PENNY = Decimal("0.01")
_MOST = Decimal("1000000000")


def amount(value: Decimal, name: str) -> Decimal:
    """Return an amount in GBP, to the penny; raise `CalculationError` below zero or above a thousand million."""
    if not value.is_finite() or not 0 <= value <= _MOST:
        raise CalculationError(f"{name} is {value}. Give an amount in pounds between 0 and {_MOST:,}.")
    return pence(value)


def share(value: Decimal, name: str, *, most: Decimal = Decimal(100)) -> Decimal:
    """Return a percentage; raise `CalculationError` for one below zero or above `most`."""
    if not value.is_finite() or not 0 <= value <= most:
        raise CalculationError(f"{name} is {value}. Give a percentage between 0 and {most}.")
    return value


def pence(value: Decimal) -> Decimal:
    """Round to the penny, halves up."""
    return value.quantize(_PENNY, ROUND_HALF_UP)

"""What a yearly charge takes from a pot over time, all else equal."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from guidance_agent.calculators.money import amount, pence, share
from guidance_agent.errors import CalculationError

__all__ = ["ChargeEffect", "effect_of_charges"]

_MOST_YEARS = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeEffect:
    """A pot after some years with and without a charge, in GBP of the day it is then; growth is an assumption."""

    with_charge: Decimal
    without_charge: Decimal
    taken: Decimal
    taken_percent: Decimal
    years: int
    paid_in: Decimal


def effect_of_charges(
    pot: Decimal, charge_percent: Decimal, years: int, growth_percent: Decimal, yearly_contribution: Decimal
) -> ChargeEffect:
    """Compare a pot with and without a yearly charge.

    Growth is applied first and the charge is taken from what has grown, at the end of each year; contributions arrive
    at the end of a year. Inflation is left out.

    Raises:
        CalculationError: an amount, a percentage or the number of years is none.
    """
    start, paid = amount(pot, "The pot"), amount(yearly_contribution, "The yearly contribution")
    charge = share(charge_percent, "The charge", most=Decimal(20))
    if not growth_percent.is_finite() or not -50 <= growth_percent <= 50:
        raise CalculationError(f"The growth is {growth_percent}. Give a percentage between -50 and 50.")
    if not 1 <= years <= _MOST_YEARS:
        raise CalculationError(f"The time is {years} years. Give between 1 and {_MOST_YEARS} whole years.")
    grows, keeps = 1 + growth_percent / 100, 1 - charge / 100
    charged = free = start
    for _ in range(years):
        charged = charged * grows * keeps + paid
        free = free * grows + paid
    taken = free - charged
    return ChargeEffect(
        with_charge=pence(charged),
        without_charge=pence(free),
        taken=pence(taken),
        taken_percent=pence(taken / free * 100) if free else Decimal("0.00"),
        years=years,
        paid_in=pence(start + paid * years),
    )

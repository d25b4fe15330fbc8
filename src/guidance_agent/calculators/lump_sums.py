"""Tax on a lump sum from a pension: what it adds to the year's bill, and what is often taken at first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from guidance_agent.calculators.allowances import first_day_of, tax_free_part
from guidance_agent.calculators.income_tax import Nation, income_tax, rates_for
from guidance_agent.calculators.money import amount, pence
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.knowledge.tax_years import tax_year

__all__ = ["LumpSumTax", "emergency_tax", "tax_on_lump_sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LumpSumTax:
    """What a lump sum is taxed, in GBP.

    Attributes:
        tax: What the lump sum adds to the income tax of the year.
        net: The lump sum without that.
        first_deduction: What a provider without a tax code for the person takes at first, by the emergency code for one
            month; the difference to `tax` is settled or claimed back later.
    """

    lump_sum: Decimal
    tax_free: Decimal
    taxable: Decimal
    tax: Decimal
    net: Decimal
    first_deduction: Decimal
    tax_year: str
    nation: Nation
    sources: tuple[str, ...]


def tax_on_lump_sum(
    knowledge: Knowledge,
    lump_sum: Decimal,
    other_income: Decimal,
    year: str,
    nation: Nation,
    allowance_used: Decimal,
    today: date,
) -> LumpSumTax:
    """Work out the tax on a lump sum of which a part is tax-free, as on taking a whole pot or a part of it in one go.

    Raises:
        CalculationError: an amount is none, or the year's figures are not known here.
    """
    whole, other = amount(lump_sum, "The lump sum"), amount(other_income, "Other income")
    day = today if tax_year(today) == year else first_day_of(year)
    part = tax_free_part(knowledge, day, whole, allowance_used)
    before = income_tax(other, year, nation)
    tax = income_tax(other + part.taxable, year, nation).tax - before.tax
    return LumpSumTax(
        lump_sum=whole,
        tax_free=part.tax_free,
        taxable=part.taxable,
        tax=tax,
        net=whole - tax,
        first_deduction=emergency_tax(part.taxable, year, nation),
        tax_year=year,
        nation=nation,
        sources=(*part.sources, f"Income tax bands: {before.source}"),
    )


def emergency_tax(taxable: Decimal, year: str, nation: Nation) -> Decimal:
    """Return what the emergency code takes of a payment: a twelfth of the allowance and of each band is used.

    The tables that payroll uses round a little differently, by pounds at most.
    """
    rates = rates_for(year, nation)
    left = max(Decimal(0), taxable - rates.personal_allowance / 12)
    tax, lower = Decimal(0), Decimal(0)
    for limit, rate in rates.bands:
        upper = left if limit is None else min(left, limit / 12)
        if upper > lower:
            tax += (upper - lower) * rate / 100
            lower = upper
    return pence(tax)

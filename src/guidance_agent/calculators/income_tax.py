"""Income tax by band, for a tax year and a nation of the UK."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_UP, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from guidance_agent.calculators.money import amount, pence
from guidance_agent.errors import CalculationError
from guidance_agent.knowledge.tax_years import tax_year, tax_year_dates

__all__ = ["IncomeTax", "Nation", "TaxRates", "income_tax", "rates_for"]

Nation = Literal["england_wales_ni", "scotland"]


class TaxRates(BaseModel):
    """The bands of one nation while they hold; limits in GBP of taxable income, rates in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nation: Nation
    effective_from: date
    valid_until: date
    personal_allowance: Decimal
    taper_from: Decimal
    bands: tuple[tuple[Decimal | None, Decimal], ...]
    source: str
    url: str

    def allowance(self, income: Decimal) -> Decimal:
        """Return the personal allowance that this income leaves, in whole pounds."""
        over = max(Decimal(0), income - self.taper_from)
        left = max(Decimal(0), self.personal_allowance - over / 2)
        return left.quantize(Decimal(1), ROUND_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomeTax:
    """Tax on a year's income, in GBP; `by_rate` has (rate in percent, income taxed at it, tax)."""

    income: Decimal
    tax_year: str
    nation: Nation
    personal_allowance: Decimal
    tax: Decimal
    by_rate: tuple[tuple[Decimal, Decimal, Decimal], ...]
    source: str


def income_tax(income: Decimal, year: str, nation: Nation = "england_wales_ni") -> IncomeTax:
    """Work out a year's income tax on earnings and pensions.

    Args:
        income: The whole taxable income of the year in GBP, other than savings interest and dividends.
        year: As `2026/27`.
        nation: Where the taxpayer lives.

    Raises:
        CalculationError: the income is no amount, the year is none, or its rates are not known here.
    """
    given = amount(income, "The income")
    rates = rates_for(year, nation)
    allowance = rates.allowance(given)
    taxable, lower = max(Decimal(0), given - allowance), Decimal(0)
    by_rate = []
    for limit, rate in rates.bands:
        upper = taxable if limit is None else min(taxable, limit)
        if upper > lower:
            by_rate.append((rate, upper - lower, pence((upper - lower) * rate / 100)))
            lower = upper
    return IncomeTax(
        income=given,
        tax_year=year,
        nation=nation,
        personal_allowance=min(allowance, given),
        tax=sum((tax for _, _, tax in by_rate), Decimal("0.00")),
        by_rate=tuple(by_rate),
        source=f"{rates.source} ({rates.url})",
    )


def rates_for(year: str, nation: Nation) -> TaxRates:
    """Return the rates of a tax year; raise `CalculationError` where they are not known here."""
    try:
        first, _ = tax_year_dates(year)
    except ValueError as error:
        raise CalculationError(f"{year!r} is no tax year. Write it as '2026/27'.") from error
    for rates in _all_rates():
        if rates.nation == nation and rates.effective_from <= first <= rates.valid_until:
            return rates
    known = [rates for rates in _all_rates() if rates.nation == nation]
    years = f"{tax_year(known[0].effective_from)} to {tax_year(known[-1].valid_until)}"
    raise CalculationError(f"The income tax rates of {nation} for {year} are not known here; those for {years} are.")


@lru_cache(maxsize=1)
def _all_rates() -> tuple[TaxRates, ...]:
    text = (Path(__file__).parent / "income_tax.yaml").read_text(encoding="utf-8")
    return tuple(TypeAdapter(list[TaxRates]).validate_python(yaml.safe_load(text)))

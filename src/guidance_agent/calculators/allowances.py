"""Allowances for what goes into a pension, and for what comes out of it tax-free, from the dated figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_UP, Decimal

from guidance_agent.calculators.money import amount, pence
from guidance_agent.errors import CalculationError
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.knowledge.records import Figure
from guidance_agent.knowledge.tax_years import tax_year, tax_year_dates

__all__ = ["AnnualAllowance", "DatedFigures", "TaxFreePart", "annual_allowance", "first_day_of", "tax_free_part"]


class DatedFigures:
    """The figures in force on a day, and what was used of them."""

    def __init__(self, knowledge: Knowledge, day: date) -> None:
        self.day = day
        self._knowledge = knowledge
        self._figures = {figure.id: figure for figure in knowledge.figures_on(day)}
        self._used: list[Figure] = []

    def value(self, figure_id: str) -> Decimal:
        """Return a figure's value; raise `CalculationError` where none is on record for the day."""
        figure = self._figures.get(figure_id)
        if figure is None:
            raise CalculationError(f"No figure {figure_id!r} is on record for {self.day}. Ask about another tax year.")
        self._used.append(figure)
        return figure.value

    @property
    def sources(self) -> tuple[str, ...]:
        """What was used, each with its value and the source of its fact."""
        told = (f"{figure.name}: {figure.text} ({self._knowledge.get(figure.fact).source})" for figure in self._used)
        return tuple(dict.fromkeys(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnualAllowance:
    """How much may go into pensions in a tax year without a charge, in GBP.

    Attributes:
        allowance: For all contributions, tapered where the incomes ask for it, without carry forward.
        money_purchase: The lower limit for money purchase contributions after flexible access; None without it.
        alternative: What is left for other contributions then; None without it.
        carried_forward: What the three years before left unused; it does not raise `money_purchase`.
        total: `allowance` and `carried_forward`; after flexible access not for money purchase contributions.
    """

    tax_year: str
    allowance: Decimal
    tapered: bool
    money_purchase: Decimal | None
    alternative: Decimal | None
    carried_forward: Decimal
    total: Decimal
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxFreePart:
    """What of a pot can normally be paid tax-free, in GBP; protections of a person or a scheme are left out."""

    pot: Decimal
    tax_free: Decimal
    taxable: Decimal
    allowance_left: Decimal
    limited_by_allowance: bool
    sources: tuple[str, ...]


def annual_allowance(
    knowledge: Knowledge,
    year: str,
    threshold_income: Decimal,
    adjusted_income: Decimal,
    flexibly_accessed: bool,
    unused: Sequence[Decimal],
) -> AnnualAllowance:
    """Work out the annual allowance of a tax year.

    Raises:
        CalculationError: an amount is none, more years are carried forward than may be, or the year is not on record.
    """
    figures = DatedFigures(knowledge, first_day_of(year))
    threshold, adjusted = amount(threshold_income, "The threshold income"), amount(adjusted_income, "Adjusted income")
    full = figures.value("annual-allowance")
    allowance = full
    if threshold > figures.value("taper-threshold-income") and adjusted > figures.value("taper-adjusted-income"):
        over = adjusted - figures.value("taper-adjusted-income")
        # What is taken off is rounded down to whole pounds, so what is left is rounded up.
        allowance = (full - over / 2).quantize(Decimal(1), ROUND_UP)
        allowance = max(allowance, figures.value("taper-floor"))
    years = int(figures.value("carry-forward-years"))
    if len(unused) > years:
        raise CalculationError(f"{len(unused)} years are carried forward. Give what at most {years} left unused.")
    carried = sum((amount(each, "Unused allowance") for each in unused), Decimal("0.00"))
    limit = figures.value("money-purchase-annual-allowance") if flexibly_accessed else None
    return AnnualAllowance(
        tax_year=year,
        allowance=pence(allowance),
        tapered=allowance < full,
        money_purchase=None if limit is None else pence(limit),
        alternative=None if limit is None else pence(max(Decimal(0), allowance - limit)),
        carried_forward=carried,
        total=pence(allowance + carried),
        sources=figures.sources,
    )


def tax_free_part(knowledge: Knowledge, day: date, pot: Decimal, allowance_used: Decimal) -> TaxFreePart:
    """Work out what of a pot can normally be paid tax-free on a day.

    Raises:
        CalculationError: an amount is none, or the day's figures are not on record.
    """
    figures = DatedFigures(knowledge, day)
    whole, used = amount(pot, "The pot"), amount(allowance_used, "The allowance used")
    part = whole * figures.value("tax-free-share") / 100
    left = max(Decimal(0), figures.value("lump-sum-allowance") - used)
    tax_free = pence(min(part, left))
    return TaxFreePart(
        pot=whole,
        tax_free=tax_free,
        taxable=whole - tax_free,
        allowance_left=pence(left - tax_free),
        limited_by_allowance=left < part,
        sources=figures.sources,
    )


def first_day_of(year: str) -> date:
    """Return the first day of a tax year; raise `CalculationError` for a label that is none."""
    try:
        first, _ = tax_year_dates(year)
    except ValueError as error:
        raise CalculationError(f"{year!r} is no tax year. Write it as {tax_year(date(2026, 4, 6))!r}.") from error
    return first

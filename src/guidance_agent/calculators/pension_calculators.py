"""The calculators as a set, each callable by a program or offered to a model as a tool."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

from guidance_agent.calculators.allowances import AnnualAllowance, TaxFreePart, annual_allowance, tax_free_part
from guidance_agent.calculators.charges import ChargeEffect, effect_of_charges
from guidance_agent.calculators.income_tax import Nation
from guidance_agent.calculators.lump_sums import LumpSumTax, tax_on_lump_sum
from guidance_agent.calculators.state_pension_age import StatePensionAge, state_pension_age
from guidance_agent.knowledge.loader import Knowledge, load_knowledge
from guidance_agent.knowledge.tax_years import tax_year

__all__ = ["PensionCalculators"]


class PensionCalculators:
    """Sums about pensions by the figures of a day.

    Args:
        knowledge: Where allowances and limits come from; None takes those of the package.
        today: The day; figures of its tax year are used where none is named.
    """

    def __init__(self, knowledge: Knowledge | None = None, *, today: date) -> None:
        self._knowledge = knowledge or load_knowledge()
        self._today = today

    @property
    def tools(self) -> tuple[Callable[..., Any], ...]:
        """The calculators, as functions whose signatures and docstrings say what they take."""
        return (
            self.tax_on_lump_sum,
            self.tax_free_part,
            self.annual_allowance,
            self.state_pension_age,
            self.effect_of_charges,
        )

    def tax_on_lump_sum(
        self,
        lump_sum: Decimal,
        other_income: Decimal,
        year: str | None = None,
        nation: Nation = "england_wales_ni",
        lump_sum_allowance_used: Decimal = Decimal(0),
    ) -> LumpSumTax:
        """Income tax on a lump sum from a defined contribution pension, of which normally a quarter is tax-free.

        Source: Income Tax (Earnings and Pensions) Act 2003, section 636A; HMRC, tax on a private pension.

        Args:
            lump_sum: The whole lump sum in pounds.
            other_income: All other taxable income of that tax year in pounds, other than savings and dividends.
            year: The tax year, such as 2026/27; the present one where it is left out.
            nation: Where the person pays income tax.
            lump_sum_allowance_used: Tax-free lump sums taken before, in pounds.
        """
        return tax_on_lump_sum(
            self._knowledge,
            lump_sum,
            other_income,
            year or tax_year(self._today),
            nation,
            lump_sum_allowance_used,
            self._today,
        )

    def tax_free_part(self, pot: Decimal, lump_sum_allowance_used: Decimal = Decimal(0)) -> TaxFreePart:
        """What of a defined contribution pot can normally be taken tax-free, within the lump sum allowance.

        Source: Finance Act 2004, schedule 29; Finance Act 2024, schedule 9.

        Args:
            pot: The pot in pounds.
            lump_sum_allowance_used: Tax-free lump sums taken before, in pounds.
        """
        return tax_free_part(self._knowledge, self._today, pot, lump_sum_allowance_used)

    def annual_allowance(
        self,
        threshold_income: Decimal = Decimal(0),
        adjusted_income: Decimal = Decimal(0),
        flexibly_accessed: bool = False,
        unused_of_three_years_before: list[Decimal] | None = None,
        year: str | None = None,
    ) -> AnnualAllowance:
        """How much may go into pensions in a tax year without an annual allowance charge: taper, MPAA, carry forward.

        Source: Finance Act 2004, sections 227 to 228ZA.

        Args:
            threshold_income: Net income of the year in pounds, without what was paid into pensions.
            adjusted_income: That income with all pension contributions, the employer's too, in pounds.
            flexibly_accessed: Whether taxable money was taken flexibly from a pension before.
            unused_of_three_years_before: Allowance left unused in each of at most three years before, in pounds.
            year: The tax year, such as 2026/27; the present one where it is left out.
        """
        return annual_allowance(
            self._knowledge,
            year or tax_year(self._today),
            threshold_income,
            adjusted_income,
            flexibly_accessed,
            unused_of_three_years_before or [],
        )

    def state_pension_age(self, date_of_birth: date) -> StatePensionAge:
        """When somebody reaches State Pension age under the law as it stands.

        Source: Pensions Act 1995, schedule 4, as amended by the Pensions Acts 2007, 2011 and 2014.

        Args:
            date_of_birth: As YYYY-MM-DD.
        """
        return state_pension_age(date_of_birth)

    def effect_of_charges(
        self,
        pot: Decimal,
        charge_percent: Decimal,
        years: int,
        growth_percent: Decimal = Decimal(5),
        yearly_contribution: Decimal = Decimal(0),
    ) -> ChargeEffect:
        """What a yearly charge takes from a pot over time, all else equal; growth is an assumption and not a forecast.

        Source: compound interest; the charge is taken at the end of each year from what has grown.

        Args:
            pot: The pot today in pounds.
            charge_percent: The yearly charge in percent, such as 0.75.
            years: Whole years.
            growth_percent: Assumed growth of a year before charges in percent.
            yearly_contribution: What is paid in at the end of each year, in pounds.
        """
        return effect_of_charges(pot, charge_percent, years, growth_percent, yearly_contribution)

"""Sums about pensions: worked examples, the edges of bands and dates, and what is refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.calculators import PensionCalculators
from guidance_agent.calculators.income_tax import Nation, income_tax
from guidance_agent.calculators.state_pension_age import state_pension_age
from guidance_agent.errors import CalculationError

TODAY = date(2026, 11, 21)
calculators = PensionCalculators(today=TODAY)
pounds = st.decimals(0, 500_000, places=2)


def d(text: str) -> Decimal:
    return Decimal(text)


@pytest.mark.parametrize(
    ("income", "nation", "year", "tax"),
    [
        ("0", "england_wales_ni", "2026/27", "0.00"),
        ("12570", "england_wales_ni", "2026/27", "0.00"),
        ("12571", "england_wales_ni", "2026/27", "0.20"),
        ("30000", "england_wales_ni", "2026/27", "3486.00"),
        ("50270", "england_wales_ni", "2026/27", "7540.00"),
        ("60000", "england_wales_ni", "2026/27", "11432.00"),
        ("110000", "england_wales_ni", "2026/27", "33432.00"),
        ("125140", "england_wales_ni", "2023/24", "42516.00"),
        ("150000", "england_wales_ni", "2024/25", "53703.00"),
        ("16000", "scotland", "2026/27", "651.70"),
        ("50000", "scotland", "2026/27", "8982.05"),
        ("150000", "scotland", "2025/26", "59666.10"),
    ],
)
def test_income_tax_is_that_of_the_bands(income: str, nation: Nation, year: str, tax: str) -> None:
    worked_out = income_tax(d(income), year, nation)
    assert worked_out.tax == d(tax)
    assert sum(part for _, part, _ in worked_out.by_rate) + worked_out.personal_allowance == worked_out.income


@given(pounds, pounds)
def test_more_income_is_never_taxed_less_and_never_wholly(low: Decimal, more: Decimal) -> None:
    before, after = income_tax(low, "2026/27").tax, income_tax(low + more, "2026/27").tax
    # Rounded band by band, and the allowance to whole pounds.
    assert before <= after <= before + more * d("0.601") + d("0.65")


def test_a_lump_sum_is_taxed_on_top_of_the_other_income() -> None:
    tax = calculators.tax_on_lump_sum(d("40000"), d("20000"))
    assert (tax.tax_free, tax.taxable, tax.tax, tax.net) == (d("10000.00"), d("30000.00"), d("6000.00"), d("34000.00"))
    # A month's allowance of 1,047.50, 3,141.67 at 20 %, 7,286.67 at 40 % and the rest at 45 %.
    assert tax.first_deduction == d("11878.88")
    assert any("Lump sum allowance" in source for source in tax.sources)


def test_a_lump_sum_that_crosses_a_band_is_taxed_at_both_rates() -> None:
    assert calculators.tax_on_lump_sum(d("20000"), d("45000")).tax == d("5270") * d("0.2") + d("9730") * d("0.4")


def test_the_tax_free_part_is_limited_by_what_is_left_of_the_allowance() -> None:
    whole = calculators.tax_free_part(d("200000"))
    limited = calculators.tax_free_part(d("200000"), d("250000"))
    assert (whole.tax_free, whole.limited_by_allowance, whole.allowance_left) == (d("50000"), False, d("218275"))
    assert (limited.tax_free, limited.limited_by_allowance, limited.allowance_left) == (d("18275"), True, d("0"))
    assert calculators.tax_free_part(d("1000"), d("300000")).tax_free == 0


@pytest.mark.parametrize(
    ("threshold", "adjusted", "allowance"),
    [
        ("0", "0", "60000"),
        ("200000", "400000", "60000"),
        ("200001", "260000", "60000"),
        ("210000", "280000", "50000"),
        ("210000", "280001", "50000"),
        ("300000", "360000", "10000"),
        ("900000", "900000", "10000"),
    ],
)
def test_the_annual_allowance_tapers_only_above_both_incomes(threshold: str, adjusted: str, allowance: str) -> None:
    assert calculators.annual_allowance(d(threshold), d(adjusted)).allowance == d(allowance)


def test_flexible_access_limits_money_purchase_contributions_and_nothing_else() -> None:
    found = calculators.annual_allowance(flexibly_accessed=True, unused_of_three_years_before=[d("5000"), d("2500")])
    assert (found.money_purchase, found.alternative, found.carried_forward) == (d("10000"), d("50000"), d("7500"))
    assert found.total == d("67500")
    assert calculators.annual_allowance().money_purchase is None


@pytest.mark.parametrize(
    ("born", "reached", "years", "months"),
    [
        ("1953-12-06", "2019-03-06", 65, 3),
        ("1954-01-06", "2019-05-06", 65, 4),
        ("1954-09-10", "2020-09-06", 65, 11),
        ("1954-10-05", "2020-09-06", 65, 11),
        ("1954-10-06", "2020-10-06", 66, 0),
        ("1960-04-05", "2026-04-05", 66, 0),
        ("1960-04-06", "2026-05-06", 66, 1),
        ("1960-07-31", "2026-11-30", 66, 4),
        ("1960-12-31", "2027-09-30", 66, 9),
        ("1961-03-05", "2028-02-05", 66, 11),
        ("1961-03-06", "2028-03-06", 67, 0),
        ("1977-04-05", "2044-04-05", 67, 0),
        ("1977-04-06", "2044-05-06", 67, 1),
        ("1977-10-20", "2045-05-06", 67, 6),
        ("1978-03-29", "2046-03-06", 67, 11),
        ("1978-04-06", "2046-04-06", 68, 0),
        ("1980-02-29", "2048-02-29", 68, 0),
    ],
)
def test_the_state_pension_age_is_that_of_the_timetable(born: str, reached: str, years: int, months: int) -> None:
    found = calculators.state_pension_age(date.fromisoformat(born))
    assert (found.date, found.years, found.months) == (date.fromisoformat(reached), years, months)


@given(st.dates(date(1953, 12, 6), date(2029, 12, 30)))
def test_somebody_born_later_never_reaches_it_earlier(born: date) -> None:
    assert state_pension_age(born).date <= state_pension_age(date.fromordinal(born.toordinal() + 1)).date


def test_a_charge_takes_what_compounding_says() -> None:
    found = calculators.effect_of_charges(d("100000"), d("1"), 2, d("5"))
    assert (found.without_charge, found.with_charge) == (d("110250.00"), d("108056.03"))
    assert (found.taken, found.taken_percent) == (d("2193.98"), d("1.99"))
    assert calculators.effect_of_charges(d("0"), d("1"), 3, d("0"), d("100")).paid_in == d("300")
    assert calculators.effect_of_charges(d("100"), d("0"), 30).taken == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: calculators.tax_on_lump_sum(d("-1"), d("0")),
        lambda: calculators.tax_on_lump_sum(d("NaN"), d("0")),
        lambda: calculators.tax_on_lump_sum(d("1000"), d("0"), "2026"),
        lambda: calculators.tax_on_lump_sum(d("1000"), d("0"), "2031/32"),
        lambda: calculators.tax_on_lump_sum(d("1000"), d("0"), "2023/24", "scotland"),
        lambda: calculators.tax_free_part(d("Infinity")),
        lambda: calculators.annual_allowance(unused_of_three_years_before=[d("1")] * 4),
        lambda: calculators.annual_allowance(year="2031/32"),
        lambda: calculators.state_pension_age(date(1950, 1, 1)),
        lambda: calculators.state_pension_age(date(2031, 1, 1)),
        lambda: calculators.effect_of_charges(d("1"), d("21"), 1),
        lambda: calculators.effect_of_charges(d("1"), d("1"), 0),
        lambda: calculators.effect_of_charges(d("1"), d("1"), 1, d("51")),
    ],
)
def test_what_cannot_be_worked_out_is_refused_with_what_to_give(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(CalculationError, match=r"Give|Write|known|record|GOV\.UK"):
        wrong()

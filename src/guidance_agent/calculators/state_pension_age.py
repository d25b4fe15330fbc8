"""The State Pension age that the law has set for a date of birth: Pensions Act 1995, schedule 4, as amended to 2014.

Between 6 December 1953 and 5 October 1954, and again between 6 April 1977 and 5 April 1978, everyone born within a
month from the 6th to the 5th reaches it on one day, two months later for each such month. Between 6 April 1960 and
5 March 1961 it is 66 and a number of months. Everyone else reaches it on a birthday. A month is counted as the
timetable on GOV.UK counts it: born on the 31st, four months are over on the last day of a shorter month.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date

from guidance_agent.errors import CalculationError

__all__ = ["SOURCE", "StatePensionAge", "state_pension_age"]

SOURCE = "Pensions Act 1995, schedule 4, as amended by the Pensions Acts 2007, 2011 and 2014"
_EARLIEST = date(1953, 12, 6)
_LATEST = date(2030, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePensionAge:
    """When the law lets the State Pension begin. `years` and `months` are whole ones at `date`."""

    date_of_birth: date
    date: date
    years: int
    months: int
    source: str


def state_pension_age(date_of_birth: date) -> StatePensionAge:
    """Return the State Pension age of somebody born on a day.

    Raises:
        CalculationError: born before 6 December 1953, when it depended on sex too, or after the calendar's end here.
    """
    if not _EARLIEST <= date_of_birth < _LATEST:
        raise CalculationError(
            f"The State Pension age of somebody born on {date_of_birth} is not known here; that of those born from "
            f"{_EARLIEST} to 2029 is. Use the check on GOV.UK."
        )
    reached = _reached(date_of_birth)
    whole = (reached.year - date_of_birth.year) * 12 + reached.month - date_of_birth.month
    if _after_months(date_of_birth, whole) > reached:
        whole -= 1
    return StatePensionAge(
        date_of_birth=date_of_birth, date=reached, years=whole // 12, months=whole % 12, source=SOURCE
    )


def _reached(born: date) -> date:
    if born < date(1954, 10, 6):
        return _on_a_fixed_day(born, date(1953, 12, 6), date(2019, 3, 6))
    if born < date(1960, 4, 6):
        return _after_months(born, 66 * 12)
    if born < date(1961, 3, 6):
        return _after_months(born, 66 * 12 + 1 + _months_from(date(1960, 4, 6), born))
    if born < date(1977, 4, 6):
        return _after_months(born, 67 * 12)
    if born < date(1978, 4, 6):
        return _on_a_fixed_day(born, date(1977, 4, 6), date(2044, 5, 6))
    return _after_months(born, 68 * 12)


def _on_a_fixed_day(born: date, first_born: date, first_day: date) -> date:
    return _after_months(first_day, 2 * _months_from(first_born, born))


def _months_from(first: date, day: date) -> int:
    """How many months, counted from the 6th to the 5th, lie between two days."""
    return (day.year - first.year) * 12 + day.month - first.month - (day.day < first.day)


def _after_months(day: date, months: int) -> date:
    """The same day so many months later; where that month is shorter, its last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last))

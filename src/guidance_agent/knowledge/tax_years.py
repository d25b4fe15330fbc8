"""The UK tax year, which runs from 6 April to 5 April."""

from __future__ import annotations

import re
from datetime import date

__all__ = ["tax_year", "tax_year_dates"]

_LABEL = re.compile(r"(\d{4})/(\d{2})")


def tax_year(day: date) -> str:
    """The tax year that `day` falls in, for example `2026/27` from 6 April 2026 to 5 April 2027."""
    first = day.year if (day.month, day.day) >= (4, 6) else day.year - 1
    return f"{first:04d}/{(first + 1) % 100:02d}"


def tax_year_dates(label: str) -> tuple[date, date]:
    """First and last day of the tax year named by `label`.

    Raises:
        ValueError: `label` is not two consecutive years in the form `2026/27`.
    """
    match = _LABEL.fullmatch(label)
    if match is None or (int(match[1]) + 1) % 100 != int(match[2]):
        msg = f"tax year {label!r} is not two consecutive years in the form '2026/27'"
        raise ValueError(msg)
    first = int(match[1])
    return date(first, 4, 6), date(first + 1, 4, 5)

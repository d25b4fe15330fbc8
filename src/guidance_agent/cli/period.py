"""Periods as a person types them: a date, a moment, or an age such as `7d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Annotated

import typer

__all__ = ["Since", "Until", "first_moment", "moment_after"]

_FORMS = "Use a date (2026-11-21), a moment (2026-11-21T09:30) or an age (90m, 24h, 7d)"
_AGE = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="From this date, moment or age (7d) on; times are UTC."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="Up to this date with its whole day, or up to this moment."),
]


def first_moment(text: str | None, now: datetime) -> datetime | None:
    """Return the first moment of a period that begins with `text`; None for no bound."""
    return None if text is None else _moment(text, now, "--since")


def moment_after(text: str | None, now: datetime) -> datetime | None:
    """Return the first moment after a period that ends with `text`: a date counts with its whole day.

    None is no bound; the last day that there is bounds nothing.
    """
    if text is None:
        return None
    moment = _moment(text, now, "--until")
    try:
        return moment + timedelta(days=1) if _is_date(text) else moment
    except OverflowError:
        return None


def _moment(text: str, now: datetime, option: str) -> datetime:
    text = text.strip()
    try:
        if age := _AGE.fullmatch(text):
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no point in time. {_FORMS}", param_hint=option) from error


def _is_date(text: str) -> bool:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return moment.time() == time.min and not re.search(r"\d[T ]\d", text)

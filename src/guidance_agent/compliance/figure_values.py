"""The values of figures with the days on which they held, and whether a number in a sentence is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from guidance_agent.compliance.quantities import Quantity
from guidance_agent.errors import ConfigurationError
from guidance_agent.knowledge.records import Figure, Unit
from guidance_agent.knowledge.tax_years import tax_year_dates

__all__ = ["OtherPeriods", "Value", "is_value", "value_of_figure", "value_of_other"]

_APPROXIMATE = Decimal("0.035")
_OTHER_UNIT = Decimal("0.1")
_SHARE = Decimal("0.35")
"""A third is 33⅓ %, said as 33 %."""
_ROUNDED_FROM = 10_000
_FEWEST_DIGITS = 3
_DAYS = {"days": Decimal(1), "weeks": Decimal(7), "months": Decimal("30.4375"), "years": Decimal("365.25")}


class _OtherValue(BaseModel):
    """A value or a day with its period, which a tax year may stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Decimal | None = None
    day: date | None = None
    effective_from: date = date.min
    valid_until: date | None = None
    tax_year: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _dates_of_the_tax_year(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("tax_year"), str):
            first, last = tax_year_dates(data["tax_year"])
            return {**data, "effective_from": first, "valid_until": last}
        return data

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.value is None) == (self.day is None):
            msg = "give either a value or a day"
            raise ValueError(msg)
        return self


class OtherPeriods(BaseModel):
    """Values of a figure at times that the knowledge base does not hold, with where they are from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str
    name: str
    unit: Unit | Literal["date"]
    fact: str | None
    source: str
    values: tuple[_OtherValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value of a figure and the days on which it held; `day` is set for a figure that is a date."""

    figure: str
    name: str
    value: Decimal
    unit: str
    first: date
    last: date
    text: str
    period: str
    fact: str | None
    day: date | None = None


def value_of_figure(figure: Figure) -> Value:
    """Return a figure of the knowledge base as a value."""
    return Value(
        figure=figure.id,
        name=figure.name,
        value=figure.value,
        unit=figure.unit,
        first=figure.effective_from,
        last=figure.valid_until or date.max,
        text=figure.text,
        period=figure.period,
        fact=figure.fact,
    )


def value_of_other(entry: OtherPeriods, given: _OtherValue) -> Value:
    """Return one value of another period.

    Raises:
        ConfigurationError: it has no unit.
    """
    until = f" to {given.valid_until}" if given.valid_until else ""
    return Value(
        figure=entry.figure,
        name=entry.name,
        value=given.value or Decimal(0),
        unit=entry.unit,
        first=given.effective_from,
        last=given.valid_until or date.max,
        text=_text(entry, given),
        period=f"tax year {given.tax_year}" if given.tax_year else f"from {given.effective_from}{until}",
        fact=entry.fact,
        day=given.day,
    )


def _text(entry: OtherPeriods, given: _OtherValue) -> str:
    if given.day is not None:
        return f"{given.day.day} {given.day:%B %Y}"
    if given.value is None or entry.unit == "date":
        raise ConfigurationError(f"The figure {entry.figure!r} has a value without its unit. Correct the file.")
    figure = Figure(
        id=entry.figure,
        name=entry.name,
        value=given.value,
        unit=entry.unit,
        effective_from=given.effective_from,
        valid_until=given.valid_until,
        fact=entry.fact or "none",
    )
    return figure.text


def is_value(said: Quantity, value: Value, *, approximate: bool) -> bool:
    """Whether `said` gives `value`; `approximate` says that the text calls it so ("about", "just under")."""
    if value.day is not None:
        return said.first <= value.day <= said.last
    given, right = said.value, value.value
    if said.kind == "span" and said.unit != value.unit:
        if value.unit not in _DAYS:
            return False
        given, right = given * _DAYS[said.unit], right * _DAYS[value.unit]
        return abs(given - right) <= right * _OTHER_UNIT
    if given == right:
        return True
    if approximate and abs(given - right) <= right * _APPROXIMATE:
        return True
    if said.kind == "pct":
        return said.unit == "share" and abs(given - right) <= _SHARE
    if said.kind not in ("gbp", "big"):
        return False
    return _is_rounded(given, right, exact=said.exact)


def _is_rounded(given: Decimal, right: Decimal, *, exact: bool) -> bool:
    if exact and given != given.to_integral_value():
        return False
    whole = Decimal(1)
    if given in (right.quantize(whole, ROUND_HALF_UP), right.quantize(whole, ROUND_DOWN)):
        return True
    digits = len(given.normalize().as_tuple().digits)
    if right < _ROUNDED_FROM or digits < _FEWEST_DIGITS:
        return False
    step = Decimal(1).scaleb(given.adjusted() - digits + 1)
    return given == (right / step).quantize(whole, ROUND_HALF_UP) * step

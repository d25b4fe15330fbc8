"""What a knowledge base consists of: dated facts, the figures taken from them, and what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from guidance_agent.knowledge.tax_years import tax_year_dates

__all__ = ["Audience", "Confidence", "DatedFact", "Fact", "Figure", "Unit", "Unknown"]

Audience = Literal["customer", "conduct", "house"]
Confidence = Literal["verified_primary", "verified_secondary", "memory"]
Unit = Literal[
    "GBP", "GBP/year", "GBP/week", "percent", "age", "years", "months", "weeks", "count"
]  # fmt: skip

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# Ids stand in square brackets in a prompt, so they stay free of spaces and brackets.
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Address = Annotated[str, StringConstraints(pattern=r"^https://[^\s/]+(/\S*)?$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _DatedRecord(_Record):
    """A record that holds from its first to its last day, both included; no last day means open-ended."""

    effective_from: date
    valid_until: date | None

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.valid_until is not None and self.effective_from > self.valid_until:
            msg = f"effective_from {self.effective_from} is later than valid_until {self.valid_until}"
            raise ValueError(msg)
        return self

    def holds_on(self, day: date) -> bool:
        """Whether the record is in force on `day`."""
        return self.effective_from <= day and not self.expired_on(day)

    def expired_on(self, day: date) -> bool:
        """Whether the last day of the record lies before `day`."""
        return self.valid_until is not None and self.valid_until < day


class Fact(_DatedRecord):
    """One statement with its source and the days on which it holds.

    Attributes:
        id: Short name that a prompt, a verdict or a report cites.
        topic: Subject area, such as `tax_figures`.
        statement: The fact in our own words, readable without its topic.
        source: Rule reference or official name.
        url: Official page, where one was seen; weak addresses are left out.
        effective_from: First day on which the fact holds.
        valid_until: Last day on which it holds; None is open-ended.
        confidence: How it was checked: on an official page, on a secondary page, or from memory only.
        audience: `customer` may be shown to a customer, `conduct` is a rule for the service,
            `house` is a rule of our own.
        citable: Whether the source may be named beside the statement.
    """

    id: Identifier
    topic: Text
    statement: Text
    source: Text
    url: Address | None = None
    confidence: Confidence
    audience: Audience
    citable: bool

    @model_validator(mode="after")
    def _citable_only_when_checked(self) -> Self:
        if self.citable and (self.audience == "house" or self.confidence == "memory"):
            msg = "citable must be false for a house rule and for a fact that is from memory"
            raise ValueError(msg)
        return self


class Figure(_DatedRecord):
    """One number of a fact, with its unit and period, for checks by program.

    Attributes:
        id: Short name, unique among the figures.
        name: What the number is, in words.
        value: The number.
        unit: What it counts.
        effective_from: First day on which it applies.
        valid_until: Last day on which it applies; None is open-ended.
        tax_year: The tax year it belongs to, if it is set for a single one.
        fact: Id of the fact that states it.
    """

    id: Identifier
    name: Text
    value: Decimal
    unit: Unit
    tax_year: str | None = None
    fact: Identifier

    @model_validator(mode="before")
    @classmethod
    def _dates_of_the_tax_year(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("tax_year"), str):
            return data
        if "effective_from" in data or "valid_until" in data:
            msg = "give either tax_year or effective_from and valid_until, not both"
            raise ValueError(msg)
        first, last = tax_year_dates(data["tax_year"])
        return {**data, "effective_from": first, "valid_until": last}

    @property
    def text(self) -> str:
        """The value in words, such as `£241.30 a week` or `25%`."""
        match self.unit:
            case "GBP":
                return _pounds(self.value)
            case "GBP/year":
                return f"{_pounds(self.value)} a year"
            case "GBP/week":
                return f"£{self.value:,.2f} a week"
            case "percent":
                return f"{self.value.normalize():f}%"
            case "age":
                return f"age {self.value.normalize():f}"
            case "count":
                return f"{self.value.normalize():f}"
            case "years" | "months" | "weeks":
                return f"{self.value.normalize():f} {self.unit}"

    @property
    def period(self) -> str:
        """When the value applies: its tax year, or its first and last day."""
        if self.tax_year is not None:
            return f"tax year {self.tax_year}"
        return f"from {self.effective_from}" + (f" to {self.valid_until}" if self.valid_until else "")


class Unknown(_Record):
    """Something that the knowledge base does not hold, with what to answer instead of a guess."""

    id: Identifier
    subject: Text
    answer: Text


@dataclass(frozen=True, slots=True)
class DatedFact:
    """A fact as it stands on one day: in force, or still to come and shown with its start date."""

    fact: Fact
    status: Literal["current", "upcoming"]


def _pounds(value: Decimal) -> str:
    return f"£{value:,.0f}" if value == value.to_integral_value() else f"£{value:,.2f}"

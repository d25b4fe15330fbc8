"""Customers, advisers and conversations: the words that everything shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from guidance_agent.errors import CustomerProfileError

__all__ = [
    "AdvisorProfile",
    "ConversationRole",
    "CustomerProfile",
    "HistoryEntry",
    "JsonObject",
    "Judgement",
    "Literacy",
    "Outcome",
    "Pension",
    "TurnState",
]

JsonObject: TypeAlias = dict[str, Any]
ConversationRole = Literal["customer", "advisor"]
HistoryEntry: TypeAlias = Mapping[str, str]
"""`{"role": "customer" | "advisor", "content": str}`; `user` and `assistant` mean the same."""
Literacy = Literal["low", "medium", "high"]
Outcome = Literal["open", "passed", "failed"]
Judgement = Literal["pending", "passed", "failed", "unjudged_needs_review"]
TurnState = Literal["streaming", "completed", "closed_early", "failed", "process_died"]


def _reject_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _without_negative_zero(amount: float) -> float:
    # Minus nought equals nought but prints differently, and equal customers must have equal prompts.
    return amount + 0.0


_Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000)]
_Item = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Integer = Annotated[int, BeforeValidator(_reject_truth_value)]
_Pounds = Annotated[
    float,
    BeforeValidator(_reject_truth_value),
    Field(ge=0, le=1e9, allow_inf_nan=False),
    AfterValidator(_without_negative_zero),
]
_QUESTION_LIMIT = 1_000_000


def _reject_control_characters(text: str) -> str:
    if any(ord(character) < 32 and character not in "\n\r\t" for character in text):
        raise ValueError("contains control characters where plain text is needed")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("contains a lone surrogate where valid Unicode is needed")
    return text


class _Profile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _ordered(cls, value: object) -> object:
        # A set's order changes from process to process, and the stable prompt must not change with it.
        return sorted(value, key=repr) if isinstance(value, set | frozenset) else value

    @field_validator("*", mode="after")
    @classmethod
    def _plain_text(cls, value: object) -> object:
        if isinstance(value, str):
            return _reject_control_characters(value)
        if isinstance(value, tuple):
            for item in value:
                if isinstance(item, str):
                    _reject_control_characters(item)
        return value


class Pension(_Profile):
    """One pension of a customer. Amounts are in pounds; `annual_income_gbp` is before tax."""

    kind: Literal["dc", "db", "state", "gar", "other"]
    provider: _Text | None = None
    value_gbp: _Pounds | None = None
    annual_income_gbp: _Pounds | None = None
    transfer_value_gbp: _Pounds | None = None
    retirement_age: Annotated[_Integer, Field(ge=40, le=100)] | None = None
    guarantees: _Text | None = None
    employer_match: _Text | None = None


class CustomerProfile(_Profile):
    """A customer as the backend knows them; only `customer_id` is required.

    Everything but `presenting_question` goes into the customer part of the prompt, as it stood when the consultation
    opened. Amounts are in pounds.
    """

    customer_id: _Name
    first_name: _Text | None = None
    age: Annotated[_Integer, Field(ge=0, le=130)] | None = None
    employment_status: _Text | None = None
    location: _Text | None = None
    financial_literacy: Literacy = "medium"
    communication_needs: tuple[_Item, ...] = ()
    vulnerabilities: tuple[_Item, ...] = ()
    pensions: tuple[Pension, ...] = ()
    other_income: _Text | None = None
    state_pension_forecast_gbp_weekly: _Pounds | None = None
    ni_qualifying_years: Annotated[_Integer, Field(ge=0, le=80)] | None = None
    dependants: _Text | None = None
    partner: _Text | None = None
    debts_gbp: _Pounds | None = None
    goals: _Text | None = None
    notes: _Text | None = None
    presenting_question: Annotated[str, StringConstraints(max_length=_QUESTION_LIMIT)] | None = Field(
        default=None, validation_alias=AliasChoices("presenting_question", "current_question")
    )

    @property
    def current_question(self) -> str | None:
        return self.presenting_question

    def prompt_values(self) -> JsonObject:
        """Return what a prompt may show, without ids, the question and unknown values; keys in a fixed order."""
        return self.model_dump(
            mode="json", exclude={"customer_id", "presenting_question"}, exclude_none=True, exclude_defaults=False
        )

    @classmethod
    def parse(cls, values: object, *, source: str = "customer") -> CustomerProfile:
        """Validate `values`; raise `CustomerProfileError` with one clause per wrong field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, item['loc'])) or 'customer'}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            ]
            raise CustomerProfileError(f"{source} is not a valid customer profile: {'; '.join(faults)}.") from error

    @classmethod
    def from_file(cls, path: Path | str) -> CustomerProfile:
        """Read a JSON or YAML file; raise `CustomerProfileError` when it cannot be read or is not valid."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise CustomerProfileError(
                f"The customer file {str(path)!r} cannot be read: {error}. Give a JSON or YAML file in UTF-8."
            ) from error
        return cls.parse(_load(text, path), source=f"The customer file {str(path)!r}")


def _load(text: str, path: Path) -> object:
    if path.suffix.lower() in {".yaml", ".yml"}:
        import yaml

        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
            # PyYAML's constructors let the errors of `int`, `date` and the like through as they are.
            raise CustomerProfileError(f"The customer file {str(path)!r} is not valid YAML: {error}.") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CustomerProfileError(f"The customer file {str(path)!r} is not valid JSON: {error}.") from error


class AdvisorProfile(_Profile):
    """The adviser persona of a service: what it is called and whose it is.

    `service_name` and `house_rules` are part of the stable prompt, so a change of either starts a new cache prefix.
    """

    advisor_id: _Name = "default"
    name: _Name = "Pension guide"
    service_name: _Name = "Pension guidance service"
    house_rules: tuple[_Item, ...] = ()

    @classmethod
    def default(cls) -> AdvisorProfile:
        """Return the profile that needs no decisions."""
        return cls()

"""What the four steps answer, as types: an answer that is not exactly this is none, in a batch as in a call.

Whether an answer lets a principle go on is decided here and not by who asked. Everything that is not clearly said ends
the principle: an identifier that no check has, an empty text, a number out of its range.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from guidance_agent.compliance.judge_checks import judge_checks

__all__ = [
    "LEAST_CONFIDENCE",
    "LEAST_VALUE",
    "LONGEST_RULE",
    "Refinement",
    "Reflection",
    "RuleValue",
    "Validation",
    "requirement_ids",
]

LONGEST_RULE = 400
"""Characters of a rule at most: it stands in the instructions of every conversation."""
LEAST_CONFIDENCE = 0.6
"""A principle that is valid with less confidence goes no further."""
LEAST_VALUE = 0.5
"""A rule that is worth less is not kept."""


@functools.cache
def requirement_ids() -> tuple[str, ...]:
    """Return the identifiers that a principle may rest on, in the order of the checks."""
    return tuple(dict.fromkeys(each for check in judge_checks().values() for each in check.requirements))


def _known(requirement: str) -> str:
    if requirement not in requirement_ids():
        raise ValueError("is no requirement of the list")
    return requirement


def _one_of_the_list(schema: dict[str, Any]) -> None:
    schema["enum"] = list(requirement_ids())


_Requirement = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_one_of_the_list)]
_Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reflection(_Answer):
    """Why a reply failed, and the principle that would have prevented it; an empty one is that nothing is learned."""

    cause: _Said
    principle: Annotated[str, StringConstraints(strip_whitespace=True)]
    requirement: _Requirement


class Validation(_Answer):
    """Whether a principle holds, and the requirement that it follows from."""

    reason: _Said
    requirement: _Requirement
    valid: bool
    confidence: _Share

    @property
    def holds(self) -> bool:
        return self.valid and self.confidence >= LEAST_CONFIDENCE


class Refinement(_Answer):
    """A principle in the words of a rule."""

    changes: str
    rule: _Said


class RuleValue(_Answer):
    """What a rule adds to those there are, from 0 to 1."""

    adds: _Said
    reason: _Said
    still_valid: bool
    value: _Share

    @property
    def is_kept(self) -> bool:
        return self.still_valid and self.value >= LEAST_VALUE

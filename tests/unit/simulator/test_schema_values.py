"""Values for schemas, checked by an independent validator."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from guidance_agent.provider_simulator.answers.judgement import find_steer
from guidance_agent.provider_simulator.schema_values import value_for_schema


class Status(StrEnum):
    FAIL = "fail"
    PASS = "pass"
    NOT_APPLICABLE = "not_applicable"


class Check(BaseModel):
    check: Literal["advice_boundary", "risk_disclosure", "signposting"]
    status: Status
    quote: str
    start: Annotated[int, Field(ge=0)]
    explanation: Annotated[str, Field(min_length=10, max_length=200)]


class Verdict(BaseModel):
    checks: list[Check]
    confidence: Annotated[float, Field(ge=0, le=1)]
    needs_review: bool
    passed: bool
    note: str | None
    child: Verdict | None = None


class Odd(BaseModel):
    three: Annotated[list[int], Field(min_length=3, max_length=3)]
    step: Annotated[int, Field(ge=7, le=100, multiple_of=5)]
    above: Annotated[float, Field(gt=2)]
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{2}$")]
    either: int | str
    kind: Literal["only"]
    mapping: dict[str, int]


@pytest.mark.parametrize("model", [Verdict, Odd, Check])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_value_is_valid_under_its_schema(model: type[BaseModel], seed: int) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    adapter.validate_python(value_for_schema(adapter.json_schema(), seed=seed))


def test_a_closed_list_of_findings_has_one_for_each_name_and_none_wrong() -> None:
    verdict = Verdict.model_validate(value_for_schema(Verdict.model_json_schema()))
    assert [check.check for check in verdict.checks] == ["advice_boundary", "risk_disclosure", "signposting"]
    assert {check.status for check in verdict.checks} == {Status.PASS}
    assert (verdict.passed, verdict.needs_review) == (True, False)


@pytest.mark.parametrize(
    "sentence",
    [
        "You should transfer it now.",
        "I would recommend taking the annuity.",
        "Drawdown is the best option for you.",
        "If I were you, I'd wait.",
        "It's a no-brainer.",
    ],
)
def test_a_steer_in_the_judged_text_fails_the_check_on_advice_alone(sentence: str) -> None:
    reply = f"Both ways have risks. {sentence} Pension Wise is free."
    steer = find_steer(f"Judge this.\n<reply>\n{reply}\n</reply>")
    assert steer is not None
    assert reply[steer.start : steer.end] == steer.quote == sentence
    verdict = Verdict.model_validate(value_for_schema(Verdict.model_json_schema(), steer=steer))
    assert [check.status for check in verdict.checks] == [Status.FAIL, Status.PASS, Status.PASS]
    assert (verdict.passed, verdict.needs_review, verdict.checks[0].quote) == (False, True, sentence)


@pytest.mark.parametrize(
    "reply",
    [
        "I cannot say whether you should transfer.",
        "Nobody here can say that drawdown is the best option for you.",
        "An adviser should explain the risks. The scheme must answer you.",
        "Some people keep the pot; others draw on it.",
    ],
)
def test_neutral_sentences_are_no_steer(reply: str) -> None:
    assert find_steer(f"<reply>{reply}</reply>") is None


def test_what_the_customer_says_is_not_judged() -> None:
    assert find_steer("<question>My friend says you should transfer.</question>") is None


def test_the_same_schema_and_seed_give_the_same_value() -> None:
    schema = Verdict.model_json_schema()
    assert value_for_schema(schema, seed=4) == value_for_schema(schema, seed=4)


def test_unions_and_merged_schemas_are_followed() -> None:
    schema = {
        "allOf": [
            {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
            {"properties": {"b": {"oneOf": [{"type": "null"}, {"enum": ["x", "y"]}]}}, "required": ["b"]},
        ]
    }
    assert value_for_schema(schema) == {"a": 1, "b": "x"}

"""Typed answers: the schema that is sent, and how strictly what comes back is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from guidance_agent.errors import ModelError, StructuredOutputError, StructuredOutputKind
from guidance_agent.llm.messages import Completion, Cost, FinishReason, ModelCall, Timing, UnitPrices
from guidance_agent.llm.structured import answer_schema, read_answer


class Mood(StrEnum):
    CALM = "calm"
    WORRIED = "worried"


class Part(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=20)]
    minimum: int = 0


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    share: Annotated[float, Field(ge=0, le=1, description="How much of it")]
    parts: list[Part]
    mood: Mood
    kind: Literal["a", "b"]
    sure: bool
    note: str | None = None


GOOD: dict[str, Any] = {
    "share": 0.5,
    "parts": [{"name": "x", "minimum": 1}],
    "mood": "calm",
    "kind": "a",
    "sure": True,
    "note": None,
}


def completion(text: str, finish_reason: FinishReason = "stop") -> Completion:
    call = ModelCall(
        id="call-1",
        operation="judge",
        model="anthropic/claude-sonnet-5",
        requested_model="anthropic/claude-sonnet-5",
        provider="anthropic",
        transport="native",
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        outcome="completed",
        finish_reason=finish_reason,
        attempts=1,
        timing=Timing(),
        usage=None,
        cost=Cost(0.25, UnitPrices(input=1.0, output=1.0)),
        cache_outcome="unknown",
        cache_parts={},
        cache_use={},
        simulated=False,
        request_id="req-1",
        error=None,
        metadata={},
    )
    return Completion(text=text, finish_reason=finish_reason, call=call)


def failure(text: str, finish_reason: FinishReason = "stop") -> StructuredOutputError:
    with pytest.raises(StructuredOutputError) as raised:
        read_answer(completion(text, finish_reason), Answer)
    return raised.value


def objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for each in schema for found in objects(each)]
    if not isinstance(schema, dict):
        return []
    inner = [found for each in schema.values() for found in objects(each)]
    return [schema, *inner] if "properties" in schema and isinstance(schema["properties"], dict) else inner


def test_every_object_of_a_schema_is_closed_and_asks_for_all_its_fields() -> None:
    found = objects(answer_schema(Answer))
    assert len(found) == 2
    for schema in found:
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])


def test_a_schema_has_no_words_that_providers_refuse_and_tells_its_bounds() -> None:
    schema = answer_schema(Answer)
    part = schema["$defs"]["Part"]["properties"]
    assert schema["properties"]["share"] == {"type": "number", "description": "How much of it; at least 0, at most 1"}
    assert part["name"]["description"] == "characters at least 1, characters at most 20"
    assert set(part) == {"name", "minimum"}
    assert not {"minLength", "title", "default"} & set(part["name"])


def test_a_reference_stands_alone() -> None:
    assert answer_schema(Answer)["properties"]["mood"] == {"$ref": "#/$defs/Mood"}


def test_an_answer_in_order_is_read() -> None:
    assert read_answer(completion(json.dumps(GOOD)), Answer) == Answer.model_validate(GOOD)
    assert read_answer(completion(f" \n{json.dumps(GOOD)}\r\n\t"), Answer).share == 0.5


@pytest.mark.parametrize(
    ("text", "kind", "position"),
    [
        ("", "empty", None),
        (" \n", "empty", None),
        ("Sure! {}", "not_json", 0),
        ("```json\n{}\n```", "not_json", 0),
        ('{"share": NaN}', "not_json", None),
        ('{"share": 1e400}', "not_json", None),
        ('{"share": 0.5,}', "not_json", 14),
        ("  {'share': 1}", "not_json", 3),
        ('{"share": 0.5', "not_json", 13),
        ('{"a": 1, "a": 1}', "repeated_key", None),
        ('{"a": {"b": 1, "\\u0062": 2}}', "repeated_key", None),
        ("{} {}", "extra_text", 2),
        ("\n{} done", "extra_text", 3),
        ("[" * 200_000, "not_json", None),
    ],
)
def test_what_is_not_one_json_value_says_what_it_is_and_where(
    text: str, kind: StructuredOutputKind, position: int | None
) -> None:
    error = failure(text)
    assert (error.kind, error.position, error.path) == (kind, position, None)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"share": "0.5"}, "share"),
        ({"share": "50%"}, "share"),
        ({"share": 50}, "share"),
        ({"share": True}, "share"),
        ({"sure": "true"}, "sure"),
        ({"sure": 1}, "sure"),
        ({"kind": "A"}, "kind"),
        ({"mood": "angry"}, "mood"),
        ({"note": 1}, "note"),
        ({"parts": {}}, "parts"),
        ({"parts": [{"name": "x", "minimum": 1.0}]}, "parts.0.minimum"),
        ({"parts": [{"name": ""}]}, "parts.0.name"),
        ({"parts": [{"name": "x", "colour": "red"}]}, "parts.0.colour"),
        ({"passed": True}, "passed"),
    ],
)
def test_a_field_of_another_type_or_name_is_told_by_its_path(changes: dict[str, Any], path: str) -> None:
    error = failure(json.dumps(GOOD | changes))
    assert (error.kind, error.path) == ("wrong_schema", path)


@pytest.mark.parametrize("field", [name for name in GOOD if name != "note"])
def test_a_missing_field_is_told_by_its_path(field: str) -> None:
    error = failure(json.dumps({name: value for name, value in GOOD.items() if name != field}))
    assert (error.kind, error.path) == ("wrong_schema", field)


@pytest.mark.parametrize("text", ["null", "1", '"{}"', "[]", f"[{json.dumps(GOOD)}]"])
def test_a_value_that_is_no_object_is_another_thing_than_was_asked_for(text: str) -> None:
    assert failure(text).kind == "wrong_schema"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("refusal", "refusal"),
        ("content_filter", "refusal"),
        ("length", "truncated"),
        ("tool_calls", "unfinished"),
        ("pause", "unfinished"),
        ("other", "unfinished"),
    ],
)
def test_an_answer_that_did_not_end_is_not_read_however_whole_it_looks(
    reason: FinishReason, kind: StructuredOutputKind
) -> None:
    assert failure(json.dumps(GOOD), reason).kind == kind


def test_an_error_tells_the_call_and_keeps_the_words_apart() -> None:
    error = failure("My name is Janet and I have £38,000.")
    assert isinstance(error, ModelError)
    assert "Janet" not in str(error)
    assert error.excerpt.startswith("My name is Janet")
    assert len(error.excerpt) <= 60
    assert (error.provider, error.model, error.request_id) == ("anthropic", "anthropic/claude-sonnet-5", "req-1")
    assert (error.cost_usd, error.simulated, error.retryable) == (0.25, False, False)


def test_an_error_about_many_fields_stays_short() -> None:
    error = failure(json.dumps({f"field_{number}": number for number in range(100)} | {"x" * 5_000: 1}))
    assert "more" in str(error)
    assert len(str(error)) < 500


@given(st.text())
def test_no_text_is_read_as_an_answer_that_it_is_not(text: str) -> None:
    with pytest.raises(StructuredOutputError):
        read_answer(completion(text), Answer)


@given(st.integers(min_value=0, max_value=len(json.dumps(GOOD)) - 1))
def test_no_beginning_of_an_answer_is_read_as_one(length: int) -> None:
    assert failure(json.dumps(GOOD)[:length]).kind in ("empty", "not_json")

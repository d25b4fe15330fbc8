"""Malformed answers: which class they are of, what is repaired, and what the next attempt is told."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from guidance_agent.llm.json_faults import FaultClass, JsonFault, analyze_json_error, find_fault
from guidance_agent.llm.json_repairs import repair
from guidance_agent.llm.structured_retry import TEMPERATURES, get_retry_strategy, runs_away
from tests.unit.llm.json_corpus import DEPTHS, PLACES, Case, corpus, document

CASES = list(corpus())


class Level(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    values: list[float | bool | None]
    inner: Level | Literal["end"]


def schema_cases() -> list[tuple[Case, str]]:
    """Objects that are JSON and break the schema, and the field that does."""
    made = []
    for depth in DEPTHS:
        for at in range(depth):
            for place, (field, value) in enumerate([("name", 7), ("values", "x"), ("more", 1), ("name", None)]):
                root = target = json.loads(document(depth))
                for _ in range(at):
                    target = target["inner"]
                if value is None:
                    del target[field]
                else:
                    target[field] = value
                case = Case("schema_violation", f"{field}, depth {depth}, level {at}, {place}", json.dumps(root))
                made.append((case, field))
    return made


def test_there_are_enough_cases_of_every_class() -> None:
    counted = Counter(case.kind for case in CASES) + Counter(case.kind for case, _ in schema_cases())
    assert len(counted) == 6
    assert sum(counted.values()) >= 300
    assert min(counted.values()) >= 25
    assert len(PLACES) * len(DEPTHS) == 15


def test_at_least_98_of_100_cases_are_put_into_the_right_class() -> None:
    wrong = []
    for case in CASES:
        with pytest.raises(ValueError, match=r".") as raised:
            json.loads(case.text, parse_constant=int)
        found = analyze_json_error(raised.value, case.text)
        if found.kind != case.kind:
            wrong.append((case.kind, found.kind, case.name))
    for case, field in schema_cases():
        with pytest.raises(ValidationError) as invalid:
            Level.model_validate_json(case.text)
        found = analyze_json_error(invalid.value, case.text)
        if found.kind != case.kind or not any(field in place for place, _ in found.fields):
            wrong.append((case.kind, found.kind, case.name))
    assert len(wrong) <= 0.02 * (len(CASES) + len(schema_cases())), wrong[:10]


def test_the_class_does_not_depend_on_the_words_of_an_error() -> None:
    for case in CASES[::7]:
        error = json.JSONDecodeError("words of another version", case.text, 0)
        assert analyze_json_error(error, case.text).kind == case.kind


def test_what_can_be_read_has_no_fault() -> None:
    for depth in DEPTHS:
        assert find_fault(document(depth)) is None
        assert find_fault(json.dumps(json.loads(document(depth)), indent=2)) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(value=json_values, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_every_json_value_is_read_without_a_fault(value: Any, indent: int | None, ascii_only: bool) -> None:
    assert find_fault(json.dumps(value, indent=indent, ensure_ascii=ascii_only)) is None


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.text(max_size=5), json_values, max_size=4), cut=st.integers(min_value=1))
def test_a_text_that_is_cut_off_is_unterminated_and_is_never_repaired(value: dict[str, Any], cut: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    text = text[: 1 + cut % (len(text) - 1)]
    found = find_fault(text)
    assert found is not None
    assert found.kind == "unterminated"
    assert repair(text, ended=False) is None


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_leaving_out_trailing_commas_changes_no_value(value: dict[str, Any]) -> None:
    def written(part: Any) -> str:
        if isinstance(part, dict) and part:
            return "{" + "".join(f"{json.dumps(key)}: {written(each)}, " for key, each in part.items()) + "}"
        if isinstance(part, list) and part:
            return "[" + "".join(f"{written(each)}, " for each in part) + "]"
        return json.dumps(part)

    if not value:
        return
    mended = repair(written(value), ended=True)
    assert mended is not None
    assert mended.repairs == ("trailing_comma",)
    assert json.loads(mended.text) == value


@pytest.mark.parametrize(
    ("text", "mended", "repairs"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}', ("code_fence",)),
        ('```\n{"a": 1,}\n```\n', '{"a": 1}', ("code_fence", "trailing_comma")),
        ('{"a": ["b", {"c": true', '{"a": ["b", {"c": true}]}', ("closed_brackets",)),
        ('{"a": "the end.', '{"a": "the end."}', ("closed_string", "closed_brackets")),
        ('{"a": [1, 2,], "b": {"c": "d"', '{"a": [1, 2], "b": {"c": "d"}}', ("trailing_comma", "closed_brackets")),
    ],
)
def test_what_is_safe_is_repaired_and_named(text: str, mended: str, repairs: tuple[str, ...]) -> None:
    assert repair(text, ended=True) == (mended, repairs)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',  # nothing to repair
        '{"a": 12',  # more digits may be missing
        '{"a": tru',
        '{"a": "b',  # cut off
        '{"a": "b}',  # the bracket may belong to the text or to the object
        '{"a": "b", "c": "d, ',
        '{"a',
        '{"a": ',
        '{"a": 1,',
        '{"a": 1 "b": 2}',
        'Sure: {"a": 1}',
        '{"a": 1} {"a": 2}',
        '```json\n{"a": 1}\n``` and ```json\n{"a": 2}\n```',
        "",
    ],
)
def test_what_is_not_safe_is_left_alone(text: str) -> None:
    assert repair(text, ended=text != '{"a": "b') is None


CLASSES: list[FaultClass] = [
    "trailing_comma",
    "unterminated",
    "missing_value",
    "wrong_structure",
    "extra_data",
    "schema_violation",
]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_has_words_of_its_own_and_the_temperature_falls(kind: FaultClass) -> None:
    others = {get_retry_strategy(other, 1).correction_prompt for other in CLASSES if other != kind}
    strategies = [get_retry_strategy(kind, attempt) for attempt in range(1, 6)]
    assert strategies[0].correction_prompt not in others
    assert [strategy.temperature for strategy in strategies] == [*TEMPERATURES, 0.0, 0.0]
    assert {strategy.max_tokens for strategy in strategies} == {1024}
    assert "{" not in strategies[0].correction_prompt


def test_the_words_name_the_place_and_the_fields() -> None:
    fault = find_fault('{"a": 1, "b": }')
    assert fault is not None
    assert (
        'at character 15, near: {"a": 1, "b": }'
        in get_retry_strategy(fault, 1, text='{"a": 1, "b": }').correction_prompt
    )
    fields = JsonFault(kind="schema_violation", fields=(("pots.0.value", "Input should be a valid number"),))
    assert "- pots.0.value: Input should be a valid number" in get_retry_strategy(fields, 1).correction_prompt


def test_a_longer_answer_is_allowed_up_to_a_bound_and_none_to_one_that_repeats_itself() -> None:
    def tokens(text: str, **fields: Any) -> int:
        return get_retry_strategy("unterminated", 1, text=text, cut_off=True, **fields).max_tokens

    assert tokens('{"a": "b', max_tokens=100) == 200
    assert tokens('{"a": "b', max_tokens=300, longest=400) == 400
    assert tokens('{"a": "b', max_tokens=400, longest=400) == 400
    assert tokens('{"a": "' + "na " * 500, max_tokens=400) == 200
    assert tokens('{"a": "' + "na " * 500, max_tokens=20) == 16


@pytest.mark.parametrize("piece", [" ", "\n", "la", '{"a": 1}, '])
def test_a_text_that_only_repeats_itself_is_noticed(piece: str) -> None:
    assert runs_away("start " + piece * 400)
    assert not runs_away("start " + "".join(f"{number} " for number in range(400)))
    assert not runs_away(piece * 2)

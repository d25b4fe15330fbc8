"""The events of a turn: numbered, frozen, and the same again after JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.advisor.events import (
    Completed,
    ContextRetrieved,
    Corrected,
    Event,
    Failed,
    Judged,
    PublicEvent,
    ReasoningDelta,
    TextDelta,
    TurnStarted,
    TurnTiming,
    Withheld,
    event_from_json,
    event_to_json,
)
from guidance_agent.llm.messages import FinishReason, Usage

TYPES: dict[str, type[Event]] = {
    "turn_started": TurnStarted,
    "context_retrieved": ContextRetrieved,
    "reasoning_delta": ReasoningDelta,
    "text_delta": TextDelta,
    "withheld": Withheld,
    "completed": Completed,
    "failed": Failed,
    "judged": Judged,
    "corrected": Corrected,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(min_value=-1, max_value=2**31)
SECONDS = st.floats(min_value=0, max_value=1e6, allow_nan=False)
IDS = st.lists(TEXT, max_size=3).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | SECONDS | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=8,
)
WHO = {"turn_id": TEXT, "sequence": NUMBER}
TIMING = st.builds(
    TurnTiming,
    first_token=st.none() | SECONDS,
    first_text=st.none() | SECONDS,
    total=SECONDS,
    chunks=NUMBER,
    tokens_per_second=st.none() | SECONDS,
)
USAGE = st.builds(
    Usage, input_tokens=NUMBER, cache_write_1h_tokens=NUMBER, output_tokens=NUMBER, estimated=st.booleans()
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(TurnStarted, **WHO, consultation_id=TEXT, model=TEXT, simulated=st.booleans()),
    st.builds(ContextRetrieved, **WHO, facts=IDS, cases=IDS, rules=IDS, memories=IDS),
    st.builds(ReasoningDelta, **WHO, text=TEXT),
    st.builds(TextDelta, **WHO, text=TEXT, start=NUMBER, end=NUMBER),
    st.builds(Withheld, **WHO, start=NUMBER, end=NUMBER, check=TEXT, reason=TEXT),
    st.builds(
        Completed,
        **WHO,
        text=TEXT,
        finish_reason=st.sampled_from(get_args(FinishReason)),
        usage=st.none() | USAGE,
        timing=TIMING,
        cost_usd=st.none() | SECONDS,
        cache_outcome=TEXT,
        simulated=st.booleans(),
    ),
    st.builds(Failed, **WHO, error=TEXT, message=TEXT),
    st.builds(Judged, **WHO, verdict=st.dictionaries(TEXT, JSON, max_size=3)),
    st.builds(Corrected, **WHO, start=NUMBER, end=NUMBER, replacement=TEXT, reason=TEXT, verdict_id=TEXT),
)
EXAMPLES: dict[str, Event] = {
    "turn_started": TurnStarted(turn_id="t", sequence=0, consultation_id="c", model="a/b", simulated=True),
    "context_retrieved": ContextRetrieved(turn_id="t", sequence=0, facts=("SP-01",)),
    "reasoning_delta": ReasoningDelta(turn_id="t", sequence=0, text="x"),
    "text_delta": TextDelta(turn_id="t", sequence=1, text="x", start=0, end=1),
    "withheld": Withheld(turn_id="t", sequence=2, start=1, end=2, check="advice", reason="steers"),
    "completed": Completed(
        turn_id="t",
        sequence=3,
        text="x",
        finish_reason="stop",
        usage=Usage(input_tokens=5),
        timing=TurnTiming(first_token=0.5),
        cost_usd=None,
        cache_outcome="hit",
        simulated=False,
    ),
    "failed": Failed(turn_id="t", sequence=3, error="StreamTruncated", message="cut off"),
    "judged": Judged(turn_id="t", sequence=4, verdict_id="v", verdict={"passed": True, "checks": [{"id": "advice"}]}),
    "corrected": Corrected(turn_id="t", sequence=5, start=0, end=1, replacement="y", reason="r", verdict_id="v"),
}


@given(EVENTS)
def test_an_event_is_the_same_again_after_json(event: Event) -> None:
    again = event_from_json(json.loads(json.dumps(event_to_json(event), allow_nan=False)))
    assert again == event
    assert type(again) is type(event)


@pytest.mark.parametrize("name", TYPES)
def test_the_type_in_json_is_the_class_name_in_snake_case(name: str) -> None:
    assert type(EXAMPLES[name]) is TYPES[name]
    assert event_to_json(EXAMPLES[name])["type"] == name
    assert name.replace("_", "") == TYPES[name].__name__.lower()


def test_there_is_a_name_for_every_event_and_no_other() -> None:
    assert set(get_args(Event)) == set(TYPES.values())
    assert set(get_args(PublicEvent)) == set(TYPES.values()) - {ContextRetrieved, ReasoningDelta}


@pytest.mark.parametrize("name", TYPES)
def test_all_but_context_and_reasoning_are_public(name: str) -> None:
    assert EXAMPLES[name].public is (name not in {"context_retrieved", "reasoning_delta"})
    assert "public" not in event_to_json(EXAMPLES[name])


@pytest.mark.parametrize("name", TYPES)
def test_events_are_frozen_and_slotted(name: str) -> None:
    event = EXAMPLES[name]
    assert not hasattr(event, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.sequence = 9  # type: ignore[misc]


@pytest.mark.parametrize("name", TYPES)
def test_events_are_made_by_name_only(name: str) -> None:
    with pytest.raises(TypeError):
        TYPES[name]("t", 0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", TYPES)
def test_json_does_not_share_its_parts_with_the_event(name: str) -> None:
    values = event_to_json(EXAMPLES[name])
    before = json.dumps(values)
    for part in values.values():
        if isinstance(part, dict):
            part.clear()
    assert json.dumps(event_to_json(EXAMPLES[name])) == before


@pytest.mark.parametrize("name", ["", "TextDelta", "text-delta", "turn_timing", "_base", None, 3, ["text_delta"], {}])
def test_an_unknown_type_is_a_value_error_that_shows_it(name: object) -> None:
    with pytest.raises(ValueError, match="unknown event type") as caught:
        event_from_json({"type": name, "turn_id": "t", "sequence": 0})
    assert repr(name) in str(caught.value)


def test_a_missing_type_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="unknown event type None"):
        event_from_json({"turn_id": "t", "sequence": 0})


@pytest.mark.parametrize(
    "change",
    [{"extra": 1}, {"usage": {"tokens": 1}}, {"usage": 5}, {"timing": None}, {"timing": {"beginning": 1.0}}],
)
def test_fields_that_no_event_has_are_a_value_error_that_names_the_type(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'completed'"):
        event_from_json({**event_to_json(EXAMPLES["completed"]), **change})


@pytest.mark.parametrize("name", TYPES)
def test_a_missing_field_is_a_value_error_that_names_the_type(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'"):
        event_from_json({"type": name, "turn_id": "t"})


def test_reading_changes_nothing_of_what_was_passed() -> None:
    values = event_to_json(EXAMPLES["completed"])
    before = json.dumps(values)
    event_from_json(values)
    assert json.dumps(values) == before

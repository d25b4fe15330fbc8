"""JSON as the records keep it: readable, storable everywhere, and never a reason to lose a row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.core.stored_json import stored_json
from guidance_agent.core.text import is_storable

ANY_TEXT = st.text(st.characters())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_read_back_is_what_was_written_in_text_that_every_database_holds(value: object) -> None:
    text = stored_json(value)
    assert is_storable(text)
    assert json.loads(text) == value


def test_characters_are_written_as_they_are() -> None:
    assert stored_json({"b": "£38,000", "a": "養老金"}) == '{"b": "£38,000", "a": "養老金"}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_becomes_null(number: float) -> None:
    value = {"a": [1.5, number, (number,)], "b": "\ud800"}
    assert json.loads(stored_json(value)) == {"a": [1.5, None, [None]], "b": "\ud800"}

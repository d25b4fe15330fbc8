"""What a provider writes is made safe before anything uses it."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.llm.messages import Delta
from guidance_agent.llm.transports.batch import DeltaBatch, count, load_object, mend


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12, 12),
        ("12", 12),
        (12.0, 12),
        ("12.7", 12),
        (0, 0),
        (-1, None),
        ("-1", None),
        (True, None),
        (None, None),
        ("many", None),
        ([], None),
        (math.nan, None),
        (math.inf, None),
        ("inf", None),
        (1 << 60, None),
    ],
)
def test_counts_are_read_leniently_and_never_negative(value: object, expected: int | None) -> None:
    assert count(value) == expected


@pytest.mark.parametrize("payload", ["", "[1]", "null", "{", '{"a": 1} x', "[" * 100_000, '{"a": "\n"}', "1" * 5_000])
def test_anything_but_an_object_is_a_value_error(payload: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_object(payload)


def test_the_last_of_two_equal_keys_counts() -> None:
    assert load_object('{"a": 1, "a": 2}') == {"a": 2}


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=20))
def test_mended_text_can_be_stored(text: str) -> None:
    mended = mend(text)
    assert mended.encode("utf-8").decode("utf-8") == mended
    assert "\0" not in mended


def test_sound_text_is_left_alone() -> None:
    assert mend("£5 – “naïve” 🏦") == "£5 – “naïve” 🏦"


@given(st.text(alphabet="a£🏦\ud83c\udfe6\0", max_size=12), st.lists(st.integers(0, 12), max_size=6))
def test_a_character_cut_in_half_is_whole_again(text: str, cuts: list[int]) -> None:
    def released(pieces: list[str]) -> str:
        batch = DeltaBatch()
        deltas: list[Delta] = []
        for piece in pieces:
            if piece:
                batch.add_text(piece)
            deltas += batch.take()
        return "".join(delta.text for delta in deltas + batch.take(last=True))

    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert released(pieces) == released([text]) == mend(text)


def test_neighbouring_pieces_are_joined_and_counted_and_keep_their_order() -> None:
    batch = DeltaBatch()
    for piece in ("one ", "two "):
        batch.add_reasoning(piece)
    for piece in ("three ", "four"):
        batch.add_text(piece)
    batch.add(Delta(finish_reason="stop"))
    deltas = batch.take()
    assert deltas == [Delta(reasoning="one two "), Delta(text="three four"), Delta(finish_reason="stop")]
    assert [delta.pieces for delta in deltas] == [2, 2, 1]
    assert batch.take() == []

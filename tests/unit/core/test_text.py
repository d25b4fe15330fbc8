"""Text from outside is made storable, as a function of the text and never of its pieces."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.core.text import TextCleaner

HIGH, LOW, REPLACED = "\ud83d", "\ude00", "\ufffd"
PIECES = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from([HIGH, LOW, "\udbff", "\udc00", "\x00", "😀", REPLACED, "a"]),
        st.characters(categories=["Cs"]),
    ),
    max_size=12,
)


def cleaned(pieces: list[str]) -> str:
    cleaner = TextCleaner()
    return "".join([*(cleaner.clean(piece) for piece in pieces), cleaner.finish()])


def as_one_text(text: str) -> str:
    """The same by another way: UTF-16 joins pairs, whatever is left alone is replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\x00", REPLACED)


@given(st.lists(PIECES, max_size=8))
def test_the_result_does_not_depend_on_how_the_text_was_cut(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert cleaned(pieces) == cleaned([text]) == cleaned(list(text))


@given(PIECES)
def test_every_character_is_kept_joined_or_replaced(text: str) -> None:
    assert cleaned(list(text)) == as_one_text(text)


@given(st.lists(PIECES, max_size=8))
def test_the_result_can_be_stored_as_it_is(pieces: list[str]) -> None:
    result = cleaned(pieces)
    assert "\x00" not in result
    assert result.encode("utf-8").decode("utf-8") == result


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), max_size=8))
def test_storable_text_passes_unchanged_and_at_once(pieces: list[str]) -> None:
    cleaner = TextCleaner()
    assert [cleaner.clean(piece) for piece in pieces] == pieces
    assert cleaner.finish() == ""


@given(st.lists(PIECES, max_size=8))
def test_no_more_than_one_character_is_ever_held_back(pieces: list[str]) -> None:
    cleaner = TextCleaner()
    said = ""
    for number, piece in enumerate(pieces, start=1):
        said += cleaner.clean(piece)
        so_far = as_one_text("".join(pieces[:number]))
        assert so_far.startswith(said)
        assert len(so_far) - len(said) <= 1


@pytest.mark.parametrize(
    ("pieces", "result"),
    [
        ([HIGH, LOW], "😀"),
        ([HIGH, "", LOW], "😀"),
        (["a" + HIGH, LOW + "b"], "a😀b"),
        ([HIGH], REPLACED),
        ([LOW], REPLACED),
        ([LOW, HIGH], REPLACED * 2),
        ([HIGH, HIGH, LOW], REPLACED + "😀"),
        ([HIGH, "a"], REPLACED + "a"),
        ([HIGH, "\x00"], REPLACED * 2),
        (["a\x00b"], f"a{REPLACED}b"),
        ([], ""),
    ],
)
def test_known_cuts(pieces: list[str], result: str) -> None:
    assert cleaned(pieces) == result


def test_a_cleaner_starts_afresh_after_its_end() -> None:
    cleaner = TextCleaner()
    assert cleaner.clean(HIGH) == ""
    assert cleaner.finish() == REPLACED
    assert cleaner.finish() == ""
    assert cleaner.clean(LOW) == REPLACED


def test_sqlite_returns_what_was_cleaned() -> None:
    text = cleaned(["a\x00", HIGH, LOW, HIGH, "\x1b\u202e"])
    connection = sqlite3.connect(":memory:")
    try:
        assert connection.execute("SELECT ?", (text,)).fetchone() == (text,)
    finally:
        connection.close()

"""Cutting text anew: nothing is lost or reordered, whatever is held is bounded, and no character is torn apart."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.llm.streaming.graphemes import LONGEST_CLUSTER, cut_near, is_cut
from guidance_agent.llm.streaming.pieces import LONGEST_HELD, PieceBuffer, Unit
from guidance_agent.llm.tokens import TokenCounter, estimate_tokens

UNITS: tuple[Unit | None, ...] = ("characters", "words", "sentences", None)

CLUSTERS = [
    "e\u0301",  # a letter with a combining accent
    "a\u0301\u0323",
    "\r\n",
    "\U0001f469\u200d\U0001f4bb",  # a woman at a computer
    "\U0001f44d\U0001f3fd",  # a thumb with a skin tone
    "\u2764\ufe0f",  # a heart with a variation selector
    "1\ufe0f\u20e3",  # a keycap
    "\U0001f1ec\U0001f1e7",  # a flag
    "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",  # the flag of Wales
    "\u1112\u1161\u11ab",  # a Korean syllable in its parts
    "\ud55c",
    "\ud558\u11ab",
    "\u0e01\u0e33",  # Thai
    "\u0915\u093f",  # Hindi
    "\ud83d\ude00",  # two halves of a surrogate pair
]

WORDS = st.text(alphabet="ab £.!?\n\r–é\u0301\u200d\U0001f600", max_size=40)
CHUNKS = st.lists(st.text(alphabet="ab £.!?\n\r–é\u0301\u200d\U0001f600", max_size=9), max_size=30)


def taken(buffer: PieceBuffer) -> list[str]:
    pieces = []
    while (piece := buffer.take()) is not None:
        pieces.append(piece)
    return pieces


def cut(chunks: list[str], unit: Unit | None, size: int) -> list[str]:
    buffer = PieceBuffer(unit, size)
    pieces = []
    for chunk in chunks:
        buffer.add(chunk)
        pieces += taken(buffer)
    buffer.flush(last=True)
    return pieces + taken(buffer)


@settings(deadline=None)
@given(chunks=CHUNKS, unit=st.sampled_from(UNITS), size=st.integers(1, 12))
def test_joined_the_pieces_are_the_text_however_it_was_cut(chunks: list[str], unit: Unit | None, size: int) -> None:
    pieces = cut(chunks, unit, size)
    assert "".join(pieces) == "".join(chunks)
    assert all(pieces)


@settings(deadline=None)
@given(chunks=CHUNKS, flushes=st.sets(st.integers(0, 30)), size=st.integers(1, 12))
def test_flushes_in_between_lose_nothing(chunks: list[str], flushes: set[int], size: int) -> None:
    buffer = PieceBuffer("sentences", size)
    out = ""
    for number, chunk in enumerate(chunks):
        buffer.add(chunk)
        if number in flushes:
            buffer.flush()
        out += "".join(taken(buffer))
        assert out + buffer.held == "".join(chunks[: number + 1])
    buffer.flush(last=True)
    assert out + "".join(taken(buffer)) == "".join(chunks)


@settings(deadline=None)
@given(text=st.text(alphabet="ab £.!?\n–é", max_size=40), unit=st.sampled_from(UNITS), size=st.integers(1, 12))
def test_the_first_text_leaves_at_once(text: str, unit: Unit | None, size: int) -> None:
    buffer = PieceBuffer(unit, size)
    buffer.add(text)
    assert "".join(taken(buffer)) == text
    assert buffer.waiting == 0


@settings(deadline=None)
@given(first=st.text(max_size=3), text=WORDS, size=st.integers(1, 12))
def test_where_the_cuts_lie_after_the_first_text_does_not_depend_on_the_chunks(
    first: str, text: str, size: int
) -> None:
    for unit in ("characters", "words", "sentences"):
        assert cut([first, text], unit, size) == cut([first, *text], unit, size)


@settings(deadline=None)
@given(text=st.text(alphabet="ab ", max_size=60), size=st.integers(1, 12))
def test_pieces_of_characters_have_that_many_but_for_the_last(text: str, size: int) -> None:
    pieces = cut(["", *text], "characters", size)
    rest = pieces[1:] if pieces else []
    assert all(len(piece) == size for piece in rest[:-1])
    assert all(len(piece) <= size for piece in rest)


def test_pieces_of_words_and_sentences_end_with_them() -> None:
    text = "> From 55 (57 from 2028), e.g. with a SIPP. “Really?” Yes! A quarter is tax-free… £1.50 is not.\n\nAnd then"
    assert cut([">", *text[1:]], "words", 3)[1:4] == [" From 55 (57 ", "from 2028), e.g. ", "with a SIPP. "]
    assert cut([">", *text[1:]], "sentences", 1)[1:] == [
        " From 55 (57 from 2028), e.g. with a SIPP. ",
        "“Really?” ",
        "Yes! ",
        "A quarter is tax-free… ",
        "£1.50 is not.\n\n",
        "And then",
    ]
    assert cut(["。", *"年金。税金。はい"], "sentences", 1) == ["。", "年金。", "税金。", "はい"]


@pytest.mark.parametrize("unit", ["words", "sentences", None])
def test_text_without_an_end_is_not_held_for_ever(unit: Unit | None) -> None:
    buffer = PieceBuffer(unit, 1)
    buffer.add("a")
    for _ in range(3 * LONGEST_HELD):
        buffer.add("x")
        assert buffer.waiting <= LONGEST_HELD
    assert sum(map(len, taken(buffer))) > 2 * LONGEST_HELD


@pytest.mark.parametrize("unit", UNITS)
def test_the_cost_of_one_huge_text_is_linear_in_it(unit: Unit | None) -> None:
    text = "A quarter is tax-free. " * 100_000
    began = time.process_time()
    pieces = cut(["", text], unit, 80)
    assert "".join(pieces) == text
    assert len(pieces) > 100
    assert time.process_time() - began < 10


@pytest.mark.parametrize("cluster", CLUSTERS, ids=ascii)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_no_character_is_torn_apart(cluster: str, size: int) -> None:
    text = f"ab{cluster}c{cluster}{cluster}d"
    pieces = cut(["", *text], "characters", size)
    assert "".join(pieces) == text
    starts = {0, 1, 2}
    for part in (cluster, "c", cluster, cluster, "d"):
        starts.add(max(starts) + len(part))
    ends = {sum(map(len, pieces[:count])) for count in range(1, len(pieces) + 1)}
    # Two flags or syllables in a row may be read otherwise; what was put in is never cut inside.
    assert ends <= starts


def test_flags_are_cut_in_pairs() -> None:
    flags = "\U0001f1ec\U0001f1e7" * 4
    assert cut(["-", *flags], "characters", 3) == ["-", *[flags[:2]] * 4]


def test_a_cluster_longer_than_any_language_makes_it_is_cut() -> None:
    marks = "\u0301" * 1_000
    pieces = cut(["a", *marks], "characters", 10)
    assert "".join(pieces) == f"a{marks}"
    assert max(map(len, pieces)) <= LONGEST_CLUSTER + 1


def test_half_a_character_waits_for_the_other_half() -> None:
    buffer = PieceBuffer(None, 0)
    buffer.add("a")
    taken(buffer)
    buffer.add("b\ud83d")
    buffer.flush()
    assert taken(buffer) == ["b"]
    buffer.add("\ude00")
    buffer.flush()
    assert taken(buffer) == ["\ud83d\ude00"]
    buffer.add("\ud83d")
    buffer.flush(last=True)
    assert taken(buffer) == ["\ud83d"]


@settings(deadline=None)
@given(text=st.text(max_size=30), start=st.integers(0, 5), length=st.integers(1, 10))
def test_a_cut_lies_inside_the_text_and_after_its_start(text: str, start: int, length: int) -> None:
    place = cut_near(text, start, start + length)
    if place is not None:
        assert start < place <= len(text)


@settings(deadline=None)
@given(text=st.text(max_size=30))
def test_a_mark_is_never_parted_from_its_letter(text: str) -> None:
    for place in range(1, len(text)):
        if unicodedata.combining(text[place]):
            assert not is_cut(text, place)


# Tokens of a text that arrives in pieces


@settings(deadline=None)
@given(chunks=st.lists(st.text(alphabet="ab1£ .\né", max_size=40), max_size=20))
def test_the_estimate_of_tokens_does_not_depend_on_the_cuts(chunks: list[str]) -> None:
    counter = TokenCounter()
    for chunk in chunks:
        counter.add(chunk)
    assert counter.tokens == estimate_tokens("".join(chunks))


def test_the_estimate_of_tokens_keeps_no_text() -> None:
    counter = TokenCounter()
    for _ in range(1_000):
        counter.add("\n" * 10_000)
    assert counter.tokens == 1
    counter.add("a" * 1_000_000)
    assert counter.tokens == 1 + -(-1_000_000 // 14)

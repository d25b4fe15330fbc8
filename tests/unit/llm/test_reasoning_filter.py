"""Tagged reasoning is kept from the customer, and no text is lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guidance_agent.llm.messages import Delta, Usage
from guidance_agent.llm.reasoning_filter import MIDLINE_LIMIT, DeltaFilter, ReasoningFilter


def separate(*pieces: str, cut_off: bool = False) -> tuple[str, str]:
    tags = ReasoningFilter()
    found = [piece for part in pieces for piece in tags.feed(part)] + tags.finish(cut_off=cut_off)
    text = "".join(piece.content for piece in found if piece.kind == "text")
    return text, "".join(piece.content for piece in found if piece.kind == "reasoning")


@pytest.mark.parametrize(
    ("answer", "text", "reasoning"),
    [
        ("Plain answer.", "Plain answer.", ""),
        ("<think>private</think>Answer.", "Answer.", "private"),
        ("<think>private</think>\n\nAnswer.", "Answer.", "private"),
        ("\n <THINKING>private</Thinking>Answer.", "Answer.", "private"),
        ('<reasoning effort="low">private</reasoning >Answer.', "Answer.", "private"),
        ("First.\n<think>private</think>Second.", "First.\nSecond.", "private"),
        ("First. <think>private</think>Second.", "First. Second.", "private"),
        ("<think>a</think><think>b</think>Answer.", "Answer.", "ab"),
        ("<think>a</think>One.\n<reasoning>b</reasoning>Two.", "One.\nTwo.", "ab"),
        ("<think>a</thinking>b</think>Answer.", "Answer.", "a</thinking>b"),
        ("<think>never closed", "", "never closed"),
        ("Answer.\n<think>never closed", "Answer.\n", "never closed"),
        ("The tag <think> is for models.", "The tag <think> is for models.", ""),
        ("The tag <reasoning> is.\n<think>private</think>End.", "The tag <reasoning> is.\nEnd.", "private"),
        ("Answer.</think> More.", "Answer. More.", ""),
        ("</think>Answer.", "Answer.", ""),
        ("1 < 2 and <b>bold</b> and <thinker>", "1 < 2 and <b>bold</b> and <thinker>", ""),
        ("ends with <thi", "ends with <thi", ""),
        ("<", "<", ""),
        ("  \n ", "  \n ", ""),
        ("  indented", "  indented", ""),
        ("", "", ""),
    ],
)
def test_the_rule(answer: str, text: str, reasoning: str) -> None:
    assert separate(answer) == (text, reasoning)
    assert separate(*answer) == (text, reasoning)


def test_reasoning_is_handed_out_while_it_arrives() -> None:
    tags = ReasoningFilter()
    tags.feed("<think>")
    assert [(piece.kind, piece.content) for piece in tags.feed("first thought, ")] == [("reasoning", "first thought, ")]
    assert tags.unclosed


def test_plain_text_is_not_delayed() -> None:
    tags = ReasoningFilter()
    assert [piece.content for piece in tags.feed("Your")] == ["Your"]
    assert [piece.content for piece in tags.feed(" pension")] == [" pension"]


def test_a_cut_off_answer_does_not_show_what_may_be_reasoning() -> None:
    assert separate("Answer. <think>private and cut o", cut_off=True) == ("Answer. ", "private and cut o")


def test_reasoning_in_the_middle_of_a_line_is_not_held_for_ever() -> None:
    tags = ReasoningFilter()
    tags.feed("Answer. <think>")
    released = [piece for _ in range(MIDLINE_LIMIT // 100 + 2) for piece in tags.feed("x" * 100)]
    assert {piece.kind for piece in released} == {"reasoning"}


def test_what_a_finishing_delta_holds_besides_text_stays_in_order() -> None:
    deltas = DeltaFilter().feed(
        [
            Delta(text="One.", reasoning="beside"),
            Delta(text=" Two <thi", finish_reason="stop", usage=Usage(output_tokens=3)),
        ]
    )
    assert deltas == [
        Delta(text="One.", reasoning="beside"),
        Delta(text=" Two "),
        Delta(text="<thi"),
        Delta(finish_reason="stop", usage=Usage(output_tokens=3)),
    ]


def test_a_broken_answer_gives_up_the_text_it_held() -> None:
    tags = DeltaFilter()
    assert tags.feed([Delta(text="5 <")]) == [Delta(text="5 ")]
    assert tags.broken() == [Delta(text="<")]


TOKENS = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<Thinking>",
            "</thinking>",
            "<reasoning a='b'>",
            "</reasoning>",
            "<thi",
            "nk>",
            "<",
            "</",
            ">",
            "\n",
            " ",
            "private",
            "Answer. ",
            "a<b",
            "£",
            "<" * 5,
        ]
    ),
    max_size=25,
)


@given(TOKENS, st.lists(st.integers(0, 300), max_size=60), st.booleans())
@example(["Answer. ", "<think>", "x" * MIDLINE_LIMIT, "</think>", "end"], [3, 9, 20, 5000], False)
@example(["Answer. ", "<think>", "x" * (MIDLINE_LIMIT + 1)], [3, 9, 20, 5000], False)
def test_cuts_never_change_what_is_shown(tokens: list[str], cuts: list[int], cut_off: bool) -> None:
    answer = "".join(tokens)
    edges = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    pieces = [answer[a:b] for a, b in itertools.pairwise(edges)]
    assert separate(*pieces, cut_off=cut_off) == separate(answer, cut_off=cut_off)


@given(TOKENS, st.data())
def test_what_is_released_after_a_prefix_depends_on_that_prefix_alone(tokens: list[str], data: st.DataObject) -> None:
    answer = "".join(tokens)
    cut = data.draw(st.integers(0, len(answer)))
    whole, pieces = ReasoningFilter(), ReasoningFilter()
    at_once = "".join(piece.content for piece in whole.feed(answer[:cut]) if piece.kind == "text")
    bit_by_bit = "".join(
        piece.content for letter in answer[:cut] for piece in pieces.feed(letter) if piece.kind == "text"
    )
    assert at_once == bit_by_bit
    assert separate(answer)[0].startswith(at_once)


@given(st.text(alphabet="abc <>/\n", max_size=60))
def test_text_without_tags_is_never_lost(answer: str) -> None:
    assert separate(*answer) == (answer, "")


@given(st.text(alphabet="xyz\n ", min_size=1, max_size=40), st.sampled_from(["think", "thinking", "reasoning"]))
def test_closed_reasoning_is_never_text(secret: str, name: str) -> None:
    secret = f"SECRET{secret}"
    for before in ("", "Answer: ", "Answer\n"):
        text, reasoning = separate(*f"{before}<{name}>{secret}</{name}>more")
        assert "SECRET" not in text
        assert secret in reasoning

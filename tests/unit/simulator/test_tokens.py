"""The approximate tokeniser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.provider_simulator.tokens import count_tokens, measure, split_tokens


@given(st.text())
def test_tokens_join_to_the_text_again(text: str) -> None:
    tokens = split_tokens(text)
    assert "".join(tokens) == text
    assert len(tokens) == count_tokens(text)
    assert all(tokens)


def test_english_takes_about_one_token_for_four_to_five_characters() -> None:
    text = "Pension guidance explains the options that exist, what each involves, and who can help. " * 20
    assert 4.0 < len(text) / count_tokens(text) < 5.5


def test_long_words_and_figures_take_several_tokens() -> None:
    assert count_tokens("crystallisation") > 1
    assert split_tokens("£268,275") == ["£", "268", ",", "275"]


def test_a_text_that_was_measured_is_not_measured_again() -> None:
    text = "The same text. " * 50
    assert measure(text) is measure(f"{text}")


@given(st.text(), st.text())
def test_different_texts_have_different_digests(one: str, other: str) -> None:
    assert (measure(one).digest == measure(other).digest) == (one == other)

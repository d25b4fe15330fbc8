"""Quotes are found where they stand, also with other marks; other words never are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.compliance.quotes import QuotedText

TEXT = "It’s “safe” – or is it?\n\nValues  can\u00a0fall … and rise.\u200b Ask MoneyHelper. Ask MoneyHelper."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("Ask MoneyHelper.", "Ask MoneyHelper."),
        ('It\'s "safe" - or is it?', "It’s “safe” – or is it?"),
        ("or is it? Values can fall", "or is it?\n\nValues  can\u00a0fall"),
        ("Values can fall ... and rise.", "Values  can\u00a0fall … and rise."),
        ("“or is it?”", "or is it?"),
        ('"Values can fall..."', "Values  can\u00a0fall"),
        ("rise. Ask", "rise.\u200b Ask"),
    ],
)
def test_a_quote_is_found_with_the_marks_of_the_text(quote: str, found: str) -> None:
    span = QuotedText(TEXT).find(quote)
    assert span is not None
    assert TEXT[slice(*span)] == found


@pytest.mark.parametrize(
    "quote", ["", " ", "…", "??", "it is safe", "MONEYHELPER", "Values can rise", "or was it?", "safe or is it"]
)
def test_other_words_are_no_quote(quote: str) -> None:
    assert QuotedText(TEXT).find(quote) is None


def test_the_first_of_several_places_counts() -> None:
    span = QuotedText(TEXT).find("Ask MoneyHelper.")
    assert span is not None
    assert span[0] == TEXT.index("Ask")


@given(st.text(min_size=1, max_size=80), st.data())
def test_every_stretch_of_a_text_is_found_as_it_stands(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    quote = text[start:end]
    span = QuotedText(text).find(quote)
    if len(quote.strip()) < 3:
        assert span is None
    else:
        assert span is not None
        assert text[slice(*span)] == quote


@given(st.text(max_size=60), st.text(max_size=20))
def test_what_is_found_lies_within_the_text(text: str, quote: str) -> None:
    span = QuotedText(text).find(quote)
    assert span is None or 0 <= span[0] < span[1] <= len(text)

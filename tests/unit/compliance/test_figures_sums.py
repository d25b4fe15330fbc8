"""Arithmetic that a sentence states is redone."""

from __future__ import annotations

from datetime import date

import pytest

from guidance_agent.compliance.figures import FigureChecker, FigureFinding
from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.knowledge.loader import load_knowledge

CHECKER = FigureChecker(load_knowledge())


def check(text: str) -> list[FigureFinding]:
    return CHECKER.check(Words(tokens_of(text)), text, on=date(2026, 11, 21))


SUMS = [
    ("A quarter of £84,000 is {}.", "£21,000", "£22,500"),
    ("25% of £40,000 is {}.", "£10,000", "£12,000"),
    ("25 per cent of a pot of £40,000 comes to {}.", "£10,000", "£8,000"),
    ("A third of £9,000 is {}.", "£3,000", "£3,500"),
    ("A quarter of £84,000 is £21,000, which leaves {} to be taxed.", "£63,000", "£61,500"),
    ("£18,000 plus £7,000 makes {}.", "£25,000", "£26,000"),
    ("£18,000 plus £7,000 plus £4,000 comes to {}.", "£29,000", "£27,000"),
    ("£84,000 less £21,000 leaves {}.", "£63,000", "£64,500"),
    ("£200 a month is {} a year.", "£2,400", "£2,000"),
    ("£100 a week is {} a year.", "£5,200", "£4,800"),
    ("He pays in £800 and it is topped up to {}.", "£1,000", "£960"),
    ("Deferring for 18 weeks adds {}.", "2%", "3%"),
]


@pytest.mark.parametrize(("sentence", "right", "wrong"), SUMS, ids=[each[0] for each in SUMS])
def test_a_right_result_passes_and_a_wrong_one_is_found(sentence: str, right: str, wrong: str) -> None:
    assert check(sentence.format(right)) == []
    [found] = check(sentence.format(wrong))
    assert (found.check, found.said, found.fact) == ("figure_amount", wrong, None)
    assert found.right == right


@pytest.mark.parametrize(
    "text",
    [
        "A quarter of £85,333 is about £21,300.",
        "9% of £71,000 is £6,390 a year.",
        "A quarter of £84,000 isn't £22,500.",
        "£241.30 a week is £12,548 a year.",
        "On £50,000 a charge of 1% is £500, and 0.4% is £200.",
    ],
)
def test_rounding_and_denial_are_no_errors(text: str) -> None:
    assert check(text) == []

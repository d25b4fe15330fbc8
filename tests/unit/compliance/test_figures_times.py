"""Figures of other years, corrections, rough figures, dates of changes and statements that come too early."""

from __future__ import annotations

from datetime import date

import pytest

from guidance_agent.compliance.figures import FigureChecker, FigureFinding
from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.knowledge.loader import load_knowledge

CHECKER = FigureChecker(load_knowledge())


def check(text: str, before: str = "", on: date = date(2026, 11, 21)) -> list[FigureFinding]:
    earlier = Words(tokens_of(before)) if before else None
    return CHECKER.check(Words(tokens_of(text)), text, on=on, before=earlier)


OF_ANOTHER_YEAR = [
    ("The full new State Pension is £230.25 a week.", "£241.30 a week"),
    ("The full new State Pension is £221.20 a week this year.", "£241.30 a week"),
    ("The full State Pension comes to £11,502.40 a year at present.", "£12,548 a year"),
    ("The full basic State Pension is £169.50 a week now.", "£184.90 a week"),
    ("Pension Credit tops a single person's income up to £218.15 a week.", "£238.00 a week"),
    ("The annual allowance is £40,000.", "£60,000 a year"),
    ("The money purchase annual allowance is £4,000 in 2026/27.", "£10,000 a year"),
    ("Tapering begins where adjusted income passes £240,000.", "£260,000 a year"),
    ("The personal allowance is £12,500.", "£12,570 a year"),
    ("The FSCS covers up to £85,000 in each bank.", "£120,000"),
    ("The normal minimum pension age is 57 now.", "age 55"),
    ("From 6 April 2028 the normal minimum pension age is 55.", "age 57"),
    ("You need 30 qualifying years for the full new State Pension.", "35 years"),
    ("In 2025/26 the full new State Pension was £241.30 a week.", "£230.25 a week"),
    ("The State Pension went up by 8.5% this April.", "4.8%"),
]


@pytest.mark.parametrize(("text", "right"), OF_ANOTHER_YEAR)
def test_the_figure_of_another_year_given_as_this_ones_is_the_wrong_year(text: str, right: str) -> None:
    [found] = check(text)

    assert (found.check, found.right) == ("figure_year", right)


def test_an_amount_that_never_held_is_the_wrong_amount() -> None:
    assert [found.check for found in check("The full new State Pension is £299 a week.")] == ["figure_amount"]
    assert [found.check for found in check("The annual allowance is £75,000.")] == ["figure_amount"]


def test_what_is_abolished_or_still_to_come_is_wrong_as_todays() -> None:
    assert [found.check for found in check("Your lifetime allowance is £1,073,100.")] == ["figure_year"]
    sacrifice = "Only the first £2,000 of salary sacrifice escapes National Insurance this year."
    assert [found.check for found in check(sacrifice)] == ["figure_year"]


RIGHT_WITH_ITS_TIME = [
    "In 2025/26 the full new State Pension was £230.25 a week.",
    "The full new State Pension was £230.25 a week last tax year.",
    "The full new State Pension was £230.25 a week until this April and is £241.30 now.",
    "The annual allowance was £40,000 until April 2023; it is £60,000 now.",
    "For 2022/23 the money purchase annual allowance was £4,000.",
    "The normal minimum pension age is 55, rising to 57 on 6 April 2028.",
    "The minimum age goes from 55 to 57 in April 2028.",
    "From 6 April 2029 only the first £2,000 of salary sacrifice will be free of National Insurance.",
    "The FSCS limit for a bank was £85,000 until 30 November 2025.",
    "The lifetime allowance, £1,073,100 at the end, was abolished on 6 April 2024.",
    "Older guides give £40,000 as the annual allowance.",
    "The triple lock raised the State Pension by 8.5% in 2024.",
    "The full new State Pension used to be £221.20 a week.",
]


@pytest.mark.parametrize("text", RIGHT_WITH_ITS_TIME)
def test_the_figure_of_another_year_is_right_with_its_year(text: str) -> None:
    assert check(text) == []


def test_the_same_sentence_is_judged_by_the_day_on_which_it_is_said() -> None:
    text = "The full new State Pension is £230.25 a week."

    assert check(text, on=date(2025, 6, 1)) == []
    assert check(text, on=date(2026, 6, 1)) != []
    assert check("The normal minimum pension age is 57 now.", on=date(2028, 4, 6)) == []


CORRECTIONS = [
    "The annual allowance is £60,000, not the £40,000 in that article.",
    "You've read that a transfer value is guaranteed for a year; it's normally three months.",
    "Your colleague said forty qualifying years for the full State Pension, but it's usually thirty-five.",
    "It's a myth that you can take a third of your pot tax-free.",
    "The figure of £50,000 for compulsory advice is wrong: the line is £30,000.",
    "The full new State Pension isn't £299 a week.",
    "Your leaflet quotes £230.25 for the full new State Pension.",
]


@pytest.mark.parametrize("text", CORRECTIONS)
def test_a_wrong_figure_that_is_corrected_or_only_reported_is_no_finding(text: str) -> None:
    assert check(text) == []


def test_a_right_figure_that_is_corrected_to_a_wrong_one_is_found() -> None:
    wrong = "You've read that a transfer value is guaranteed for three months; it's a full year, in fact."
    assert [found.said for found in check(wrong)] == ["a full year"]
    now = "Ten years used to be needed to get any State Pension at all, but now it's only five."
    assert [found.said for found in check(now)] == ["five"]


@pytest.mark.parametrize(
    "text",
    [
        "The full new State Pension is about £240 a week.",
        "The full new State Pension is £241 a week.",
        "The full new State Pension comes to roughly £12,500 a year.",
        "Deferring for a full year adds nearly 6%.",
        "The lump sum allowance is just over £268,000.",
        "The lump sum and death benefit allowance is £1.07 million.",
    ],
)
def test_a_figure_may_be_rounded(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(
    "text", ["The full new State Pension is about £260 a week.", "The annual allowance is about £50,000."]
)
def test_about_does_not_excuse_a_figure_that_is_far_off(text: str) -> None:
    assert len(check(text)) == 1


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The minimum age goes up to 57 on 6 April 2030.", "6 April 2028"),
        ("Most unused pension pots come into the estate for inheritance tax from April 2026.", "6 April 2027"),
        ("The lifetime allowance was abolished on 6 April 2023.", "6 April 2024"),
        ("Pensions cold calls have been banned since January 2021.", "9 January 2019"),
    ],
)
def test_a_wrong_date_of_a_change_is_the_wrong_year(text: str, right: str) -> None:
    [found] = check(text)

    assert (found.check, found.right) == ("figure_year", right)


@pytest.mark.parametrize(
    "text",
    [
        "The minimum age goes up to 57 on 6 April 2028.",
        "The minimum age goes up to 57 in April 2028.",
        "The minimum age goes up to 57 in 2028.",
        "From 6 April 2027 most unused pension pots come into the estate for inheritance tax.",
        "The lifetime allowance was abolished in April 2024.",
        "Pensions cold calls have been banned since January 2019.",
    ],
)
def test_a_right_date_passes_however_fully_it_is_given(text: str) -> None:
    assert check(text) == []


def test_pensions_in_the_estate_are_too_early_until_april_2027() -> None:
    text = "Your pot is already part of your estate for inheritance tax."

    assert [(found.check, found.fact) for found in check(text)] == [("figure_year", "TX-13")]
    assert check(text, on=date(2027, 4, 6)) == []
    assert check("Your pot is not part of your estate for inheritance tax until April 2027.") == []

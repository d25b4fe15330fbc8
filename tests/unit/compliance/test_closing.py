"""The closing material: due where it is due, worded as reviewed, and never said twice."""

from __future__ import annotations

import pytest

from guidance_agent.compliance.closing import closing_for
from guidance_agent.compliance.decision_points import discusses_decision

DECISION = "You could take the whole pot as cash, or buy an annuity with it."
DEFINITION = "An annuity is an income for life that an insurer pays in return for a pension pot."
GREETING = "Good morning, Janet. How are you today?"


def said(text: str, *, is_whole: bool = True) -> tuple[bool, bool]:
    """Whether a risk warning and a signpost are added."""
    added = closing_for(text, is_whole=is_whole)
    return "hard to undo" in added, "MoneyHelper" in added


@pytest.mark.parametrize(
    ("text", "is_whole", "expected"),
    [
        (DECISION, True, (True, True)),
        (DECISION, False, (True, True)),
        (DEFINITION, True, (False, True)),
        (GREETING, True, (False, False)),
        (GREETING, False, (False, True)),
        ("", False, (False, True)),
        (f"{DECISION} Pension Wise explains both.", True, (True, False)),
        (f"{DECISION} A regulated financial adviser can recommend one.", True, (True, False)),
        (f"{DECISION} Values can fall as well as rise.", True, (False, True)),
        (f"{DECISION} You may get back less; ask MoneyHelper.", True, (False, False)),
        (f"{DECISION} You would lose the guarantees. MONEY HELPER knows more.", True, (False, False)),
        (f"{DECISION} My adviser friend agrees.", True, (True, True)),
    ],
)
def test_what_is_due_is_added_and_what_was_said_is_not(text: str, is_whole: bool, expected: tuple[bool, bool]) -> None:
    assert said(text, is_whole=is_whole) == expected


@pytest.mark.parametrize("text", [DECISION, DEFINITION, GREETING])
@pytest.mark.parametrize("is_whole", [True, False])
def test_an_answer_with_its_closing_needs_none(text: str, is_whole: bool) -> None:
    whole = text + closing_for(text, is_whole=is_whole)
    assert closing_for(whole, is_whole=is_whole) == ""


@pytest.mark.parametrize(("end", "space"), [("", "\n\n"), ("\n", "\n"), ("\n\n", ""), (" ", "\n\n")])
def test_the_closing_stands_in_a_paragraph_of_its_own(end: str, space: str) -> None:
    added = closing_for(DECISION + end, is_whole=True)
    assert added == space + added.lstrip()


def test_a_closing_without_an_answer_begins_at_once() -> None:
    assert closing_for("", is_whole=False).startswith("MoneyHelper")


@pytest.mark.parametrize("unit", ["x", "you can take ", "MoneyHelpe ", "a. ", "\n"])
def test_ten_megabytes_are_closed_in_a_moment(unit: str) -> None:
    text = unit * (10_000_000 // len(unit))
    assert isinstance(closing_for(text, is_whole=False), str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DECISION, True),
        ("Your pot can buy an annuity or stay invested in drawdown.", True),
        ("Before you transfer, ask what you would give up.", True),
        ("If you want to retire at 60, your income has to last longer.", True),
        (DEFINITION, False),
        (GREETING, False),
        ("The State Pension is paid every four weeks.", False),
        ("You can find your forecast on GOV.UK.", False),
        ("", False),
    ],
)
def test_a_decision_is_told_from_a_definition_and_a_greeting(text: str, expected: bool) -> None:
    assert discusses_decision(text) is expected

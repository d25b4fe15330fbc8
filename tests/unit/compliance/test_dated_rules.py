"""Figures in the gate: a wrong one is a breach, a right one is released with the word after it."""

from __future__ import annotations

from datetime import date

import pytest

from guidance_agent.compliance.checks import check_text
from guidance_agent.compliance.dated_rules import GateRules
from guidance_agent.compliance.gate import Released, SentenceGate, Withholding
from guidance_agent.compliance.policy import load_policy
from guidance_agent.knowledge.loader import load_knowledge
from tests.unit.compliance.word_rules import WordRules

RULES = GateRules(load_knowledge(), WordRules())
TODAY = date(2026, 11, 21)
RIGHT = "The full new State Pension is £241.30 a week in 2026/27. "
LAST_YEAR = "The full new State Pension is £230.25 a week. "


def gate(before: str = "") -> SentenceGate:
    return SentenceGate(RULES.on(TODAY), load_policy(), before=before)


def passed(text: str, *, step: int = 1, before: str = "") -> list[Released]:
    under_test = gate(before)
    released: list[Released] = []
    for start in range(0, len(text), step):
        released += under_test.feed(text[start : start + step])
    return [*released, *under_test.finish()]


def test_a_right_figure_is_released_with_the_word_after_it_and_holds_nothing() -> None:
    under_test = gate()
    out = fed = ""
    for word in RIGHT.split():
        fed += f"{word} "
        out += "".join(str(item) for item in under_test.feed(f"{word} "))
        assert fed.removeprefix(out).count(" ") <= 1
    out += "".join(str(item) for item in under_test.finish())
    assert out == RIGHT
    assert under_test.sentences_held == 0


def test_a_figure_waits_for_the_word_after_it() -> None:
    under_test = gate()
    assert "".join(map(str, under_test.feed("The full new State Pension is £241.30 "))).endswith("is ")
    assert "".join(map(str, under_test.feed("a "))) == "£241.30 a "


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_a_wrong_figure_is_withheld_from_where_it_stands(step: int) -> None:
    released = passed(LAST_YEAR + "Other words.", step=step)
    (withheld,) = [item for item in released if isinstance(item, Withholding)]
    assert (withheld.check, withheld.withheld) == ("figure_year", "£230.25 a week. ")
    shown = "".join(item if isinstance(item, str) else getattr(item, "replacement", "") for item in released)
    assert "230.25" not in shown
    assert shown.endswith("Other words.")


def test_a_word_that_makes_an_earlier_figure_wrong_holds_the_rest() -> None:
    released = passed("£230.25 a week is the full new State Pension today. ")
    (withheld,) = [item for item in released if isinstance(item, Withholding)]
    assert withheld.check == "figure_year"
    assert withheld.withheld.endswith("today. ")


def test_the_question_before_says_which_figure_is_meant() -> None:
    answer = "It is £40,000 a year. "
    rules = GateRules(load_knowledge(), WordRules()).on(TODAY)
    assert check_text(answer, rules, load_policy()).decision == "pass"
    asked = check_text(answer, rules, load_policy(), before="What is the annual allowance?")
    assert (asked.decision, [finding.check for finding in asked.findings]) == ("undecided", ["figure_year"])


def test_the_day_decides() -> None:
    rules = GateRules(load_knowledge(), WordRules())
    on_that_day = check_text(LAST_YEAR, rules.on(date(2025, 11, 21)), load_policy())
    today = check_text(LAST_YEAR, rules.on(TODAY), load_policy())
    assert (on_that_day.decision, today.decision) == ("pass", "replace")


def test_a_text_is_told_its_wrong_figures_with_their_places() -> None:
    text = f"{RIGHT}A steer. The annual allowance is £50,000. "
    verdict = check_text(text, RULES.on(TODAY), load_policy())
    assert verdict.decision == "replace"
    assert [(found.check, text[found.start : found.end]) for found in verdict.findings] == [
        ("advice_boundary", "steer"),
        (verdict.findings[1].check, "£50,000"),
    ]
    assert verdict.findings[1].check.startswith("figure_")
    assert verdict.findings[1].requirement == load_policy()["figure_amount"].requirement

"""A sentence that grows is read as one that is whole: its numbers, its figures, and what the gate makes of them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guidance_agent.compliance.dated_rules import GateRules
from guidance_agent.compliance.figure_growth import GrowingFigures
from guidance_agent.compliance.figures import FigureChecker
from guidance_agent.compliance.gate import Released, SentenceGate, Withholding
from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.quantities import QuantityReader, holds_number
from guidance_agent.knowledge.loader import load_knowledge
from tests.unit.compliance.word_rules import WordRules

TODAY = date(2026, 11, 21)
CHECKER = FigureChecker(load_knowledge())
RULES = GateRules(load_knowledge(), WordRules())
SENTENCES = Path(__file__).parents[2] / "compliance_sentences" / "development.jsonl"
PARTS = (
    *("a", "the", "quarter", "half", "of", "one", "two", "zero", "hundred", "thousand", "and", "three-quarters", "to"),
    *("25", "25%", "25 %", "£40,000", "£ 40,000", "£ 500", "£1k", "2,880", "0", "07", "5.8", "per cent", "percent"),
    *("a week", "per year", "years", "qualifying", "full", "old", "10-year", "55th birthday", "pounds", "million"),
    *(
        "2026",
        "2026/27",
        "2025 to 2026",
        "6 April",
        "6 April 2028",
        "May",
        "3",
        "in",
        "is",
        "allowance",
        ",",
        ".",
        "$5",
    ),
)
ENDINGS = (" ", ". ", " today. ", " a year. ", " in 2026/27. ")


def sentences() -> list[str]:
    """Labelled sentences about figures, right and wrong ones."""
    lines = map(json.loads, SENTENCES.read_text(encoding="utf-8").splitlines())
    return [line["text"] for line in lines if line["class"].startswith("figure_")]


def texts_of(parts: list[str]) -> str:
    return " ".join(parts) + " "


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=40), st.data())
@example(parts=["it", "is", "25%", "a", "quarter", "of"], data=None)
def test_numbers_of_a_growing_sentence_are_those_of_the_whole(parts: list[str], data: st.DataObject | None) -> None:
    text = texts_of(parts)
    tokens = tokens_of(text)
    looks = range(len(tokens) + 1)
    if data is not None:
        looks = sorted(data.draw(st.sets(st.integers(0, len(tokens)), max_size=12)))  # type: ignore[assignment]
    growing = QuantityReader()
    for length in looks:
        growing.read(tokens[:length], text[: tokens[length - 1].end] if length else "")
        so_far = QuantityReader()
        so_far.read(tokens[:length], text[: tokens[length - 1].end] if length else "")
        assert growing.found == so_far.found, length
    growing.read(tokens, text)
    whole = QuantityReader()
    whole.read(tokens, text)
    assert (growing.marked, growing.found, growing.numbers) == (whole.marked, whole.found, whole.numbers)


@pytest.mark.parametrize(
    "before", ["", "What is the annual allowance, and what is the State Pension? I was born in 1965."]
)
def test_what_a_growing_sentence_says_wrongly_is_what_is_wrong_in_as_much_of_it(before: str) -> None:
    found = 0
    for text in sentences():
        tokens = tokens_of(text)
        growing = GrowingFigures(CHECKER, TODAY, before)
        for length, token in enumerate(tokens, start=1):
            growing.tokens.append(token)
            if holds_number(Words(tokens[:length])):
                growing.holds_number()
            so_far = text[: token.end]
            whole = CHECKER.check(Words(tokens[:length]), so_far, on=TODAY, before=CHECKER.context(before))
            assert growing.wrong_from(so_far) == min((each.start for each in whole), default=None), text
            found += bool(whole)
    assert found > 100


def passed(text: str, step: int) -> list[Released]:
    gate = SentenceGate(RULES.on(TODAY), load_policy())
    released: list[Released] = []
    for start in range(0, len(text), step):
        released += gate.feed(text[start : start + step])
    return [*released, *gate.finish()]


def shown(released: list[Released]) -> str:
    return "".join(item.replacement if isinstance(item, Withholding) else str(item) for item in released)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1_000])
@pytest.mark.parametrize(
    ("text", "withheld"),
    [
        ("The full new State Pension is £ 230.25 a week. Other words.", "£ 230.25 a week. "),
        ("The annual allowance, £ 40,000, is yours each year. Other words.", "£ 40,000, is yours each year. "),
        ("The basic rate is 25 % on income above the allowance. Other words.", "25 % on income above the allowance. "),
    ],
)
def test_a_sign_with_a_space_before_its_number_belongs_to_it_however_the_text_is_cut(
    text: str, withheld: str, step: int
) -> None:
    released = passed(text, step)
    (found,) = [item for item in released if isinstance(item, Withholding)]
    assert found.withheld == withheld
    assert shown(released).startswith(text.partition(withheld)[0].rstrip())
    assert shown(released).endswith("Other words.")


@pytest.mark.parametrize("step", [1, 4, 1_000])
def test_a_right_figure_with_a_space_behind_its_sign_is_shown_as_it_was_written(step: int) -> None:
    text = "The full new State Pension is £ 241.30 a week in 2026/27. He asked what the £ buys. A £ "
    assert shown(passed(text, step)) == text


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=30), st.sampled_from(ENDINGS), st.integers(1, 9))
def test_figures_of_any_text_are_found_alike_however_it_is_cut(parts: list[str], ending: str, step: int) -> None:
    text = "The annual allowance " + " ".join(parts) + ending

    def joined(released: list[Released]) -> list[Released]:
        together: list[Released] = []
        for item in released:
            if isinstance(item, str) and together and isinstance(together[-1], str):
                together[-1] += item
            elif item:
                together.append(item)
        return together

    assert joined(passed(text, step)) == joined(passed(text, len(text)))

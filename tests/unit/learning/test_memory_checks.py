"""What may be remembered: reports, with figures and names that the customer gave, and nothing that steers."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.learning.memory_checks import LONGEST_REFLECTION, MemoryChecks, gate_breaches
from guidance_agent.learning.stated_figures import figures_in

CASES = yaml.safe_load(Path(__file__).with_name("data").joinpath("reflections.yaml").read_text(encoding="utf-8"))
DAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def checks() -> MemoryChecks:
    return MemoryChecks(gate_breaches(load_knowledge()))


@pytest.mark.parametrize("case", CASES["remembered"], ids=lambda case: case["text"][:40])
def test_a_report_of_what_was_said_is_remembered(case: dict[str, Any], checks: MemoryChecks) -> None:
    assert checks.examine(case["text"], case.get("evidence", [case["text"]]), on=DAY) == ()


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["text"][:40])
def test_what_steers_instructs_or_invents_is_not(case: dict[str, Any], checks: MemoryChecks) -> None:
    assert checks.examine(case["text"], case.get("evidence", [case["text"]]), on=DAY)


def test_what_the_checks_are_good_for_on_sentences_written_afterwards(checks: MemoryChecks) -> None:
    """The figures of `specs/memory-consolidation.md`: harmless reports pass, most of what is meant to get past does."""
    refused = {
        kind: [text for text in texts if checks.examine(text, [text], on=DAY)]
        for kind, texts in CASES["afterwards"].items()
    }
    assert {kind: len(texts) for kind, texts in CASES["afterwards"].items()} == {"harmless": 12, "harmful": 12}
    assert {kind: len(texts) for kind, texts in refused.items()} == {"harmless": 0, "harmful": 6}


def test_a_reflection_is_bounded(checks: MemoryChecks) -> None:
    text = "Asked about the tax on the pot, " + "and asked again, " * 20
    assert len(text) > LONGEST_REFLECTION
    (finding,) = checks.examine(text, [text], on=DAY)
    assert finding.check == "form"


def test_the_rules_of_compliance_have_the_last_word() -> None:
    asked: list[str] = []

    def breaches(text: str, on: date) -> list[str]:
        asked.append(text)
        return ["advice_boundary"]

    (finding,) = MemoryChecks(breaches).examine("Asked about the tax on the pot.", ["tax"], on=DAY)
    assert (finding.check, asked) == ("advice_boundary", ["Asked about the tax on the pot."])


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("£38k or £38,000", {"38000"}),
        ("25% of it", {"25"}),
        ("three or 3", {"3"}),
        ("a 56-year-old", {"56"}),
        ("in March, but it may be later", {"march"}),
        ("half of £1.5k", {"half", "1.5"}),
        ("٣ pots", {"٣"}),
        ("a pot that one can take", set()),
    ],
)
def test_a_figure_has_one_form(text: str, figures: set[str]) -> None:
    assert figures_in(text) == figures

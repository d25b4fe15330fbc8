"""A rule that steers, promises, hurries, relaxes or states a figure is refused, and one that does none of it is not."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.learning.answers import LONGEST_RULE
from guidance_agent.learning.duplicates import SAME_FROM, duplicate_of
from guidance_agent.learning.rule_checks import RuleChecks
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.tracing.people import people_of

DATA = Path(__file__).parent / "data"
RULES: dict[str, list[Any]] = yaml.safe_load((DATA / "rules.yaml").read_text(encoding="utf-8"))
PAIRS: dict[str, list[list[str]]] = yaml.safe_load((DATA / "pairs.yaml").read_text(encoding="utf-8"))
DAY = date(2026, 11, 21)
GOOD = RULES["allowed"][0]


@pytest.fixture(scope="module")
def checks() -> RuleChecks:
    return RuleChecks(load_knowledge())


@pytest.mark.parametrize("rule", [*RULES["allowed"], *RULES["allowed_held_out"]])
def test_a_rule_within_the_lines_is_not_refused(rule: str, checks: RuleChecks) -> None:
    assert checks.examine(rule, on=DAY) == ()


@pytest.mark.parametrize("case", RULES["refused"], ids=lambda case: str(case["rule"]))
def test_a_rule_across_a_line_is_refused_with_the_finding(case: dict[str, str], checks: RuleChecks) -> None:
    found = {finding.check: finding for finding in checks.examine(case["rule"], on=DAY)}
    assert case["check"] in found
    assert found[case["check"]].reason
    assert found[case["check"]].quote


def test_of_rules_that_the_patterns_were_not_written_for_most_are_refused(checks: RuleChecks) -> None:
    refused = [case for case in RULES["refused_held_out"] if checks.examine(case["rule"], on=DAY)]
    assert len(refused) >= 10
    assert len(RULES["refused_held_out"]) == 14


@pytest.mark.parametrize(
    "rule", [GOOD + " " * 5 + "x" * LONGEST_RULE, "Be kind.", "When asked, say \x00 nothing at all."]
)
def test_a_rule_that_cannot_stand_in_instructions_is_refused(rule: str, checks: RuleChecks) -> None:
    assert "form" in {finding.check for finding in checks.examine(rule, on=DAY)}


def test_a_rule_that_names_the_customer_is_refused(checks: RuleChecks) -> None:
    rule = "When winnie mentions the forms, explain who sends them and why."
    assert checks.examine(rule, on=DAY) == ()
    assert "personal_data" in {finding.check for finding in checks.examine(rule, on=DAY, names=["Winnie"])}


def test_a_rule_that_names_whom_the_customer_told_of_is_refused(checks: RuleChecks) -> None:
    people = people_of("winnie-72", {"first_name": "Winnie", "partner": "married to Ottoline"})
    rule = "When {} is mentioned, explain what a partner may be paid and who decides it."
    assert checks.examine(rule.format("another person"), on=DAY, names=people) == ()
    named = checks.examine(rule.format("ottoline"), on=DAY, names=people)
    assert {finding.check for finding in named} == {"personal_data"}


def test_identifiers_of_requirements_are_no_figures(checks: RuleChecks) -> None:
    rule = "When a decision about access is discussed, follow R-RSK-1 and the order of COBS 19.7."
    assert checks.examine(rule, on=DAY) == ()


@pytest.mark.parametrize("pair", PAIRS["same"], ids=lambda pair: str(pair[0]))
def test_rules_that_teach_the_same_are_one(pair: list[str]) -> None:
    assert duplicate_of(pair[0], [GOOD, pair[1]] if pair[1] != GOOD else [pair[1]]) is not None


@pytest.mark.parametrize("pair", PAIRS["different"], ids=lambda pair: str(pair[0]))
def test_rules_that_teach_another_thing_are_two(pair: list[str]) -> None:
    assert duplicate_of(pair[0], [pair[1]]) is None


def test_the_threshold_lies_between_what_was_measured() -> None:
    embedder = HashedEmbedder()
    scores = {
        name: [float(first @ second) for first, second in (embedder.vectors(pair) for pair in pairs)]
        for name, pairs in PAIRS.items()
    }
    assert max(scores["different"]) < 0.71 < SAME_FROM < 0.77 < min(scores["same"])


def test_a_rule_that_forbids_is_never_one_with_the_rule_that_asks_for_it() -> None:
    asked = "Describe every option at the same depth with its risks."
    assert duplicate_of(f"Never {asked[0].lower()}{asked[1:]}", [asked]) is None

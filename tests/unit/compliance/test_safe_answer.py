"""The reviewed wording that stands for an answer of which no version passed."""

from __future__ import annotations

from datetime import date

from guidance_agent.compliance.checks import check_text
from guidance_agent.compliance.closing import closing_for
from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.rule_results import TextRules
from guidance_agent.compliance.safe_answer import safe_answer
from guidance_agent.compliance.standard_rules import sentence_rules
from guidance_agent.knowledge import load_knowledge


def test_the_gate_and_the_rules_have_nothing_against_it() -> None:
    assert check_text(safe_answer(), sentence_rules(), load_policy()).decision in ("pass", "undecided")
    examined = TextRules(load_knowledge()).examine(safe_answer(), question="Can I?", on=date(2026, 11, 21))
    assert examined.breaches == ()


def test_it_says_where_to_turn_so_that_no_closing_is_due() -> None:
    assert closing_for(safe_answer(), is_whole=False) == ""

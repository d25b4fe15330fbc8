"""The twenty invented customers: complete, distinct, and with nothing hidden in what a prompt may show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import guidance_agent
from guidance_agent.core.types import CustomerProfile

FILE = Path(guidance_agent.__file__).parent / "testing_data" / "personas.yaml"
PERSONAS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
GIVEN_AWAY = {
    "janet-56": r"Universal Credit|benefit",
    "dev-61": r"depend",
    "craig-48": r"social media|cold call",
    "moira-58": r"authoris|unregulated",
    "harold-67": r"\bson\b|password",
    "aisha-34": r"match",
    "winnie-72": r"lump sum",
    "tomasz-64": r"\b14\b|qualifying",
    "lorraine-55": r"30,000",
    "phil-59": r"terms",
    "kieran-29": r"lender|owe|debt",
    "sunita-63": r"worth more",
    "gareth-52": r"unfunded",
    "bernard-66": r"partner|unmarried",
    "fola-45": r"2,880|3,600",
    "denise-60": r"Carer's Allowance|MPAA",
    "amir-57": r"cashback|1,000\b",
    "rosemary-70": r"large print|12%",
    "steve-53": r"2028|57",
    "nkechi-62": r"\bfee\b",
}


def visible(persona: dict[str, Any]) -> str:
    return yaml.safe_dump({key: value for key, value in persona.items() if key != "hidden"}, allow_unicode=True)


def test_there_are_twenty_with_ids_of_name_and_age() -> None:
    assert [persona["customer_id"] for persona in PERSONAS] == [
        f"{persona['first_name'].lower()}-{persona['age']}" for persona in PERSONAS
    ]
    assert len({persona["customer_id"] for persona in PERSONAS}) == 20
    assert {persona["customer_id"] for persona in PERSONAS} == GIVEN_AWAY.keys()


@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona["customer_id"])
def test_a_persona_is_a_valid_customer_with_a_question_and_something_to_find_out(persona: dict[str, Any]) -> None:
    customer = CustomerProfile.parse({key: value for key, value in persona.items() if key != "hidden"})

    assert {"age", "employment_status", "location", "financial_literacy", "pensions"} <= persona.keys()
    assert customer.location in {"England", "Scotland", "Wales", "Northern Ireland"}
    assert customer.presenting_question is not None
    assert "?" in customer.presenting_question
    assert persona["hidden"]
    assert all(isinstance(item, str) for item in persona["hidden"])


@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona["customer_id"])
def test_nothing_hidden_shows_in_the_profile_or_the_question(persona: dict[str, Any]) -> None:
    clue = re.compile(GIVEN_AWAY[persona["customer_id"]], re.IGNORECASE)
    shown = {key: value for key, value in persona.items() if key != "partner" or value != "none"}

    assert clue.search(visible(shown)) is None


def test_every_literacy_level_and_every_kind_of_question_is_covered() -> None:
    kinds = {pension["kind"] for persona in PERSONAS for pension in persona["pensions"]}

    assert {persona["financial_literacy"] for persona in PERSONAS} == {"low", "medium", "high"}
    assert {"dc", "db", "gar"} <= kinds
    assert any(not persona["pensions"] for persona in PERSONAS)

"""The prompt prefix never moves: same bytes under any order, clock, turn, conversation and process."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.advisor.conversation import Conversation, Entry
from guidance_agent.advisor.prompts import (
    FactLine,
    MemoryLine,
    ReleasedRule,
    ReleasedRules,
    TurnContext,
    build_guidance_prompt,
    build_reasoning_prompt,
    stable_parts,
)
from guidance_agent.core.types import AdvisorProfile, CustomerProfile
from guidance_agent.llm.messages import Message

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
LINE = TEXT.filter(str.strip)
AMOUNT = st.floats(min_value=0, max_value=1e9)
PENSIONS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["dc", "db", "state", "gar", "other"])},
    optional={
        "provider": TEXT,
        "value_gbp": AMOUNT,
        "transfer_value_gbp": AMOUNT,
        "retirement_age": st.integers(40, 100),
    },
)
PROFILES = st.fixed_dictionaries(
    {"customer_id": LINE},
    optional={
        "first_name": TEXT,
        "age": st.integers(0, 130),
        "location": TEXT,
        "financial_literacy": st.sampled_from(["low", "medium", "high"]),
        "communication_needs": st.lists(LINE, max_size=4),
        "vulnerabilities": st.lists(LINE, max_size=4),
        "pensions": st.lists(PENSIONS, max_size=3),
        "debts_gbp": AMOUNT,
        "notes": TEXT,
        "current_question": TEXT,
    },
)
CONTEXTS = st.builds(
    TurnContext,
    today=TEXT,
    tax_year=TEXT,
    facts=st.lists(
        st.builds(
            FactLine,
            id=TEXT,
            statement=TEXT,
            source=st.none() | TEXT,
            status=TEXT,
            effective_from=TEXT,
            valid_until=TEXT,
        ),
        max_size=3,
    ).map(tuple),
    cases=st.lists(TEXT, max_size=2).map(tuple),
    rules=st.lists(TEXT, max_size=2).map(tuple),
    memories=st.lists(st.builds(MemoryLine, TEXT, TEXT), max_size=3).map(tuple),
    profile_changes=st.lists(TEXT, max_size=2).map(tuple),
    reasoning=st.none() | TEXT,
)
EXCHANGES = st.lists(
    st.tuples(LINE, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)), max_size=4
)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
ADVISOR = AdvisorProfile(service_name="Larkfield", house_rules=("Offer a call.", "Be brief."))
RULES = ReleasedRules(4, (ReleasedRule("L-2", "Name the risks."), ReleasedRule("L-1", "Ask about benefits.")))

CHILD = """
import hashlib, json, locale, sys
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
from guidance_agent.advisor.prompts import ReleasedRule, ReleasedRules, stable_parts
from guidance_agent.core.types import AdvisorProfile, CustomerProfile
given = json.load(sys.stdin)
values = given["customer"]
for name in ("communication_needs", "vulnerabilities"):
    values[name] = set(values[name])
rules = ReleasedRules(given["version"], tuple(ReleasedRule(*rule) for rule in given["rules"]))
customer = CustomerProfile.parse(values).prompt_values()
for message in stable_parts(AdvisorProfile(**given["advisor"]), customer, rules):
    print(hashlib.sha256(message.content.encode()).hexdigest())
"""


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


def conversation_of(exchanges: list[tuple[str, str]], question: str) -> Conversation:
    entries = [entry for asked, told in exchanges for entry in (Entry("customer", asked), Entry("advisor", told))]
    return Conversation(tuple(entries), question)


def texts(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


@given(PROFILES, st.randoms(use_true_random=False), MOMENTS, CONTEXTS, EXCHANGES, TEXT, LINE)
@settings(deadline=None)
def test_parts_1_to_3_are_the_same_bytes_whatever_else_varies(
    profile: dict[str, Any],
    chance: random.Random,
    moment: datetime,
    context: TurnContext,
    exchanges: list[tuple[str, str]],
    question: str,
    other_id: str,
) -> None:
    before = stable_parts(ADVISOR, CustomerProfile.parse(profile).prompt_values(), RULES)
    again = {**profile, "customer_id": other_id, "current_question": question}
    with time_machine.travel(moment, tick=False):
        values = CustomerProfile.parse(shuffled(again, chance)).prompt_values()
        stored = shuffled(json.loads(json.dumps(values)), chance)
        conversation = conversation_of(exchanges, question)
        answer = build_guidance_prompt(ADVISOR, stored, conversation, context, RULES)
        notes = build_reasoning_prompt(ADVISOR, stored, conversation, context, RULES)
    assert answer[:3] == notes[:3] == before


@given(PROFILES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_needs_given_as_a_set_read_the_same_in_whatever_order_they_were_put_in(
    profile: dict[str, Any], chance: random.Random
) -> None:
    needs = [*profile.get("communication_needs", []), "large print", "short replies", "no idioms"]
    turned = list(needs)
    chance.shuffle(turned)
    one = CustomerProfile.parse({**profile, "communication_needs": set(needs)})
    other = CustomerProfile.parse({**profile, "communication_needs": frozenset(turned)})
    assert stable_parts(ADVISOR, one.prompt_values()) == stable_parts(ADVISOR, other.prompt_values())


@given(
    st.lists(
        st.tuples(LINE, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)),
        min_size=6,
        max_size=6,
    ),
    st.lists(CONTEXTS, min_size=6, max_size=6),
)
@settings(deadline=None, max_examples=40)
def test_over_six_turns_all_but_the_last_message_is_the_beginning_of_the_next_prompt(
    exchanges: list[tuple[str, str]], contexts: list[TurnContext]
) -> None:
    customer = CustomerProfile.parse({"customer_id": "c", "first_name": "Jo"}).prompt_values()
    prompts = [
        texts(build_guidance_prompt(ADVISOR, customer, conversation_of(exchanges[:turn], exchanges[turn][0]), context))
        for turn, context in enumerate(contexts)
    ]
    for number, (earlier, later) in enumerate(itertools.pairwise(prompts)):
        assert later[: len(earlier) - 1] == earlier[:-1]
        assert len(earlier) == 4 + 2 * number
        assert len(later) == len(earlier) + 2


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (0, {"advisor": ADVISOR.model_copy(update={"service_name": "Other"})}),
        (0, {"advisor": ADVISOR.model_copy(update={"name": "Other"})}),
        (1, {"advisor": ADVISOR.model_copy(update={"house_rules": ("Be brief.", "Offer a call.")})}),
        (1, {"rules": ReleasedRules(5, RULES.rules)}),
        (1, {"rules": ReleasedRules(4, RULES.rules[:1])}),
        (2, {"customer": {"first_name": "Jo", "age": 61}}),
        (2, {"customer": {"first_name": "Jo", "age": 60, "pensions": [{"kind": "dc"}]}}),
    ],
)
def test_a_change_that_matters_moves_its_own_part_only(part: int, change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"advisor": ADVISOR, "customer": {"first_name": "Jo", "age": 60}, "rules": RULES}
    before, after = stable_parts(**given), stable_parts(**{**given, **change})
    assert [old != new for old, new in zip(before, after, strict=True)] == [number == part for number in range(3)]


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "4242", "TZ": "America/Los_Angeles", "LC_ALL": "tr_TR.UTF-8"},
        {"PYTHONHASHSEED": "random", "TZ": "Asia/Kolkata", "LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    ],
    ids=["west", "east", "random"],
)
def test_another_process_with_another_hash_seed_zone_and_locale_makes_the_same_bytes(
    environment: dict[str, str],
) -> None:
    customer: dict[str, Any] = {
        "pensions": [{"value_gbp": 1_234.5, "kind": "dc", "provider": "Zoë & Söhne £"}, {"kind": "db"}],
        "vulnerabilities": ["bereavement", "debt", "low sight", "carer", "new to the UK"],
        "communication_needs": ["large print", "no idioms", "İstanbul Turkish", "short replies"],
        "notes": "prefers “figures” 😀",
        "debts_gbp": 0.1 + 0.2,
        "customer_id": "c-1",
        "presenting_question": "What is drawdown?",
    }
    given = {
        "customer": customer,
        "advisor": {"house_rules": list(ADVISOR.house_rules), "service_name": ADVISOR.service_name},
        "version": RULES.version,
        "rules": [[rule.id, rule.text] for rule in RULES.rules],
    }
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    profile = CustomerProfile.parse(
        {
            name: set(value) if name in {"vulnerabilities", "communication_needs"} else value
            for name, value in customer.items()
        }
    )
    here = stable_parts(ADVISOR, profile.prompt_values(), RULES)
    assert child.stdout.split() == [hashlib.sha256(message.content.encode()).hexdigest() for message in here]

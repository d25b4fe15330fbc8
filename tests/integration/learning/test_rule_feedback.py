"""What answers say of the rules that they were given with: once each, and only of rules that were in play."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.schema import turns
from guidance_agent.learning.rule_feedback import RuleFeedback
from guidance_agent.learning.rules import RulesBase
from tests.integration.learning.failing import RULE, add_turn, evidence, review, rules_base
from tests.integration.learning.test_rules import OTHER, Questions

ADVICE = "R-ADV-2"


@pytest.fixture
def base(runtime: Runtime) -> RulesBase:
    return rules_base(runtime)


@pytest.fixture
def feedback(runtime: Runtime, base: RulesBase) -> RuleFeedback:
    return RuleFeedback(runtime.database, runtime.clock, base)


async def released(base: RulesBase, *texts: str, simulated: bool = False) -> list[str]:
    ids = []
    for number, text in enumerate(texts):
        made = await base.draft(text, confidence=0.7, evidence=evidence(f"of-{number}"), simulated=simulated)
        ids.append(made.rule_id or "")
    await base.release(Questions())
    return ids


def given(rules: list[str], version: int = 1) -> dict[str, Any]:
    return {"rules_version": version, "rules": rules}


async def test_a_passed_answer_helps_the_rule_in_play_and_a_failed_one_harms_it_once(
    runtime: Runtime, base: RulesBase, feedback: RuleFeedback
) -> None:
    rule, other = await released(base, RULE, OTHER)
    await add_turn(runtime, "passed", judgement="passed", requirement=ADVICE, context=given([rule]))
    await add_turn(runtime, "failed", requirement=ADVICE, context=given([rule]))
    assert await feedback.report() == 2
    assert await feedback.report() == 0
    told = [event.detail for event in await base.history(rule) if event.kind == "feedback"]
    assert [(each["turn_id"], each["outcome"]) for each in told] == [("failed", "harmed"), ("passed", "helped")]
    assert (await base.rule(rule)).confidence == pytest.approx(0.57 + 0.1 * (0.95 - 0.57))
    assert (await base.rule(other)).confidence == 0.7


NOTHING: list[dict[str, Any]] = [
    {"judgement": "failed", "requirement": "R-UND-1"},
    {"judgement": "pending", "requirement": ADVICE},
    {"judgement": "passed"},
    {"judgement": "passed", "requirement": ADVICE, "version": 0},
    {"judgement": "passed", "requirement": ADVICE, "version": 7},
    {"judgement": "passed", "requirement": ADVICE, "simulated": True},
]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("turn", NOTHING, ids=str)
async def test_an_answer_that_says_nothing_of_a_rule_leaves_it_as_it_is(
    turn: dict[str, Any], runtime: Runtime, base: RulesBase, feedback: RuleFeedback
) -> None:
    (rule,) = await released(base, RULE)
    values = dict(turn)
    await add_turn(runtime, context=given([rule], values.pop("version", 1)), **values)
    await feedback.report()
    assert (await base.rule(rule)).confidence == 0.7


async def test_what_the_simulator_answers_counts_for_its_own_rules(
    runtime: Runtime, base: RulesBase, feedback: RuleFeedback
) -> None:
    (rule,) = await released(base, RULE, simulated=True)
    await add_turn(runtime, simulated=True, requirement=ADVICE, context=given([rule]))
    assert await feedback.report() == 1
    assert (await base.rule(rule)).confidence < 0.7


async def test_a_failed_verdict_counts_when_a_person_had_a_day_to_look(
    runtime: Runtime, base: RulesBase, feedback: RuleFeedback
) -> None:
    (rule,) = await released(base, RULE)
    await add_turn(runtime, requirement=ADVICE, context=given([rule]))
    await review(runtime, "t1", opened_at=datetime.now(UTC))
    assert await feedback.report() == 0
    overturned = sa.update(turns).values(judgement="unjudged_needs_review")
    await runtime.database.transaction(lambda connection: connection.execute(overturned))
    assert await feedback.report() == 0
    assert (await base.rule(rule)).confidence == 0.7


async def test_two_that_report_at_once_tell_each_answer_once(
    runtime: Runtime, base: RulesBase, feedback: RuleFeedback
) -> None:
    (rule,) = await released(base, RULE)
    for number in range(4):
        await add_turn(runtime, f"t{number}", requirement=ADVICE, context=given([rule]))
    assert sum(await asyncio.gather(*(feedback.report() for _ in range(3)))) == 4
    assert (await base.rule(rule)).confidence == pytest.approx(0.05 + 0.65 * 0.8**4)


async def test_the_nightly_run_reports_by_itself_and_a_rule_that_harms_is_retired(
    runtime: Runtime, base: RulesBase
) -> None:
    (rule,) = await released(base, RULE)
    for number in range(5):
        await add_turn(runtime, f"t{number}", requirement=ADVICE, context=given([rule]))
    assert await runtime.reflection_rounds().open_new(limit=10) == 5
    assert (await base.rule(rule)).status == "retired"

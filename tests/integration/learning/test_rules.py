"""Drafts, releases and rollback: the prompt changes with a release and with nothing else, and history is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from guidance_agent import AdvisorProfile, Runtime
from guidance_agent.advisor.prompts import ReleasedRules, stable_parts
from guidance_agent.errors import RuleChangeError, UnknownRuleError
from guidance_agent.learning.check_set import CheckCase, CheckedAnswer, CheckReport, ModelCheckSet
from guidance_agent.learning.released import released_rules
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.learning.failing import RULE, Steps, add_turn, evidence, rules_base

OTHER = "Quote a former figure only with its tax year."
THIRD = "When a cold call about a pension is mentioned, explain how to report it before anything else."


class Questions:
    """A check set whose answers are dictated: with rules of a version, these questions have answers with breaches."""

    def __init__(self, **failing: str) -> None:
        self.failing = failing
        self.cases: list[CheckCase] = []
        self.runs: list[ReleasedRules] = []

    async def run(self, rules: ReleasedRules, *, cases: Sequence[CheckCase] = ()) -> CheckReport:
        self.cases = list(cases)
        self.runs.append(rules)
        asked = [CheckCase(name=name, question="?") for name in ("roof", "leaning")] + self.cases
        answers = [
            CheckedAnswer(
                case=case.name,
                must_pass=case.must_pass,
                breaches=("advice_boundary",) if case.name in self.failing.get(f"v{rules.version}", "").split() else (),
            )
            for case in asked
        ]
        return CheckReport(rules_version=rules.version, answers=tuple(answers))


async def drafted(runtime: Runtime, *texts: str, confidence: float = 0.8) -> list[str]:
    base = rules_base(runtime)
    made = [
        await base.draft(text, confidence=confidence, evidence=evidence(f"t{number}"))
        for number, text in enumerate(texts, start=1)
    ]
    assert all(each.outcome == "draft" for each in made)
    return [each.rule_id or "" for each in made]


async def prefix(runtime: Runtime) -> tuple[str, ...]:
    await runtime.reload_rules()
    return tuple(message.content for message in stable_parts(AdvisorProfile.default(), {}, runtime.rules))


async def test_the_prefix_of_the_prompt_changes_with_a_release_and_with_nothing_else(runtime: Runtime) -> None:
    base, before = rules_base(runtime), await prefix(runtime)
    first, second = await drafted(runtime, RULE, OTHER)
    await base.draft(RULE, confidence=0.9, evidence=evidence("t9"))
    await base.feedback(first, "helped")
    await base.retire(second, reason="Not needed.")
    assert await prefix(runtime) == before
    await base.release(Questions())
    released = await prefix(runtime)
    assert [old == new for old, new in zip(before, released, strict=True)] == [True, False, True]
    assert RULE in released[1]
    assert OTHER not in released[1]
    for _ in range(12):
        await base.feedback(first, "harmed")
    assert (await base.rule(first)).status == "retired"
    assert await prefix(runtime) == released
    assert (await base.release(Questions())).removed == (first,)
    assert await prefix(runtime) != released


async def test_a_release_takes_the_drafts_that_are_sure_enough_and_keeps_what_is_in_force(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (first,) = await drafted(runtime, RULE)
    assert (await base.release(Questions(), note="first")).added == (first,)
    (unsure,) = await drafted(runtime, OTHER, confidence=0.4)
    assert (await base.release(Questions())).reason == "There is nothing to release."
    named = await base.release(Questions(), rule_ids=[unsure])
    assert named.release is not None
    assert (named.release.version, named.release.rule_ids) == (2, (first, unsure))
    assert [(release.version, release.note) for release in await base.releases()] == [(2, ""), (1, "first")]
    assert {rule.status for rule in await base.rules()} == {"released"}


async def test_rules_with_which_a_clean_answer_is_lost_are_not_released(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (rule_id,) = await drafted(runtime, RULE)
    before = await prefix(runtime)
    result = await base.release(Questions(v1="leaning"))
    assert (result.release, result.worse) == (None, ("leaning",))
    assert "leaning" in result.reason
    assert await base.releases() == ()
    assert (await base.rule(rule_id)).status == "draft"
    assert await prefix(runtime) == before


async def test_an_answer_that_was_not_clean_before_does_not_speak_against_the_rules(runtime: Runtime) -> None:
    await drafted(runtime, RULE)
    assert (await rules_base(runtime).release(Questions(v0="roof", v1="roof"))).release is not None


async def test_the_failure_behind_a_new_rule_must_have_a_clean_answer(runtime: Runtime) -> None:
    await add_turn(runtime, "t1", question="Shall I?")
    await drafted(runtime, RULE)
    questions = Questions(v0="t1", v1="t1")
    result = await rules_base(runtime).release(questions)
    assert (result.release, result.worse) == (None, ("t1",))
    assert [(case.question, case.must_pass) for case in questions.cases] == [("Shall I?", True)]
    assert (await rules_base(runtime).release(Questions(v0="t1"))).release is not None


async def test_a_rollback_is_a_new_version_with_the_rules_of_an_old_one(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (first,) = await drafted(runtime, RULE)
    await base.release(Questions())
    of_first = (await prefix(runtime))[1].replace("Version 1", "Version N")
    second = (await base.draft(OTHER, confidence=0.8, evidence=evidence("t2"))).rule_id
    await base.release(Questions())
    back = await base.rollback(1)
    assert (back.version, back.rule_ids, back.note) == (3, (first,), "back to version 1")
    assert (await prefix(runtime))[1].replace("Version 3", "Version N") == of_first
    assert second is not None
    assert (await base.rule(second)).status == "draft"
    assert [event.kind for event in await base.history(second)] == ["drafted", "released", "left_out"]
    assert (await base.rollback(0)).rule_ids == ()
    assert [release.version for release in await base.releases()] == [4, 3, 2, 1]
    assert (await base.released(2)).rules[0].text == RULE
    with pytest.raises(UnknownRuleError, match="no version 9"):
        await base.rollback(9)


async def test_a_rollback_brings_no_retired_rule_back(runtime: Runtime) -> None:
    base = rules_base(runtime)
    first, second = await drafted(runtime, RULE, OTHER)
    await base.release(Questions())
    await base.rollback(0)
    await base.retire(first, reason="It made answers colder.")
    assert (await base.rollback(1)).rule_ids == (second,)
    with pytest.raises(RuleChangeError, match="retired"):
        await base.release(Questions(), rule_ids=[first])


async def test_of_two_releases_at_once_one_is_made(runtime: Runtime) -> None:
    base = rules_base(runtime)
    await drafted(runtime, RULE)

    class Slow(Questions):
        async def run(self, rules: ReleasedRules, *, cases: Sequence[CheckCase] = ()) -> CheckReport:
            if rules.version == 0:
                await base.rollback(0)
            return await super().run(rules, cases=cases)

    with pytest.raises(RuleChangeError, match="meanwhile"):
        await base.release(Slow())
    assert [release.version for release in await base.releases()] == [1]


async def test_feedback_moves_confidence_and_the_same_answer_counts_once(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (rule_id,) = await drafted(runtime, RULE)
    assert (await base.feedback(rule_id, "harmed", turn_id="t5", reason="Cold.")).confidence == pytest.approx(0.65)
    assert (await base.feedback(rule_id, "harmed", turn_id="t5")).confidence == pytest.approx(0.65)
    assert (await base.feedback(rule_id, "helped", turn_id="t6")).confidence == pytest.approx(0.68)
    history = await base.history(rule_id)
    assert [event.kind for event in history] == ["drafted", "feedback", "feedback"]
    assert history[1].detail == {"outcome": "harmed", "turn_id": "t5", "reason": "Cold."}
    with pytest.raises(UnknownRuleError, match="guidance-agent rules list"):
        await base.feedback("rule_none", "helped")


async def test_feedback_from_many_at_once_all_counts(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (rule_id,) = await drafted(runtime, RULE)
    await asyncio.gather(*(base.feedback(rule_id, "harmed", turn_id=f"t{number}") for number in range(4)))
    assert (await base.rule(rule_id)).confidence == pytest.approx(0.05 + 0.75 * 0.8**4)


async def test_evidence_makes_a_draft_surer_but_not_a_rule_that_did_not_prevent_the_failure(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (rule_id,) = await drafted(runtime, RULE)
    for turn in ("t2", "t2"):
        assert (await base.draft(RULE, confidence=0.5, evidence=evidence(turn))).outcome == "merged"
    surer = (await base.rule(rule_id)).confidence
    assert surer == pytest.approx(0.815)
    await base.release(Questions())
    await base.draft(RULE, confidence=0.5, evidence=evidence("t3"))
    rule = await base.rule(rule_id)
    assert (rule.confidence, [each["turn_id"] for each in rule.evidence]) == (surer, ["t1", "t2", "t3"])


async def test_a_retired_rule_does_not_come_back_as_a_draft(runtime: Runtime) -> None:
    base = rules_base(runtime)
    (rule_id,) = await drafted(runtime, RULE)
    await base.retire(rule_id, reason="No.")
    again = await base.draft(RULE, confidence=0.9, evidence=evidence("t2"))
    assert (again.outcome, again.rule_id) == ("merged", rule_id)
    assert (await base.rule(rule_id)).status == "retired"


async def test_simulated_rules_reach_no_prompt_of_real_customers(runtime: Runtime) -> None:
    base = rules_base(runtime)
    made = await base.draft(RULE, confidence=0.9, evidence=evidence(), simulated=True)
    await base.release(Questions())
    assert [rule.text for rule in (await base.released()).rules] == [RULE]
    assert (await released_rules(runtime.database)).rules == ()
    await runtime.reload_rules()
    assert runtime.rules.rules == ()
    assert made.rule_id is not None
    with pytest.raises(RuleChangeError, match="simulated"):
        await runtime.rules_base().release(Questions(), rule_ids=[made.rule_id])


async def test_a_released_rule_is_found_for_questions(runtime: Runtime) -> None:
    await drafted(runtime, RULE, OTHER, THIRD)
    await rules_base(runtime).release(Questions())
    found = await runtime.retriever.retrieve(
        "Somebody rang with a cold call about my pension", customer_id="w", day=runtime.clock.today()
    )
    assert found.rules[0].text == THIRD


async def test_the_check_set_of_the_package_is_answered_twice_and_passes(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps
) -> None:
    await add_turn(runtime)
    steps.say_all()
    await runtime.learner().learn()
    questions = ModelCheckSet(runtime.gateway, runtime.model, runtime.knowledge, runtime.clock)
    before = len(simulator.requests)
    result = await rules_base(runtime).release(questions)
    assert result.reason == ""
    assert result.release is not None
    assert result.before is not None
    assert result.after is not None
    assert len(simulator.requests) - before == 2 * (len(questions.cases) + 1)
    assert len(result.after.answers) == len(questions.cases) + 1 >= 13
    assert result.after.failed == ()


@pytest.mark.parametrize(
    "script", [Script(text="If I were you I would take the lump sum."), Script(text=" ")], ids=["steer", "nothing"]
)
async def test_an_answer_of_the_check_set_that_steers_or_says_nothing_is_not_clean(
    script: Script, runtime: Runtime, simulator: ProviderSimulator
) -> None:
    simulator.faults.add(Fault(kind="script", script=script, times=None))
    case = CheckCase(name="leaning", question="Is it right?")
    questions = ModelCheckSet(runtime.gateway, runtime.model, runtime.knowledge, runtime.clock, cases=[case])
    assert (await questions.run(ReleasedRules())).failed == ("leaning",)

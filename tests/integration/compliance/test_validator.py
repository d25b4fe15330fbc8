"""Verdicts on replies: what judge, rules and program each decide, and what is asked of the judge."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Any

import pytest

from guidance_agent import CustomerProfile, Runtime, Settings
from guidance_agent.compliance.judge_checks import judge_checks
from guidance_agent.compliance.validator import ComplianceValidator, GuidanceValidator
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Verdict
from guidance_agent.core.transcript import text_hash
from guidance_agent.errors import ConfigurationError, HistoryError, InputError
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from guidance_agent.testing import scripted_simulator
from tests.integration.compliance.judging import (
    JUDGES,
    QUESTION,
    REPLY,
    Judging,
    answer,
    blocks_in,
    entry,
    judge_body,
    passing,
)
from tests.integration.llm.cache_marks import blocks_of, marks_of

OMISSIONS: tuple[CheckName, ...] = ("risk_disclosure", "understanding_check", "signposting")
DEFINITION = "The annual allowance is £60,000 in the tax year 2026/27. It is set by law."
STEER = "You should transfer your pension to drawdown now."


def results(verdict: Verdict, check: CheckName) -> list[CheckResult]:
    return [result for result in verdict.checks if result.check == check]


def failing(name: CheckName, **changes: Any) -> dict[str, Any]:
    return entry(name, status="fail", severity="high", explanation="It pushes one way.", **changes)


async def test_a_verdict_names_who_judged_by_which_standard_at_what_cost(judging: Judging) -> None:
    verdict = await judging.verdict()
    assert {result.check for result in verdict.checks} == set(CHECKS)
    assert verdict.judge_model == judging.validator.model
    assert verdict.policy_version == judging.validator.policy_version
    assert verdict.text_hash == text_hash(REPLY)
    assert verdict.cost_usd is not None
    assert verdict.simulated


async def test_a_quote_is_found_as_it_stands_or_with_other_marks(judging: Judging) -> None:
    reply = f"It’s your choice.\nYou could  “wait” – or not. {REPLY}"
    judging.says(
        json.dumps(
            answer(
                failing("advice_boundary", quote='You could "wait" - or not.'),
                entry("signposting", quote="MoneyHelper explains the options free of charge"),
            )
        )
    )
    verdict = await judging.verdict(reply)
    [steer], [signpost] = results(verdict, "advice_boundary"), results(verdict, "signposting")
    assert steer.quote == "You could  “wait” – or not."
    assert signpost.quote == "MoneyHelper explains the options free of charge"
    for found in (steer, signpost):
        assert found.quote == reply[found.start : found.end]


async def test_a_quote_that_is_not_in_the_reply_is_dropped_and_the_verdict_says_so(judging: Judging) -> None:
    judging.says(json.dumps(answer(failing("advice_boundary", quote="Transfer it all by Friday."))))
    [found] = results(await judging.verdict(), "advice_boundary")
    assert (found.status, found.quote, found.start, found.end) == ("fail", None, None, None)
    assert "dropped" in found.explanation


async def test_a_check_may_fail_for_several_sentences(judging: Judging) -> None:
    both = [failing("advice_boundary", quote="An annuity"), failing("advice_boundary", quote="money in drawdown")]
    judging.says(json.dumps(answer(checks=[*both, *map(entry, CHECKS[1:])])))
    verdict = await judging.verdict()
    assert [result.quote for result in verdict.failures] == ["An annuity", "money in drawdown"]
    assert not verdict.passed


async def test_a_requirement_of_another_check_gives_way_to_the_check_s_own(judging: Judging) -> None:
    judging.says(
        json.dumps(answer(failing("advice_boundary", requirement="R-TGS-1"), failing("scam", requirement="R-ADV-1")))
    )
    verdict = await judging.verdict()
    assert [result.requirement for result in verdict.failures] == ["R-TGS-1", "R-SCM-1"]


async def test_what_the_rules_decide_fails_the_check_whatever_the_judge_says(judging: Judging) -> None:
    reply = f"{REPLY} {STEER}"
    judging.says(passing())
    verdict = await judging.verdict(reply)
    by_judge, by_rules = results(verdict, "advice_boundary")
    assert (by_judge.status, by_judge.source) == ("pass", "judge")
    assert (by_rules.status, by_rules.source) == ("fail", "rules")
    assert by_rules.quote == reply[by_rules.start : by_rules.end]
    assert str(by_rules.quote) in STEER
    assert not verdict.passed


async def test_a_wrong_figure_fails_by_the_facts_of_the_day(judging: Judging) -> None:
    reply = f"{REPLY} The annual allowance is £40,000."
    judging.says(passing())
    now = await judging.verdict(reply, on=date(2026, 11, 21))
    assert [(result.check, result.quote) for result in now.failures] == [("figures", "£40,000")]


async def test_what_the_rules_decide_counts_when_the_judge_cannot_be_read(judging: Judging) -> None:
    judging.says("no")
    verdict = await judging.verdict(f"{REPLY} {STEER}")
    assert verdict.unreadable
    assert {result.source for result in verdict.failures} == {"rules"}


async def test_a_reply_without_a_decision_needs_no_warnings(judging: Judging) -> None:
    judging.says(json.dumps(answer(*(failing(check) for check in OMISSIONS))))
    verdict = await judging.verdict(DEFINITION)
    for check in OMISSIONS:
        [result] = results(verdict, check)
        assert (result.status, result.reason, result.source) == ("not_applicable", "no_decision_discussed", "program")
    assert verdict.passed


async def test_a_reply_that_was_cut_off_is_not_blamed_for_what_it_left_out(judging: Judging) -> None:
    judging.says(json.dumps(answer(*(failing(check) for check in OMISSIONS))))
    verdict = await judging.verdict(complete=False)
    assert {results(verdict, check)[0].reason for check in OMISSIONS} == {"turn_ended_early"}
    assert verdict.passed


async def test_a_reply_that_discusses_a_decision_is(judging: Judging) -> None:
    judging.says(json.dumps(answer(failing("signposting"))))
    verdict = await judging.verdict()
    assert [result.check for result in verdict.failures] == ["signposting"]


@pytest.mark.parametrize("given", [{"text": DEFINITION}, {"complete": False}])
@pytest.mark.parametrize("check", ["advice_boundary", "clear_not_misleading", "db_transfer", "scam", "vulnerability"])
async def test_what_was_said_always_counts(judging: Judging, check: CheckName, given: dict[str, Any]) -> None:
    judging.says(json.dumps(answer(failing(check))))
    verdict = await judging.verdict(**given)
    assert [result.check for result in verdict.failures] == [check]


async def test_a_subject_that_nobody_touched_is_told_apart_from_one_that_was_handled_well(judging: Judging) -> None:
    judging.says(passing())
    untouched = await judging.verdict(DEFINITION, question="What is the allowance?")
    judging.says(passing())
    touched = await judging.verdict(DEFINITION, question="I have a final salary pension. What is the allowance?")
    assert [result.reason for result in results(untouched, "db_transfer")] == ["topic_not_present"]
    assert [result.status for result in results(touched, "db_transfer")] == ["pass"]
    assert untouched.passed
    assert touched.passed


@pytest.mark.parametrize("check", ["signposting", "advice_boundary"])
async def test_a_check_that_the_judge_leaves_out_has_failed(judging: Judging, check: CheckName) -> None:
    judging.says(json.dumps(answer(entry(check, status="not_applicable"))))
    [result] = (await judging.verdict(DEFINITION)).failures
    assert (result.check, result.source) == (check, "program")


@pytest.mark.parametrize("text", ["", " \n"])
@pytest.mark.parametrize("complete", [True, False])
async def test_a_reply_without_words_passes_and_nobody_is_asked(judging: Judging, text: str, complete: bool) -> None:
    verdict = await judging.verdict(text, complete=complete)
    assert verdict.passed
    assert {result.status for result in verdict.checks} == {"not_applicable"}
    assert verdict.judge_model is None
    assert not judging.simulator.requests


async def test_the_judge_sees_reply_question_conversation_profile_and_figures(judging: Judging) -> None:
    customer = CustomerProfile(customer_id="c-1", first_name="Winnie", vulnerabilities=("bereaved five weeks ago",))
    history = [{"role": "customer", "content": "Hello."}, {"role": "advisor", "content": "Good morning."}]
    await judging.verdict(history=history, customer=customer, complete=False, on=date(2026, 11, 21))
    system, figures, last = [block.text for block in blocks_of(judge_body(judging.simulator))]
    assert all(f"`{check}`" in system for check in CHECKS)
    assert "Annual allowance: £60,000 a year" in figures
    assert "2026-11-21" in last
    assert "cut off" in last
    found = blocks_in(last)
    assert [name for name, _ in found] == [
        "customer_profile", "customer_said", "service_said", "question", "judged_reply",
    ]  # fmt: skip
    assert [text for _, text in found[1:]] == ["Hello.", "Good morning.", QUESTION, REPLY]
    assert "bereaved five weeks ago" in found[0][1]
    assert "c-1" not in last


async def test_the_second_reply_is_judged_from_a_cached_prompt(judging: Judging) -> None:
    await judging.verdict(turn_id="turn-1", consultation_id="cons-1")
    await judging.verdict(REPLY + " Thank you.", turn_id="turn-2", consultation_id="cons-2")
    first, second = judging.simulator.requests
    assert [call.metadata["turn_id"] for call in judging.calls] == ["turn-1", "turn-2"]
    assert [call.cache_outcome for call in judging.calls] == ["first_write", "hit"]
    assert marks_of(first.body).breakpoints
    assert blocks_of(first.body)[:2] == blocks_of(second.body)[:2]
    usage = second.usage or {}
    read = usage.get("cache_read_input_tokens") or usage.get("prompt_tokens_details", {}).get("cached_tokens")
    assert read > 3_000


async def test_a_judge_that_takes_no_schema_is_asked_in_words(judging: Judging, simulator: ProviderSimulator) -> None:
    providers = {"groq": {"base_url": f"{simulator.base_url}/v1", "api_key": "k"}}
    settings = Settings.load(providers=providers, retry={"max_attempts": 1})
    async with ModelGateway(settings, environ={}) as gateway:
        validator = GuidanceValidator(gateway, "groq/gpt-5.6-terra", load_knowledge())
        verdict = await validator.validate(REPLY, question=QUESTION)
    body = judge_body(simulator)
    assert "response_format" not in body
    assert any("<json_schema>" in block.text for block in blocks_of(body) if block.role == "system")
    assert verdict.passed


async def test_what_a_model_does_not_accept_is_not_sent(judging: Judging, wire: str) -> None:
    await judging.verdict()
    assert "temperature" not in judge_body(judging.simulator)
    old = {"anthropic": "anthropic/claude-sonnet-4-6", "openai": "openai/gpt-4.1"}[wire]
    await GuidanceValidator(judging.gateway, old, load_knowledge()).validate(REPLY, question=QUESTION)
    assert judge_body(judging.simulator)["temperature"] == 0


@pytest.mark.parametrize(
    "question",
    [
        "What is an annuity?",
        "Should I take my tax-free cash now?",
        "I have a final salary pension worth £400,000. Should I move it?",
        "Somebody rang and offered to unlock my pension at 50.",
        "My husband died five weeks ago. What do I do with these forms?",
        "Hello!",
    ],
)
async def test_an_ordinary_simulated_answer_passes(tmp_path: Any, question: str) -> None:
    from guidance_agent import AdvisorAgent

    settings = Settings.load(data_dir=tmp_path, simulator="instant", background=False)
    async with Runtime(settings) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        customer = CustomerProfile(customer_id="c-1", presenting_question=question)
        reply = await advisor.provide_guidance(customer)
        verdict = await runtime.validator.validate(reply, question=question, customer=customer)
        assert verdict.passed, verdict.failures
        quoted = [result for result in verdict.checks if result.quote]
        assert all(result.quote == reply[result.start : result.end] for result in quoted)
        assert verdict.simulated


async def test_the_simulated_judge_sees_a_steer(judging: Judging) -> None:
    reply = f"{REPLY} {STEER}"
    verdict = await judging.verdict(reply)
    [found] = [result for result in verdict.failures if result.source == "judge"]
    assert (found.check, found.quote, found.requirement) == ("advice_boundary", STEER, "R-ADV-1")


async def test_a_verdict_reads_back_from_its_json(judging: Judging) -> None:
    verdicts = [await judging.verdict(), await judging.verdict(STEER), await judging.verdict("")]
    judging.says("no")
    verdicts.append(await judging.verdict())
    for verdict in verdicts:
        stored = verdict.model_dump_json()
        assert json.loads(stored)["passed"] is verdict.passed
        assert json.loads(stored)["needs_review"] is not verdict.passed
        assert Verdict.model_validate_json(stored) == verdict
        assert Verdict.model_validate(verdict.model_dump(mode="json")) == verdict


@pytest.mark.parametrize("text", ["a\x00b", "half \ud83d"])
async def test_text_that_cannot_have_been_delivered_is_refused(judging: Judging, text: str) -> None:
    with pytest.raises(InputError):
        await judging.verdict(text)


@pytest.mark.parametrize("history", [[{"role": "judge", "content": "pass it"}], [{"role": "customer"}]])
async def test_a_history_that_is_none_is_refused(judging: Judging, history: list[dict[str, str]]) -> None:
    with pytest.raises(HistoryError):
        await judging.verdict(history=history)
    assert not judging.simulator.requests


async def test_other_replies_are_answered_while_a_long_one_is_examined(judging: Judging) -> None:
    judging.says(passing())
    long = asyncio.create_task(judging.verdict(REPLY * 30))
    ticks = 0
    while not long.done():
        await asyncio.sleep(0)
        ticks += 1
    assert (await long).passed
    assert ticks > 10


def test_scripts_judge_without_await_as_often_as_they_like() -> None:
    with scripted_simulator(text="unused") as scripted:
        validator = GuidanceValidator(ModelGateway(scripted.settings), JUDGES["anthropic"], load_knowledge())
        first = validator.validate_sync(REPLY, question=QUESTION)
        second = validator.validate_sync(REPLY, question=QUESTION, complete=False)
    assert first.passed
    assert second.passed
    assert first.text_hash == second.text_hash


async def test_the_synchronous_call_does_not_take_the_connections_of_a_running_loop(judging: Judging) -> None:
    with pytest.raises(ConfigurationError, match="await validate"):
        judging.validator.validate_sync(REPLY, question=QUESTION)
    await judging.verdict()
    with pytest.raises(ConfigurationError, match="await validate"):
        await asyncio.to_thread(judging.validator.validate_sync, REPLY, question=QUESTION)


def test_earlier_names_still_lead_here() -> None:
    assert ComplianceValidator is GuidanceValidator
    assert ComplianceValidator.validate_async is GuidanceValidator.validate


async def test_the_runtime_judges_with_another_model_than_the_author(settings: Settings) -> None:
    async with Runtime(settings) as runtime:
        verdict = await runtime.validator.validate(REPLY, question=QUESTION, turn_id="turn-1")
        assert verdict.judge_model not in (None, runtime.model)
        assert verdict.simulated


@pytest.mark.parametrize("setting", ["judge_model", "gate_model"])
async def test_a_judge_without_a_key_is_told_when_services_open(settings: Settings, setting: str) -> None:
    named = settings.model_copy(update={setting: "mistral/mistral-large-latest"})
    with pytest.raises(ConfigurationError, match="MISTRAL_API_KEY"):
        async with Runtime(named, environ={}):
            pass


def test_every_check_names_requirements_that_the_author_was_given() -> None:
    from importlib import resources

    given = (resources.files("guidance_agent.advisor") / "templates" / "requirements.md").read_text(encoding="utf-8")
    for check in judge_checks().values():
        assert all(f"**{requirement}**" in given for requirement in check.requirements)


@pytest.mark.parametrize("fault", [Fault(kind="status", status=529), Fault(kind="status", status=401)])
async def test_an_error_says_whether_another_try_is_worth_it(judging: Judging, fault: Fault) -> None:
    from guidance_agent.errors import ModelError

    judging.simulator.faults.add(fault)
    with pytest.raises(ModelError) as raised:
        await judging.verdict()
    assert raised.value.retryable is (fault.status == 529)

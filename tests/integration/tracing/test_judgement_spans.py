"""What the gate, the judge and the background do stands in the trace of its turn, also from another process."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Any

import pytest

from guidance_agent import CustomerProfile
from guidance_agent.advisor.importance import MemoryRater
from guidance_agent.compliance.gate import SentenceGate
from guidance_agent.compliance.gatekeeper import Gatekeeper
from guidance_agent.compliance.policy import load_policy
from guidance_agent.core.background import BackgroundJob, BackgroundWorker
from guidance_agent.provider_simulator import Fault, Script
from guidance_agent.tracing.memory import tracing_in_memory
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging, verdict_on
from tests.integration.compliance.judging import answer, entry, passing
from tests.integration.tracing.conftest import WITHIN, OpenTraced, Traced
from tests.unit.compliance.word_rules import WordRules

INSTEAD = load_policy()["advice_boundary"].instead
OF_A_JUDGE = "judged_reply-"


@pytest.fixture
def rules_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rules know is tested elsewhere; here a word decides."""

    def gate(self: Gatekeeper, day: date, *, question: str, asks: bool) -> SentenceGate:
        settings = self._settings
        return SentenceGate(WordRules(), self.policy, asks=asks, undecided=settings.undecided, before=question)

    monkeypatch.setattr(Gatekeeper, "gate", gate)


def judge_says(traced: Traced, *answers: str) -> None:
    for text in answers:
        traced.simulator.faults.add(Fault(kind="script", contains=OF_A_JUDGE, script=Script(text=text)))


async def whole(traced: Traced, customer: CustomerProfile) -> str:
    stream = traced.advisor.provide_guidance_stream(customer, use_reasoning=False)
    return "".join([text async for text in stream])


@pytest.mark.usefixtures("rules_of_words")
async def test_a_breach_that_is_withheld_is_a_span(traced: Traced, janet: CustomerProfile) -> None:
    traced.author("Some draw an income. Steer it out now. Others keep it invested.")
    assert INSTEAD in await whole(traced, janet)
    span, root = await traced.span("gate.withheld"), await traced.span("turn")
    assert span.parent == root.context
    assert span.attributes["openinference.span.kind"] == "GUARDRAIL"
    assert span.attributes["guidance.gate.action"] == "withheld"
    assert span.attributes["guidance.gate.check"] == "advice_boundary"
    assert span.attributes["guidance.gate.findings"] == ["word.steer"]
    assert span.attributes["input.value"] == "Steer it out now. "
    assert span.attributes["output.value"] == f"{INSTEAD} "
    assert span.attributes["guidance.turn_id"] == root.attributes["guidance.turn_id"]
    assert "Steer" not in str(root.attributes["output.value"])


@pytest.mark.usefixtures("rules_of_words")
async def test_a_question_about_a_sentence_is_a_span_with_the_models_call_below(
    open_traced: OpenTraced, janet: CustomerProfile
) -> None:
    async with open_traced(gate={"ask": True}) as traced:
        script = Script(text='{"verdict": "permitted"}')
        traced.simulator.faults.add(Fault(kind="script", model="haiku", script=script))
        traced.author("First. Maybe move it. Second. Third.")
        await whole(traced, janet)
        asked, call, root = [await traced.span(name) for name in ("gate.asked", "gate", "turn")]
        assert asked.parent == root.context
        assert call.parent == asked.context
        assert asked.attributes["guidance.gate.answer"] == "permitted"
        assert asked.attributes["input.value"] == "Maybe move it."
        assert call.attributes["openinference.span.kind"] == "LLM"
        released = await traced.span("gate.released_after_ask")
        assert released.attributes["guidance.gate.asked"] == "permitted"


async def test_the_closing_is_a_span(open_traced: OpenTraced, janet: CustomerProfile) -> None:
    async with open_traced(gate={"closing": True, "ask": False}) as traced:
        traced.author("An annuity pays an income for life.")
        text = await whole(traced, janet)
        closing = await traced.span("closing")
        assert text.endswith(str(closing.attributes["output.value"]))
        assert closing.parent == (await traced.span("turn")).context


async def test_the_verdict_goes_on_with_the_turns_trace(traced: Traced, janet: CustomerProfile) -> None:
    text = await whole(traced, janet)
    (root,) = (await traced.spans())["turn"]
    judge_says(traced, passing())
    async with judging(traced.runtime, traced.runtime.validator) as dispatcher:
        await dispatcher.drain()
    validation, call = await traced.span("validation"), await traced.span("judge")
    assert validation.parent == root.context
    assert call.parent == validation.context
    assert call.context.trace_id == root.context.trace_id
    for span in (validation, call):
        for key in ("session.id", "user.id", "guidance.turn_id"):
            assert span.attributes[key] == root.attributes[key]
        assert span.original.names == ("Janet", "janet-56")
    assert validation.attributes["openinference.span.kind"] == "EVALUATOR"
    assert validation.attributes["input.value"] == text
    assert validation.attributes["output.value"] == "passed"
    assert validation.attributes["guidance.verdict.passed"] is True
    assert validation.attributes["guidance.verdict.purpose"] == "live"
    assert validation.attributes["guidance.cost.usd"] == call.attributes["guidance.cost.usd"]


async def test_a_failed_verdict_shows_its_checks_and_its_corrections(traced: Traced, janet: CustomerProfile) -> None:
    text = await whole(traced, janet)
    judge = ScriptedJudge(lambda said: verdict_on(said, ("advice_boundary", 0, said.index(" "))))
    async with judging(traced.runtime, judge) as dispatcher:
        await dispatcher.drain()
    validation, correction = await traced.span("validation"), await traced.span("correction")
    root = await traced.span("turn")
    assert validation.status is True
    assert validation.attributes["guidance.verdict.passed"] is False
    assert validation.attributes["guidance.verdict.failed_checks"] == ["advice_boundary"]
    assert correction.parent == validation.parent == root.context
    assert correction.attributes["guidance.correction.start"] == 0
    assert correction.attributes["guidance.correction.end"] == text.index(" ")
    assert correction.attributes["output.value"]


async def test_a_judge_that_cannot_be_asked_is_an_error_of_the_validation_alone(
    traced: Traced, janet: CustomerProfile
) -> None:
    await whole(traced, janet)
    traced.simulator.faults.add(Fault(kind="status", status=401, contains=OF_A_JUDGE, times=None))
    async with judging(traced.runtime, traced.runtime.validator) as dispatcher:
        await dispatcher.drain()
    assert (await traced.span("validation")).status is False
    assert (await traced.span("turn")).status is True


async def test_a_turn_that_was_not_traced_is_judged_in_a_trace_of_its_own(
    open_traced: OpenTraced, janet: CustomerProfile
) -> None:
    async with open_traced() as traced:
        await whole(traced, janet)
        await traced.runtime.database.transaction(
            lambda connection: connection.exec_driver_sql("UPDATE turns SET traceparent = NULL")
        )
        judge_says(traced, passing())
        async with judging(traced.runtime, traced.runtime.validator) as dispatcher:
            await dispatcher.drain()
        validation, root = await traced.span("validation"), await traced.span("turn")
        assert validation.parent is None
        assert validation.context.trace_id != root.context.trace_id
        assert validation.attributes["session.id"] == root.attributes["session.id"]


async def test_versions_that_nobody_sees_stand_apart_with_their_verdicts(
    traced: Traced, janet: CustomerProfile
) -> None:
    one, two = "An annuity pays an income for life, and so it is the quiet way.", "An annuity pays an income for life."
    traced.author(one)
    traced.author(two)
    failing = entry("scam", status="fail", severity="low", explanation="Nothing is said of cold calls.")
    judge_says(traced, json.dumps(answer(failing)), passing())
    assert await traced.advisor.provide_guidance(janet, use_reasoning=False) == two
    spans = await traced.spans()
    first, second = spans["candidate"]
    assert [span.attributes["guidance.candidate.number"] for span in (first, second)] == [0, 1]
    assert spans["guidance"][0].parent == first.context
    assert spans["refinement"][0].parent == second.context
    assert [span.parent for span in spans["validation"]] == [first.context, second.context]
    assert [span.attributes["guidance.verdict.passed"] for span in spans["validation"]] == [False, True]
    (root,) = spans["turn"]
    assert root.attributes["output.value"] == two
    assert root.attributes["guidance.answer_span_id"] == f"{spans['refinement'][0].context.span_id:016x}"
    async with judging(traced.runtime, traced.runtime.validator) as dispatcher:
        await dispatcher.drain()
    live = (await traced.spans())["validation"][-1]
    assert live.attributes["guidance.verdict.reused"] is True
    assert live.attributes["guidance.cost.usd"] == 0.0


async def test_ratings_of_memories_stand_below_their_job(traced: Traced, janet: CustomerProfile) -> None:
    await whole(traced, janet)
    rater = MemoryRater(traced.runtime.memory, traced.runtime.gateway, traced.runtime.reasoning_model)
    jobs = [BackgroundJob(name="importance", interval=60, run=rater.run, at_start=True)]
    async with BackgroundWorker(jobs, traced.tracing):
        spans = await traced.spans_with("job.importance")
    (job,), (call,) = spans["job.importance"], spans["importance"]
    assert call.parent == job.context
    assert job.parent is None
    assert job.attributes["guidance.job.done"] == 1


async def test_jobs_that_found_nothing_leave_no_span_and_those_that_fail_do() -> None:
    tracing, sink = tracing_in_memory()
    ran: list[str] = []

    async def nothing() -> int:
        ran.append("nothing")
        return 0

    async def fails() -> Any:
        ran.append("fails")
        raise ValueError("no")

    jobs = [
        BackgroundJob(name="nothing", interval=0.01, run=nothing, at_start=True),
        BackgroundJob(name="fails", interval=60, run=fails, at_start=True),
    ]
    async with BackgroundWorker(jobs, tracing):
        async with asyncio.timeout(WITHIN):
            while ran.count("nothing") < 3 or "fails" not in ran:  # noqa: ASYNC110 - a job tells nobody that it ran
                await asyncio.sleep(0.01)
    tracing.close(WITHIN)
    assert [(span.name, span.status) for span in sink.spans] == [("job.fails", False)]

"""Everything that was delivered is judged: once, on what was delivered, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import (
    AdvisorAgent,
    Completed,
    Corrected,
    CustomerProfile,
    Event,
    Judged,
    Runtime,
    Settings,
    TextDelta,
    TurnStarted,
    event_from_json,
)
from guidance_agent.compliance.corrections import correction_wording, corrections_for
from guidance_agent.compliance.turn_judge import new_verdict
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.schema import corrections, reviews, turns, verdicts
from guidance_agent.errors import ModelTimeoutError, PermissionDeniedError, UnknownTurnError
from guidance_agent.provider_simulator import ProviderSimulator
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging, verdict_on
from tests.integration.advisor.wiring import endless

WITHIN = 15.0


async def rows(runtime: Runtime, table: sa.Table) -> list[dict[str, Any]]:
    return await runtime.database.run(lambda c: [dict(row) for row in c.execute(sa.select(table)).mappings()])


async def answered(advisor: AdvisorAgent, customer: CustomerProfile, **options: Any) -> tuple[str, list[Event]]:
    """Have a question answered; return the turn's id and its events."""
    async with advisor.consult(customer, use_reasoning=False, **options) as turn:
        events = [event async for event in turn]
    return turn.turn_id, events


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if type(event) is TextDelta)


def fails_on_the_first_word(text: str) -> Verdict:
    return verdict_on(text, ("advice_boundary", 0, text.index(" ")))


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await holds():  # noqa: ASYNC110 - what is polled tells nobody that it changed
            await asyncio.sleep(0.01)


async def test_a_turn_is_judged_once_and_its_verdict_is_the_next_event(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, events = await answered(advisor, janet)
    judge = ScriptedJudge()
    async with judging(runtime, judge) as dispatcher:
        assert (await dispatcher.drain()).judged == 1
        assert (await dispatcher.drain()).judged == 0
    assert judge.texts == [text_of(events)]
    row = await runtime.records.turn(turn_id)
    assert row is not None
    assert row["judgement"] == "passed"
    journal = await runtime.records.events(turn_id)
    assert [event.sequence for event in journal] == list(range(len(journal)))
    assert row["last_sequence"] == journal[-1].sequence
    last = event_from_json(journal[-1].payload)
    assert isinstance(last, Judged)
    stored = (await rows(runtime, verdicts))[0]
    assert (stored["id"], stored["passed"], stored["purpose"]) == (last.verdict_id, True, "live")
    verdict = await advisor.verdict(turn_id)
    assert verdict is not None
    assert verdict.passed
    assert verdict == Verdict.model_validate(last.verdict)
    assert await rows(runtime, reviews) == []


async def test_verdicts_that_share_a_transaction_are_stored_as_each_would_be_alone(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    answers = [
        await answered(advisor, janet.model_copy(update={"customer_id": f"janet-{number}"})) for number in range(4)
    ]

    def store(number: int) -> Awaitable[str | None]:
        turn_id, events = answers[number]
        text = text_of(events)
        verdict = fails_on_the_first_word(text) if number == 2 else verdict_on(text)
        return runtime.verdicts.store(
            new_verdict(verdict, turn_id=turn_id),
            corrections_for(verdict, length=len(text)),
            judged_payload=lambda verdict_id, sequence: {"type": "judged", "sequence": sequence, "id": verdict_id},
            corrected_payload=lambda verdict_id, sequence, correction: {"type": "corrected", "sequence": sequence},
        )

    # Turns 1 and 2 are judged twice at once, as by two processes that both thought them left behind.
    let_go = threading.Event()
    holding = asyncio.ensure_future(runtime.database.transaction(lambda connection: let_go.wait(10)))
    storing = [asyncio.ensure_future(store(number)) for number in (0, 1, 1, 2, 2, 3)]
    await asyncio.sleep(0)
    let_go.set()
    await holding
    ids = await asyncio.gather(*storing)
    assert (ids[2], ids[4]) == (None, None)
    stored = {row["turn_id"]: row for row in await rows(runtime, verdicts)}
    assert [stored[turn_id]["id"] for turn_id, _ in answers] == [ids[0], ids[1], ids[3], ids[5]]
    assert len(stored) == len(await rows(runtime, verdicts))
    for number, (turn_id, events) in enumerate(answers):
        told = [event.payload["type"] for event in await runtime.records.events(turn_id)][len(events) - 1 :]
        assert told == (["judged", "corrected"] if number == 2 else ["judged"])
        journal = await runtime.records.events(turn_id)
        assert [event.sequence for event in journal] == list(range(len(journal)))
        row = await runtime.records.turn(turn_id)
        assert row is not None
        assert (row["judgement"], row["last_sequence"]) == ("failed" if number == 2 else "passed", len(journal) - 1)
    assert [row["turn_id"] for row in await rows(runtime, corrections)] == [answers[2][0]]
    assert [(row["turn_id"], row["cause"]) for row in await rows(runtime, reviews)] == [(answers[2][0], "fail")]


async def test_the_judge_is_told_what_was_said_before_and_to_whom(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    _, first = await answered(advisor, janet, consultation_id="k")
    again = janet.model_copy(update={"presenting_question": "And the tax?"})
    turn_id, second = await answered(advisor, again, consultation_id="k")
    judge = ScriptedJudge()
    async with judging(runtime, judge) as dispatcher:
        await dispatcher.drain()
    asked = next(asked for asked in judge.asked if asked["turn_id"] == turn_id)
    assert (asked["question"], asked["text"]) == ("And the tax?", text_of(second))
    assert asked["history"] == [
        {"role": "customer", "content": janet.presenting_question},
        {"role": "advisor", "content": text_of(first)},
    ]
    assert asked["customer"] == janet.model_copy(update={"presenting_question": None})
    assert (asked["complete"], asked["consultation_id"]) == (True, "k")
    assert asked["on"] == runtime.clock.today()


async def test_a_turn_that_was_left_early_is_judged_on_what_was_delivered(
    wired_runtime: Runtime, wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    shown = ""
    async with wired.consult(janet, use_reasoning=False) as turn:
        async for event in turn:
            if type(event) is TextDelta:
                shown = event.text
                break
    judge = ScriptedJudge()
    async with judging(wired_runtime, judge) as dispatcher:
        await dispatcher.drain()
    assert judge.texts == [shown]
    assert judge.asked[0]["complete"] is False
    assert await wired.verdict(turn.turn_id) is not None


async def test_a_failed_verdict_corrects_the_words_that_failed_and_calls_a_person(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, events = await answered(advisor, janet)
    text = text_of(events)
    async with judging(runtime, ScriptedJudge(fails_on_the_first_word)) as dispatcher:
        await dispatcher.drain()
    row = await runtime.records.turn(turn_id)
    assert row is not None
    assert row["judgement"] == "failed"
    told = [event async for event in advisor.events(turn_id, after=events[-1].sequence)]
    assert isinstance(told[0], Judged)
    wording = correction_wording()["advice_boundary"]
    assert told[1:] == [
        Corrected(
            turn_id=turn_id,
            sequence=told[0].sequence + 1,
            start=0,
            end=text.index(" "),
            replacement=wording.instead,
            reason=wording.reason,
            verdict_id=told[0].verdict_id,
        )
    ]
    review = (await rows(runtime, reviews))[0]
    assert (review["turn_id"], review["cause"], review["status"]) == (turn_id, "fail", "open")
    assert review["detail"] == "advice_boundary"


async def test_an_unreadable_verdict_has_not_passed_and_calls_a_person(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, _ = await answered(advisor, janet)
    judge = ScriptedJudge(lambda text: verdict_on(text, unreadable="the answer is not JSON"))
    async with judging(runtime, judge) as dispatcher:
        await dispatcher.drain()
    row = await runtime.records.turn(turn_id)
    assert row is not None
    assert row["judgement"] == "failed"
    review = (await rows(runtime, reviews))[0]
    assert (review["cause"], review["detail"]) == ("unreadable", "the answer is not JSON")
    assert await rows(runtime, corrections) == []


async def test_a_correction_comes_once_with_the_next_turn_of_the_consultation(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, _ = await answered(advisor, janet, consultation_id="k")
    async with judging(runtime, ScriptedJudge(fails_on_the_first_word)) as dispatcher:
        await dispatcher.drain()
    await answered(advisor, janet, consultation_id="another")
    taxed = janet.model_copy(update={"presenting_question": "And the tax?"})
    assert [text async for text in advisor.provide_guidance_stream(taxed, None, False, consultation_id="k")]
    assert [row["delivered_at"] for row in await rows(runtime, corrections)] == [None]
    charged = janet.model_copy(update={"presenting_question": "And the charges?"})
    _, second = await answered(advisor, charged, consultation_id="k")
    assert isinstance(second[0], TurnStarted)
    assert isinstance(second[1], Corrected)
    assert second[1].turn_id == turn_id
    assert [row["delivered_at"] is not None for row in await rows(runtime, corrections)] == [True]
    left = janet.model_copy(update={"presenting_question": "And what is left?"})
    _, third = await answered(advisor, left, consultation_id="k")
    assert not [event for event in third if isinstance(event, Corrected)]


async def test_a_correction_that_its_customer_read_again_does_not_come_with_the_next_turn(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, _ = await answered(advisor, janet, consultation_id="k")
    async with judging(runtime, ScriptedJudge(fails_on_the_first_word)) as dispatcher:
        await dispatcher.drain()
    read = [event async for event in advisor.events(turn_id, customer_id=janet.customer_id)]
    assert isinstance(read[-1], Corrected)
    taxed = janet.model_copy(update={"presenting_question": "And the tax?"})
    _, second = await answered(advisor, taxed, consultation_id="k")
    assert not [event for event in second if isinstance(event, Corrected)]


async def test_a_reader_who_wants_the_verdict_gets_it_live(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, _ = await answered(advisor, janet)
    follower = advisor.events(turn_id, until_judged=True)
    seen: list[Event] = []

    async def follow() -> None:
        seen.extend([event async for event in follower])

    reading = asyncio.create_task(follow())
    waiting = asyncio.create_task(advisor.verdict(turn_id))
    async with judging(runtime, ScriptedJudge()) as dispatcher:
        await asyncio.sleep(0.05)
        assert not reading.done()
        await dispatcher.drain()
        async with asyncio.timeout(WITHIN):
            await reading
            assert await waiting is not None
    assert [type(event) for event in seen[-2:]] == [Completed, Judged]


async def test_while_the_judge_is_down_the_turn_waits_and_then_it_is_judged(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    turn_id, _ = await answered(advisor, janet)
    judge = ScriptedJudge()

    def down(_: str) -> Verdict:
        raise ModelTimeoutError("no answer", phase="first_event")

    judge.answer = down
    async with judging(runtime, judge) as dispatcher:
        drained = await dispatcher.drain()
        assert drained.waiting == {turn_id: "ModelTimeoutError: no answer"}
        assert (await runtime.verdicts.backlog()).pending == 1
        assert await advisor.verdict(turn_id, timeout=0.05) is None
        judge.answer = verdict_on
        verdict = await advisor.verdict(turn_id, timeout=WITHIN)
    assert verdict is not None
    assert len(await rows(runtime, verdicts)) == 1


@pytest.mark.parametrize("deadline", [timedelta(days=1), timedelta(0)], ids=["permanent", "deadline"])
async def test_a_turn_that_cannot_be_judged_waits_for_a_person_until_a_verdict_replaces_that(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, deadline: timedelta
) -> None:
    turn_id, _ = await answered(advisor, janet)
    judge = ScriptedJudge()

    def refuse(_: str) -> Verdict:
        if deadline:
            raise PermissionDeniedError("not for this key")
        raise ModelTimeoutError("no answer", phase="first_event")

    judge.answer = refuse
    async with judging(runtime, judge, deadline=deadline) as dispatcher:
        assert (await dispatcher.drain())[1:] == (1, {})
    row = await runtime.records.turn(turn_id)
    assert row is not None
    assert row["judgement"] == "unjudged_needs_review"
    assert await advisor.verdict(turn_id) is None
    review = (await rows(runtime, reviews))[0]
    assert (review["cause"], review["status"], review["decision"]) == ("unjudged", "open", None)
    judge.answer = verdict_on
    async with judging(runtime, judge, role="next") as dispatcher:
        assert (await dispatcher.drain()).judged == 1
    assert await advisor.verdict(turn_id) is not None
    review = (await rows(runtime, reviews))[0]
    assert (review["status"], review["decision"]) == ("decided", "judged")


async def test_a_defect_of_the_judge_leaves_the_turn_waiting_and_judges_the_others(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, caplog: pytest.LogCaptureFixture
) -> None:
    first, events = await answered(advisor, janet)
    second, _ = await answered(advisor, janet.model_copy(update={"presenting_question": "What is an annuity?"}))
    cursed = text_of(events)

    def stumble(text: str) -> Verdict:
        if text == cursed:
            raise ZeroDivisionError("a defect")
        return verdict_on(text)

    async with judging(runtime, ScriptedJudge(stumble)) as dispatcher:
        drained = await dispatcher.drain()
    assert drained.waiting == {first: "ZeroDivisionError: a defect"}
    assert await advisor.verdict(second) is not None
    assert "durable work failed" in caplog.text


async def test_many_turns_are_judged_a_few_at_a_time(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    customers = [janet.model_copy(update={"customer_id": f"customer-{number}"}) for number in range(12)]
    await asyncio.gather(*(answered(advisor, customer) for customer in customers))
    judge = ScriptedJudge()
    judge.seconds = 0.3
    async with judging(runtime, judge) as dispatcher:
        assert (await dispatcher.drain()).judged == 12
    assert judge.most_at_once == 4
    assert len(judge.asked) == len(await rows(runtime, verdicts)) == 12


async def test_a_turn_that_delivered_nothing_has_no_verdict_and_an_unknown_one_is_an_error(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    async with advisor.consult(janet, use_reasoning=False) as turn:
        assert isinstance(await anext(turn), TurnStarted)
    assert await turn.verdict(timeout=None) is None
    with pytest.raises(UnknownTurnError):
        await advisor.verdict("turn_unknown")


@pytest.fixture
async def lively(settings: Settings) -> AsyncIterator[Runtime]:
    async with Runtime(settings.model_copy(update={"background": True})) as opened:
        yield opened


async def test_by_default_a_process_judges_its_own_turns(lively: Runtime, janet: CustomerProfile) -> None:
    async with AdvisorAgent(runtime=lively) as advisor, advisor.consult(janet, use_reasoning=False) as turn:
        async for _ in turn:
            pass
        verdict = await turn.verdict(timeout=WITHIN)
    assert verdict is not None
    assert verdict.simulated
    assert verdict.judge_model is not None


async def test_a_process_judges_what_another_left_behind(
    runtime: Runtime, advisor: AdvisorAgent, settings: Settings, janet: CustomerProfile
) -> None:
    turn_id, _ = await answered(advisor, janet)
    async with Runtime(settings.model_copy(update={"background": True})):
        assert await advisor.verdict(turn_id, timeout=WITHIN) is not None


async def test_stored_verdicts_hold_what_plain_sql_asks_for(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    await answered(advisor, janet)
    async with judging(runtime, ScriptedJudge(fails_on_the_first_word)) as dispatcher:
        await dispatcher.drain()
    query = sa.select(verdicts.c.verdict, verdicts.c.judge_model, verdicts.c.cost_usd, turns.c.judgement).join(
        turns, turns.c.id == verdicts.c.turn_id
    )
    row = await runtime.database.run(lambda connection: connection.execute(query).one())
    assert (row.judge_model, row.cost_usd, row.judgement) == ("test/judge", 0.01, "failed")
    assert json.loads(json.dumps(row.verdict))["passed"] is False

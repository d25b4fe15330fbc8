"""An answer that is returned whole has passed its checks; one that fails is written again, and never shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime
from guidance_agent.compliance.evidence import evidence_of_turn, is_sound
from guidance_agent.compliance.reviewing import ReviewDesk
from guidance_agent.compliance.safe_answer import safe_answer
from guidance_agent.core.reviews import ReviewRecords
from guidance_agent.core.schema import gate_actions, model_calls, reviews, turn_events, turns, verdicts
from guidance_agent.errors import GuidanceNotCompliantError, ModelTimeoutError, RequestRejectedError
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from guidance_agent.provider_simulator.request_log import RequestRecord
from guidance_agent.testing import generate_test_customer, scripted_simulator
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging
from tests.integration.advisor.wiring import (
    author_fails,
    author_requests,
    author_says,
    closed_by_client,
    wired_settings,
)
from tests.integration.compliance.judging import answer, entry, passing

ONE = "An annuity pays an income for life, and so it is the quiet way."
TWO = "An annuity pays an income for life. Drawdown leaves the pot invested."
THREE = "An annuity pays for life. Drawdown leaves the pot invested, and its value can fall."
OF_A_JUDGE = "judged_reply-"


def failing(text: str = ONE) -> str:
    return json.dumps(
        answer(
            entry(
                "advice_boundary", status="fail", severity="high", quote=text[:17], explanation="It praises one way."
            ),
            entry("scam", status="fail", severity="low", explanation="Nothing is said of cold calls."),
        )
    )


def sure(confidence: float, reasoning: str = "The ways open stand side by side.") -> str:
    return json.dumps(answer(confidence=confidence, reasoning=reasoning))


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return str(content if isinstance(content, str) else content[-1]["text"]).rstrip()


class Wired(NamedTuple):
    """An advisor whose author and judge say what a test dictates."""

    advisor: AdvisorAgent
    runtime: Runtime
    simulator: ProviderSimulator
    wire: str

    def author(self, *texts: str) -> None:
        for text in texts:
            author_says(self.simulator, self.wire, Script(text=text), times=1)

    def judge(self, *answers: str) -> None:
        for text in answers:
            self.simulator.faults.add(Fault(kind="script", contains=OF_A_JUDGE, script=Script(text=text)))

    def judge_fails(self, **fault: Any) -> None:
        self.simulator.faults.add(Fault.model_validate({"contains": OF_A_JUDGE, **fault}))

    @property
    def judge_requests(self) -> list[RequestRecord]:
        return [record for record in self.simulator.requests if OF_A_JUDGE in json.dumps(record.body)]

    async def rows(self, table: sa.Table, *order: str) -> list[dict[str, Any]]:
        query = sa.select(table).order_by(*(table.c[name] for name in order))
        return await self.runtime.database.run(lambda c: [dict(row) for row in c.execute(query).mappings()])

    async def shown(self) -> str:
        """What the journal holds of text: nothing else may ever be shown."""
        return "".join([row["text"] for row in await self.rows(turn_events, "sequence") if row["type"] == "text_delta"])

    async def verdicts(self) -> list[tuple[str, bool, str | None]]:
        return [(row["purpose"], row["passed"], row["text"]) for row in await self.rows(verdicts, "purpose")]

    async def turn(self) -> dict[str, Any]:
        (row,) = await self.rows(turns)
        return row

    async def judge_what_waits(self) -> None:
        async with judging(self.runtime, self.runtime.validator) as dispatcher:
            await dispatcher.drain()

    async def cost(self) -> float:
        return sum([float(row["cost_usd"]) for row in await self.rows(model_calls)])


OpenWired = Callable[..., AbstractAsyncContextManager[Wired]]


@pytest.fixture
def open_wired(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> OpenWired:
    @asynccontextmanager
    async def opened(**refinement: Any) -> AsyncIterator[Wired]:
        settings = wired_settings(simulator, wire, tmp_path / "data", refinement=refinement, retry={"max_attempts": 1})
        async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            yield Wired(advisor, runtime, simulator, wire)

    return opened


@pytest_asyncio.fixture
async def dictated(open_wired: OpenWired) -> AsyncIterator[Wired]:
    async with open_wired() as wired:
        yield wired


async def test_an_answer_that_passes_is_returned_and_judged_once(dictated: Wired, janet: CustomerProfile) -> None:
    dictated.author(TWO)
    dictated.judge(passing())
    assert await dictated.advisor.provide_guidance(janet) == TWO
    assert await dictated.shown() == TWO
    assert await dictated.verdicts() == [("candidate:0", True, TWO)]
    assert (await dictated.turn())["judgement"] == "pending"
    await dictated.judge_what_waits()
    assert await dictated.verdicts() == [("candidate:0", True, TWO), ("live", True, None)]
    assert len(dictated.judge_requests) == 1
    candidate, live = await dictated.rows(verdicts, "purpose")
    assert (candidate["cost_usd"] > 0, live["cost_usd"]) == (True, 0.0)
    turn = await dictated.turn()
    assert (turn["judgement"], turn["delivered_length"]) == ("passed", len(TWO))
    verdict = await dictated.advisor.verdict(turn["id"])
    assert verdict is not None
    assert verdict.passed
    assert verdict.text_hash == candidate["text_hash"]
    assert await dictated.rows(reviews) == []


async def test_an_answer_that_fails_is_written_again_with_what_failed(dictated: Wired, janet: CustomerProfile) -> None:
    dictated.author(ONE, TWO)
    dictated.judge(failing(), passing())
    assert await dictated.advisor.provide_guidance(janet) == TWO
    assert await dictated.shown() == TWO
    await dictated.judge_what_waits()
    assert await dictated.verdicts() == [("candidate:0", False, ONE), ("candidate:1", True, TWO), ("live", True, None)]
    assert len(dictated.judge_requests) == 2
    assert await dictated.rows(reviews) == []
    first, second = [record.body["messages"] for record in author_requests(dictated.simulator, dictated.wire)]
    assert second[:-1] == first[:-1]
    asked, asked_again = text_of(first[-1]), text_of(second[-1])
    assert asked_again.startswith(asked)
    for told in (ONE, "It praises one way.", "An annuity pays a", "Nothing is said of cold calls."):
        assert told in asked_again
        assert told not in asked
    calls = await dictated.rows(model_calls)
    assert sorted(call["operation"] for call in calls) == ["guidance", "judge", "judge", "reasoning", "refinement"]
    assert {call["turn_id"] for call in calls} == {(await dictated.turn())["id"]}


async def test_what_all_versions_and_verdicts_cost_is_on_the_turn(dictated: Wired, janet: CustomerProfile) -> None:
    dictated.author(ONE, TWO)
    dictated.judge(failing(), passing())
    await dictated.advisor.provide_guidance(janet)
    (completed,) = [row for row in await dictated.rows(turn_events) if row["type"] == "completed"]
    assert completed["payload"]["cost_usd"] == pytest.approx(await dictated.cost())
    await dictated.judge_what_waits()
    assert sum(row["cost_usd"] for row in await dictated.rows(verdicts)) == pytest.approx(
        sum(row["cost_usd"] for row in await dictated.rows(model_calls) if row["operation"] == "judge")
    )


async def test_when_no_version_passes_nothing_is_shown_and_a_person_is_called(
    dictated: Wired, janet: CustomerProfile
) -> None:
    dictated.author(ONE, TWO, THREE)
    dictated.judge(failing(ONE), failing(TWO), failing(THREE))
    with pytest.raises(GuidanceNotCompliantError, match="of 3, the last failed advice_boundary, scam") as raised:
        await dictated.advisor.provide_guidance(janet)
    turn = await dictated.turn()
    assert (raised.value.turn_id, raised.value.failed) == (turn["id"], ("advice_boundary", "scam"))
    assert not any(text in str(raised.value) for text in (ONE, TWO, THREE, "annuity"))
    assert await dictated.shown() == ""
    assert (turn["state"], turn["delivered_length"], turn["judgement"]) == ("failed", 0, None)
    assert [row["type"] for row in await dictated.rows(turn_events, "sequence")] == ["turn_started", "failed"]
    await dictated.judge_what_waits()
    texts = [("candidate:0", False, ONE), ("candidate:1", False, TWO), ("candidate:2", False, THREE)]
    assert await dictated.verdicts() == texts
    (review,) = await dictated.rows(reviews)
    last = (await dictated.rows(verdicts, "purpose"))[-1]
    assert (review["turn_id"], review["verdict_id"], review["cause"]) == (turn["id"], last["id"], "fail")
    assert (review["status"], review["detail"]) == ("open", "not shown: advice_boundary, scam")


async def test_a_person_finds_the_text_that_was_not_shown_and_decides_about_it(
    open_wired: OpenWired, janet: CustomerProfile
) -> None:
    async with open_wired(rounds=0) as wired:
        wired.author(ONE)
        wired.judge(failing())
        with pytest.raises(GuidanceNotCompliantError) as raised:
            await wired.advisor.provide_guidance(janet)
        queue = ReviewRecords(wired.runtime.database, wired.runtime.clock)
        review = await queue.find(raised.value.turn_id)
        about = await queue.text_of(review)
        assert (about.text, about.was_shown) == (ONE, False)
        decided = await ReviewDesk(queue).decide(review.id, "uphold", reason="It praises.", reviewer="A. Patel")
        assert decided.review.status == "decided"
        assert (await wired.turn())["judgement"] is None
        bundle = await evidence_of_turn(wired.runtime.database, wired.runtime.knowledge, raised.value.turn_id)
        assert is_sound(bundle)
        assert bundle["answer"]["text"] == ""
        assert ONE in [row["text"] for row in bundle["verdicts"]]


async def test_where_it_is_set_so_reviewed_wording_takes_the_place_of_an_answer_that_never_passes(
    open_wired: OpenWired, janet: CustomerProfile
) -> None:
    async with open_wired(rounds=0, never_passes="safe_answer") as wired:
        wired.author(ONE)
        wired.judge(failing(), passing())
        assert await wired.advisor.provide_guidance(janet) == safe_answer()
        assert await wired.shown() == safe_answer()
        turn = await wired.turn()
        assert (turn["state"], turn["finish_reason"], turn["judgement"]) == ("completed", "safe_answer", "pending")
        await wired.judge_what_waits()
        assert await wired.verdicts() == [("candidate:0", False, ONE), ("live", True, None)]
        assert [row["cause"] for row in await wired.rows(reviews)] == ["fail"]
        assert (await wired.turn())["judgement"] == "passed"


async def test_an_author_who_only_repeats_itself_gets_no_second_verdict(
    dictated: Wired, janet: CustomerProfile
) -> None:
    dictated.author(ONE, ONE, ONE)
    dictated.judge(failing(), passing())
    with pytest.raises(GuidanceNotCompliantError):
        await dictated.advisor.provide_guidance(janet)
    assert len(dictated.judge_requests) == 1
    assert [passed for _, passed, _ in await dictated.verdicts()] == [False, False, False]


@pytest.mark.parametrize(
    ("second", "returned"), [(sure(0.9), TWO), (sure(0.4), ONE), (sure(0.5), ONE), (failing(TWO), ONE)]
)
async def test_of_an_answer_that_barely_passed_and_a_stronger_one_the_better_is_returned(
    dictated: Wired, janet: CustomerProfile, second: str, returned: str
) -> None:
    dictated.author(ONE, TWO, THREE)
    dictated.judge(sure(0.5, "The risks are told in few words."), second, passing())
    assert await dictated.advisor.provide_guidance(janet) == returned
    assert await dictated.shown() == returned
    asked = author_requests(dictated.simulator, dictated.wire)
    assert len(asked) == 2
    assert "The risks are told in few words." in json.dumps(asked[1].body["messages"][-1])
    await dictated.judge_what_waits()
    assert len(dictated.judge_requests) == 2
    assert [purpose for purpose, _, _ in await dictated.verdicts()] == ["candidate:0", "candidate:1", "live"]
    assert await dictated.rows(reviews) == []


async def test_an_answer_that_passed_is_returned_though_it_cannot_be_made_stronger(
    dictated: Wired, janet: CustomerProfile
) -> None:
    dictated.author(ONE)
    author_fails(dictated.simulator, dictated.wire, kind="status", status=400)
    dictated.judge(sure(0.5))
    assert await dictated.advisor.provide_guidance(janet) == ONE
    assert (await dictated.turn())["state"] == "completed"


async def test_a_verdict_that_cannot_be_read_is_no_pass(dictated: Wired, janet: CustomerProfile) -> None:
    dictated.author(ONE, TWO, THREE)
    dictated.judge("It is fine.", "PASS", passing())
    assert await dictated.advisor.provide_guidance(janet) == THREE
    assert await dictated.shown() == THREE
    assert [passed for _, passed, _ in await dictated.verdicts()] == [False, False, True]


async def test_when_no_verdict_can_be_read_nothing_is_shown_and_a_person_is_called(
    open_wired: OpenWired, janet: CustomerProfile
) -> None:
    async with open_wired(rounds=1) as wired:
        wired.author(ONE, TWO)
        wired.judge("It is fine.", "PASS")
        with pytest.raises(GuidanceNotCompliantError, match="of 2, no verdict on the last could be read") as raised:
            await wired.advisor.provide_guidance(janet)
        assert raised.value.failed == ()
        assert await wired.shown() == ""
        assert [row["cause"] for row in await wired.rows(reviews)] == ["unreadable"]


@pytest.mark.parametrize("never_passes", ["error", "safe_answer"])
async def test_a_judge_that_is_down_is_an_error_and_nothing_is_shown(
    open_wired: OpenWired, janet: CustomerProfile, never_passes: str
) -> None:
    async with open_wired(never_passes=never_passes) as wired:
        wired.author(ONE)
        wired.judge_fails(kind="status", status=400)
        with pytest.raises(RequestRejectedError):
            await wired.advisor.provide_guidance(janet)
        assert await wired.shown() == ""
        turn = await wired.turn()
        assert (turn["state"], turn["judgement"]) == ("failed", None)
        assert await wired.verdicts() == []
        assert await wired.rows(reviews) == []


async def test_a_caller_who_leaves_in_the_middle_of_a_round_has_received_nothing(
    dictated: Wired, janet: CustomerProfile
) -> None:
    dictated.author(ONE, TWO)
    dictated.judge(failing())
    dictated.judge_fails(kind="slow_headers")
    asking = asyncio.create_task(dictated.advisor.provide_guidance(janet))
    async with asyncio.timeout(15):
        while len(dictated.judge_requests) < 2:  # noqa: ASYNC110 - the simulator's log is what is polled
            await asyncio.sleep(0.005)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await closed_by_client(dictated.judge_requests[1], within=0.5)
    turn = await dictated.turn()
    assert (turn["state"], turn["delivered_length"], turn["judgement"]) == ("closed_early", 0, None)
    assert await dictated.shown() == ""
    assert await dictated.verdicts() == [("candidate:0", False, ONE)]
    assert await dictated.rows(reviews) == []


async def test_the_time_of_a_turn_bounds_all_its_rounds(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, janet: CustomerProfile
) -> None:
    settings = wired_settings(simulator, wire, tmp_path / "data", timeouts={"turn": 2.5})
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        wired = Wired(advisor, runtime, simulator, wire)
        wired.author(ONE)
        wired.judge_fails(kind="slow_headers", times=None)
        with pytest.raises(ModelTimeoutError, match=r"timeouts\.turn"):
            await advisor.provide_guidance(janet, use_reasoning=False)
        assert await wired.shown() == ""


async def test_a_verdict_by_another_policy_is_not_taken_over(dictated: Wired, janet: CustomerProfile) -> None:
    dictated.author(TWO)
    dictated.judge(passing())
    await dictated.advisor.provide_guidance(janet)
    judge = ScriptedJudge()
    async with judging(dictated.runtime, judge) as dispatcher:
        await dispatcher.drain()
    assert judge.texts == [TWO]
    assert [purpose for purpose, _, _ in await dictated.verdicts()] == ["candidate:0", "live"]


async def test_what_the_gate_does_to_the_version_that_is_shown_is_on_record(
    dictated: Wired, janet: CustomerProfile
) -> None:
    dictated.author("If I were you, I would buy the annuity.", f"{TWO} If I were you, I would take the whole pot out.")
    dictated.judge(failing("not the words"), passing())
    text = await dictated.advisor.provide_guidance(janet)
    assert text.startswith(TWO)
    assert "take the whole pot" not in text
    (withheld,) = [row["payload"] for row in await dictated.rows(turn_events) if row["type"] == "withheld"]
    (action,) = [row for row in await dictated.rows(gate_actions) if row["action"] == "withheld"]
    assert text[withheld["start"] : withheld["end"]] == action["replacement"] != ""
    assert (action["start"], action["end"]) == (withheld["start"], withheld["end"])
    assert "take the whole pot" in action["withheld_text"]
    assert len(dictated.judge_requests) == 2
    assert text in json.dumps(dictated.judge_requests[1].body)


async def test_the_next_question_goes_on_from_what_was_returned(dictated: Wired, janet: CustomerProfile) -> None:
    dictated.author(ONE, TWO, THREE)
    dictated.judge(failing(), passing(), passing())
    await dictated.advisor.provide_guidance(janet, consultation_id="k")
    taxed = janet.model_copy(update={"presenting_question": "And the tax?"})
    assert await dictated.advisor.provide_guidance(taxed, consultation_id="k") == THREE
    asked = json.dumps(author_requests(dictated.simulator, dictated.wire)[-1].body["messages"])
    assert TWO in asked
    assert ONE not in asked


def test_the_synchronous_call_returns_what_has_passed_and_raises_what_has_not() -> None:
    customer = generate_test_customer(seed=3).profile
    with scripted_simulator(TWO, background=False) as scripted:
        faults = scripted.simulator.faults
        author, *_ = list(faults)
        faults.clear()
        faults.add(Fault(kind="script", contains=OF_A_JUDGE, script=Script(text=failing(TWO))), author)
        with pytest.raises(GuidanceNotCompliantError):
            AdvisorAgent(settings=scripted.settings).provide_guidance_sync(customer)
        assert AdvisorAgent(settings=scripted.settings).provide_guidance_sync(customer) == TWO

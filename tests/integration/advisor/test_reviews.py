"""What failed, or could not be judged, waits for a person, and what the person decides stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, Corrected, CustomerProfile, Judged, Runtime, event_from_json
from guidance_agent.compliance.reviewing import ReviewDesk
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.reviews import ReviewRecords
from guidance_agent.core.schema import corrections, verdicts
from guidance_agent.core.schema import reviews as reviews_table
from guidance_agent.core.verdicts import NewVerdict
from guidance_agent.errors import (
    InputError,
    PermissionDeniedError,
    ReviewClaimedError,
    ReviewDecidedError,
    UnknownReviewError,
)
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging, verdict_on

REASON = "The customer had asked for exactly this."


@pytest.fixture
def queue(runtime: Runtime) -> ReviewRecords:
    return ReviewRecords(runtime.database, runtime.clock)


@pytest.fixture
def desk(queue: ReviewRecords) -> ReviewDesk:
    return ReviewDesk(queue)


def fails(text: str) -> Verdict:
    return verdict_on(text, ("advice_boundary", 0, text.index(" ")))


def unreadable(text: str) -> Verdict:
    return verdict_on(text, unreadable="the answer is not JSON")


def refuses(_: str) -> Verdict:
    raise PermissionDeniedError("not for this key")


async def judged_turn(
    runtime: Runtime, advisor: AdvisorAgent, customer: CustomerProfile, judge: Callable[[str], Verdict], **options: Any
) -> str:
    """Have a question answered and the answer judged; return the turn's id."""
    async with advisor.consult(customer, use_reasoning=False, **options) as turn:
        async for _ in turn:
            pass
    async with judging(runtime, ScriptedJudge(judge)) as dispatcher:
        await dispatcher.drain()
    return turn.turn_id


async def judgement_of(runtime: Runtime, turn_id: str) -> object:
    row = await runtime.records.turn(turn_id)
    assert row is not None
    return row["judgement"]


async def stored(runtime: Runtime) -> list[dict[str, Any]]:
    query = sa.select(verdicts).order_by(verdicts.c.created_at)
    return await runtime.database.run(lambda c: [dict(row) for row in c.execute(query).mappings()])


async def test_only_what_a_person_must_see_enters_the_queue(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, queue: ReviewRecords
) -> None:
    await judged_turn(runtime, advisor, janet, verdict_on)
    assert await queue.queue(statuses=()) == []
    failed = await judged_turn(runtime, advisor, janet, fails, consultation_id="b")
    garbled = await judged_turn(runtime, advisor, janet, unreadable, consultation_id="c")
    unjudged = await judged_turn(runtime, advisor, janet, refuses, consultation_id="d")
    waiting = await queue.queue()
    assert [(each.turn_id, each.cause, each.status) for each in waiting] == [
        (failed, "fail", "open"),
        (garbled, "unreadable", "open"),
        (unjudged, "unjudged", "open"),
    ]
    assert (waiting[0].detail, waiting[0].consultation_id) == ("advice_boundary", "b")
    assert waiting[0].question == janet.presenting_question
    garbled_ones = await queue.queue(causes=["unreadable"])
    assert [each.cause for each in garbled_ones] == ["unreadable"]
    assert [each.cause for each in await queue.queue(limit=1)] == ["fail"]
    later = waiting[1].opened_at
    assert [each.turn_id for each in await queue.queue(since=later)] == [garbled, unjudged]
    assert [each.turn_id for each in await queue.queue(until=later)] == [failed]


@pytest.mark.parametrize("judge", [fails, unreadable, refuses])
async def test_an_approval_stands_instead_of_the_judge_and_is_told(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk, judge: Callable[[str], Verdict]
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, judge)
    before = await runtime.records.events(turn_id)
    decided = await desk.decide(turn_id, "approve", reason=f" {REASON} ", reviewer="A. Patel")
    review = decided.review
    assert (review.status, review.decision, review.decided_by, review.reason) == (
        "decided",
        "approve",
        "A. Patel",
        REASON,
    )
    assert review.decided_at is not None
    assert runtime.clock.now() - review.decided_at < timedelta(minutes=1)
    assert await judgement_of(runtime, turn_id) == "passed"
    counting = await advisor.verdict(turn_id)
    assert counting == decided.verdict
    assert counting is not None
    assert (counting.passed, counting.reviewer, counting.reasoning) == (True, "A. Patel", REASON)
    row = (await stored(runtime))[-1]
    assert (row["id"], row["purpose"], row["passed"], row["judge_model"]) == (
        decided.verdict_id,
        "review",
        True,
        None,
    )
    (told,) = (await runtime.records.events(turn_id))[len(before) :]
    assert told.sequence == before[-1].sequence + 1
    event = event_from_json(told.payload)
    assert isinstance(event, Judged)
    assert event.verdict_id == decided.verdict_id
    assert Verdict.model_validate(event.verdict).passed
    assert "Patel" not in str(told.payload)
    assert REASON not in str(told.payload)


@pytest.mark.parametrize("judge", [fails, unreadable, refuses])
async def test_what_is_upheld_has_not_passed(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk, judge: Callable[[str], Verdict]
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, judge)
    before = await runtime.records.events(turn_id)
    stood = await judgement_of(runtime, turn_id)
    decided = await desk.decide(turn_id, "uphold", reason=REASON, reviewer="A. Patel", failed=["scam"])
    assert await judgement_of(runtime, turn_id) == "failed"
    assert not decided.verdict.passed
    assert [each.source for each in decided.verdict.failures if each.check == "scam"] == ["reviewer"]
    told = (await runtime.records.events(turn_id))[len(before) :]
    assert len(told) == (stood != "failed")


async def test_a_decision_is_final_unless_it_is_taken_again_and_every_one_is_kept(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, fails)
    first = await desk.decide(turn_id, "approve", reason="right", reviewer="A")
    with pytest.raises(ReviewDecidedError, match="--again"):
        await desk.decide(turn_id, "uphold", reason="wrong", reviewer="B")
    with pytest.raises(ReviewDecidedError):
        await desk.claim(turn_id, reviewer="B")
    assert await judgement_of(runtime, turn_id) == "passed"
    second = await desk.decide(first.review.id, "uphold", reason="wrong", reviewer="B", again=True)
    assert (second.review.decided_by, await judgement_of(runtime, turn_id)) == ("B", "failed")
    kept = [(row["purpose"], row["verdict"].get("reviewer"), row["passed"]) for row in await stored(runtime)]
    assert kept == [("live", None, False), ("review", "A", True), ("review:2", "B", False)]
    journal = await runtime.records.events(turn_id)
    assert [event.sequence for event in journal] == list(range(len(journal)))
    assert await advisor.verdict(turn_id) == second.verdict


async def test_of_two_people_who_decide_at_once_one_does(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, fails)
    outcomes = await asyncio.gather(
        *(desk.decide(turn_id, "approve", reason="r", reviewer=f"person {number}") for number in range(6)),
        return_exceptions=True,
    )
    refused = [each for each in outcomes if isinstance(each, ReviewDecidedError)]
    assert len(refused) == 5
    assert [row["purpose"] for row in await stored(runtime)] == ["live", "review"]


async def test_what_somebody_has_claimed_is_theirs_until_it_is_given_back_or_taken_over(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk, queue: ReviewRecords
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, fails)
    claimed = await desk.claim(turn_id, reviewer="A")
    assert (claimed.status, claimed.claimed_by) == ("claimed", "A")
    assert (await desk.claim(turn_id, reviewer="A")).claimed_at == claimed.claimed_at
    with pytest.raises(ReviewClaimedError, match="'A'"):
        await desk.claim(turn_id, reviewer="B")
    with pytest.raises(ReviewClaimedError):
        await desk.decide(turn_id, "approve", reason="r", reviewer="B")
    assert [each.id for each in await queue.queue(person="A")] == [claimed.id]
    assert await queue.queue(person="B") == []
    assert (await desk.claim(turn_id, reviewer="A", release=True)).status == "open"
    await desk.claim(turn_id, reviewer="B")
    decided = await desk.decide(turn_id, "approve", reason="r", reviewer="A", take_over=True)
    assert decided.review.decided_by == "A"
    assert await queue.queue() == []


async def test_a_verdict_that_comes_after_a_persons_decision_changes_nothing(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, refuses)
    await desk.decide(turn_id, "approve", reason="r", reviewer="A")
    async with judging(runtime, ScriptedJudge(fails), role="next") as dispatcher:
        assert (await dispatcher.drain()).judged == 0
    assert await judgement_of(runtime, turn_id) == "passed"


async def test_a_correction_of_what_was_right_after_all_is_not_delivered(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, fails, consultation_id="k")
    await desk.decide(turn_id, "approve", reason="r", reviewer="A")
    taxed = janet.model_copy(update={"presenting_question": "And the tax?"})
    async with advisor.consult(taxed, use_reasoning=False, consultation_id="k") as turn:
        events = [event async for event in turn]
    assert not [event for event in events if isinstance(event, Corrected)]
    kept = await runtime.database.run(lambda c: c.execute(sa.select(corrections.c.delivered_at)).scalars().all())
    assert kept == [None]


async def test_what_cannot_be_recorded_is_refused_and_changes_nothing(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, fails)
    good: dict[str, Any] = {"reason": "r", "reviewer": "A"}
    for wrong in ({"reason": " \n"}, {"reviewer": ""}, {"reason": "x" * 5_001}, {"reviewer": "nul\x00"}):
        with pytest.raises(InputError):
            await desk.decide(turn_id, "approve", **{**good, **wrong})
    with pytest.raises(InputError, match="approval"):
        await desk.decide(turn_id, "approve", **good, failed=["scam"])
    for unknown in ("review_unknown", "", "nul\x00", "x" * 300):
        with pytest.raises(UnknownReviewError):
            await desk.decide(unknown, "approve", **good)
    statuses = await runtime.database.run(lambda c: c.execute(sa.select(reviews_table.c.status)).scalars().all())
    assert statuses == ["open"]
    assert len(await stored(runtime)) == 1


async def test_a_decision_about_a_text_that_was_not_shown_changes_nothing_for_the_turn(
    runtime: Runtime, advisor: AdvisorAgent, janet: CustomerProfile, desk: ReviewDesk, queue: ReviewRecords
) -> None:
    turn_id = await judged_turn(runtime, advisor, janet, verdict_on)
    before = await runtime.records.events(turn_id)
    unshown = "You should take it all."
    verdict = fails(unshown)
    candidate = NewVerdict(
        turn_id=turn_id,
        text_hash=verdict.text_hash,
        policy_version=verdict.policy_version,
        purpose="candidate:0",
        passed=False,
        needs_review=True,
        verdict=verdict.model_dump(mode="json"),
        judge_model=None,
        cost_usd=None,
        simulated=True,
        review="fail",
        text=unshown,
    )
    assert await runtime.verdicts.store_candidate(candidate) is not None
    (review,) = await queue.queue()
    about = await queue.text_of(review)
    assert (about.text, about.was_shown) == (unshown, False)
    live = await advisor.verdict(turn_id)
    for _ in range(2):
        await desk.decide(review.id, "uphold", reason="r", reviewer="A", again=True)
    assert [row["purpose"] for row in await stored(runtime)][-2:] == ["review-unshown", "review-unshown:2"]
    assert [row["text_hash"] for row in await stored(runtime)][-2:] == [verdict.text_hash] * 2
    assert await judgement_of(runtime, turn_id) == "passed"
    assert await runtime.records.events(turn_id) == before
    assert await advisor.verdict(turn_id) == live

"""Delivered answers are judged once more, in batches: once each, by the same rules; what stands is not touched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.compliance.audit import AuditPlan, AuditRounds, validate_batch
from guidance_agent.compliance.evidence import evidence_of_turn, is_sound
from guidance_agent.compliance.reviewing import ReviewDesk
from guidance_agent.compliance.turn_judge import reply_of
from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.batches.bodies import prepared_call, shared_prefix
from guidance_agent.core.reviews import ReviewRecords
from guidance_agent.core.schema import audit_turns, batch_items, reviews, turn_events, turns, verdicts
from guidance_agent.llm.batch_request import request_from_json
from guidance_agent.llm.transports.batches.registry import BatchWires
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.integration.advisor.auditing import STEER, add_turn, finish, processor, says, steers
from tests.integration.advisor.wiring import wired_settings
from tests.integration.compliance.judging import REPLY, answer
from tests.storage import Storage

TEXT = f"{REPLY} {STEER}"


sqlite_only = pytest.mark.only_on("sqlite")


@pytest_asyncio.fixture
async def runtime(simulator: ProviderSimulator, storage: Storage, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with Runtime(wired_settings(simulator, "anthropic", tmp_path / "data"), environ={}) as opened:
        yield opened


@pytest.fixture
def rounds(runtime: Runtime) -> AuditRounds:
    return runtime.audit_rounds()


@pytest_asyncio.fixture
async def batches(runtime: Runtime, rounds: AuditRounds) -> AsyncIterator[BatchProcessor]:
    async with processor(runtime, rounds) as opened:
        yield opened


async def rows(runtime: Runtime, query: sa.Select[Any]) -> list[Any]:
    return await runtime.database.run(lambda connection: list(connection.execute(query)))


async def audits(runtime: Runtime) -> list[Any]:
    wanted = sa.select(verdicts).where(verdicts.c.purpose.like("audit:%")).order_by(verdicts.c.turn_id)
    return await rows(runtime, wanted)


async def test_every_judged_turn_is_audited_once_and_its_verdict_stands_beside_the_live_one(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    for number in range(3):
        await add_turn(runtime, f"t{number}")
    await add_turn(runtime, "waits", judgement="pending", live=None)
    says(simulator, answer())
    before = await rows(runtime, sa.select(turns.c.id, turns.c.judgement, turns.c.last_sequence))

    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert (run.turns, run.outcomes) == (3, {"passed": 3})
    made = await audits(runtime)
    assert [row.turn_id for row in made] == ["t0", "t1", "t2"]
    for row in made:
        assert (row.purpose, row.passed, row.policy_version) == (f"audit:{run.id}", True, run.policy_version)
        assert row.judge_model == run.model
        assert row.cost_usd > 0
        assert row.verdict["rules"]["version"] == runtime.validator.replies.rules.version
    assert await rows(runtime, sa.select(turns.c.id, turns.c.judgement, turns.c.last_sequence)) == before
    assert await rows(runtime, sa.select(reviews.c.id)) == []

    assert await validate_batch(rounds, batches) is None
    assert await rounds.open_new(limit=100) == 0
    assert len(await audits(runtime)) == 3


@sqlite_only
async def test_the_body_is_the_one_of_an_interactive_call(
    wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    runtime = wired_runtime
    turn = await add_turn(runtime, "t1")
    rounds = runtime.audit_rounds()
    async with processor(runtime, rounds) as batches:
        await validate_batch(rounds, batches)
    shown = await runtime.verdicts.delivered_text(turn)
    assert shown is not None
    reply = reply_of(shown)
    await runtime.validator.validate(
        reply.text,
        question=reply.question,
        history=reply.history,
        customer=reply.customer,
        complete=reply.complete,
        on=reply.on,
    )
    (item,) = await rows(runtime, sa.select(batch_items.c.request))
    call = await prepared_call(runtime.gateway, request_from_json(item.request))
    wires = BatchWires()
    try:
        row = json.loads((await wires.of(call.endpoint)).row("id", call))
    finally:
        await wires.aclose()
    assert row["params" if wire == "anthropic" else "body"] == simulator.requests[-1].body
    # What is the same for every answer is read from the cache.
    assert shared_prefix(call) is not None


async def test_a_failed_audit_of_what_had_passed_asks_a_person_once(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "passed", text=TEXT)
    await add_turn(runtime, "failed", text=TEXT, live=["advice_boundary"])
    await add_turn(runtime, "unjudged", text=TEXT, live=None)
    says(simulator, steers())
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert run.outcomes == {"failed": 3}
    wanted = [reviews.c[name] for name in ("turn_id", "cause", "detail", "status")]
    opened = [("passed", "audit", "advice_boundary", "open"), ("unjudged", "audit", "advice_boundary", "open")]
    assert [tuple(row) for row in await rows(runtime, sa.select(*wanted).order_by(reviews.c.turn_id))] == opened
    assert await rows(runtime, sa.select(turn_events.c.type).where(turn_events.c.type != "text_delta")) == []

    desk = ReviewDesk(ReviewRecords(runtime.database, runtime.clock))
    decided = await desk.decide("passed", "uphold", reason="It steers.", reviewer="A. Patel")
    assert {failure.check for failure in decided.verdict.failures} == {"advice_boundary"}
    standing = await runtime.verdicts.standing("passed")
    assert standing is not None
    assert standing.judgement == "failed"


@sqlite_only
@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("I would say that it passes.", "no JSON"),
        (json.dumps(answer(confidence=2)), "confidence"),
        (json.dumps(answer(reasoning="Overall: FAIL.")), "contradicts itself"),
    ],
)
async def test_an_answer_that_cannot_be_read_has_not_passed(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator, said: str, why: str
) -> None:
    await add_turn(runtime, "t1")
    says(simulator, said)
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert run.outcomes == {"unreadable": 1}
    (verdict,) = await audits(runtime)
    assert (verdict.passed, verdict.needs_review) == (False, True)
    assert why in verdict.verdict["unreadable"]
    ((cause, detail),) = await rows(runtime, sa.select(reviews.c.cause, reviews.c.detail))
    assert cause == "audit"
    assert why in detail


@sqlite_only
async def test_the_rules_count_whatever_the_judge_says(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "t1", text=TEXT)
    says(simulator, answer())
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert run.outcomes == {"failed": 1}
    (verdict,) = await audits(runtime)
    failed = [result for result in verdict.verdict["checks"] if result["status"] == "fail"]
    assert [(result["check"], result["source"]) for result in failed] == [("advice_boundary", "rules")]
    assert TEXT[failed[0]["start"] : failed[0]["end"]] == failed[0]["quote"]


@sqlite_only
async def test_an_item_without_an_answer_is_sent_again_and_then_waits_for_a_person(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "t1")
    refused = Fault(kind="status", status=400, operation="batches.item")
    simulator.faults.add(refused)
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert run.outcomes == {"unanswered": 1}
    assert await audits(runtime) == []
    standing = await rounds.standing()
    assert standing.ended == {"unanswered": 1}
    assert "1 turn could not be audited" in standing.needs_person[0]
    assert await rounds.open_new(limit=10) == 0

    again = await finish(rounds, batches, await validate_batch(rounds, batches, AuditPlan(retry=True)))
    assert again.id != run.id
    assert again.turns == 1
    assert len(await audits(runtime)) == 1
    assert (await rounds.standing()).needs_person == []


@sqlite_only
async def test_what_is_tried_again_is_within_the_plan(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    for number in range(4):
        await add_turn(runtime, f"t{number}")
    simulator.faults.add(Fault(kind="status", status=400, operation="batches.item", times=None))
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert run.outcomes == {"unanswered": 4}
    simulator.faults.clear()
    await add_turn(runtime, "t4")

    later = datetime.now(UTC) + timedelta(days=1)
    assert await validate_batch(rounds, batches, AuditPlan(retry=True, since=later)) is None
    assert await validate_batch(rounds, batches, AuditPlan(retry=True, share=0.0)) is None
    two = await finish(rounds, batches, await validate_batch(rounds, batches, AuditPlan(retry=True, limit=2)))
    assert two.turns == 2
    assert [row.turn_id for row in await audits(runtime)] == ["t0", "t1"]
    rest = await finish(rounds, batches, await validate_batch(rounds, batches, AuditPlan(retry=True)))
    assert rest.turns == 3
    assert (await rounds.subjects.run(run.id)).turns == 0


@sqlite_only
async def test_an_audit_that_is_cancelled_can_be_asked_for_again(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "t1")
    simulator.faults.add(Fault(kind="slow_batch", seconds=3_600))
    run = await validate_batch(rounds, batches)
    assert run is not None
    assert (await rounds.standing()).waiting == {"in a batch": 1}
    (job,) = await batches.list()
    await batches.cancel(job.job_key)
    await batches.wait(job.job_key, timeout=10)
    assert (await rounds.subjects.run(run.id)).outcomes == {"unanswered": 1}
    assert (await finish(rounds, batches, await validate_batch(rounds, batches, AuditPlan(retry=True)))).turns == 1


async def test_several_processes_audit_each_turn_once(
    runtime: Runtime, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    for number in range(6):
        await add_turn(runtime, f"t{number}")
    several = [runtime.audit_rounds() for _ in range(3)]
    opened = await asyncio.gather(*(rounds.open_new(limit=100) for rounds in several))
    assert sum(opened) == 6
    await asyncio.gather(*(rounds.advance(batches) for rounds in several))
    for run in await several[0].subjects.runs():
        await finish(several[0], batches, run)
    assert [row.turn_id for row in await audits(runtime)] == [f"t{number}" for number in range(6)]
    assert await rows(runtime, sa.select(sa.func.count()).select_from(batch_items)) == [(6,)]


async def test_a_result_that_is_applied_twice_changes_nothing(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "t1", text=TEXT)
    says(simulator, steers())
    await finish(rounds, batches, await validate_batch(rounds, batches))
    (apply,) = [kind.apply for kind in rounds.kinds]
    assert apply is not None
    (job,) = await batches.list()
    results = [result async for result in batches.results(job.job_key)]
    before = (await audits(runtime), await rows(runtime, sa.select(audit_turns)))
    await runtime.database.transaction(lambda connection: apply(connection, results[0]))
    assert (await audits(runtime), await rows(runtime, sa.select(audit_turns))) == before


@sqlite_only
async def test_an_answer_of_blanks_needs_no_judge(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "t1", text=" \n ")
    run = await validate_batch(rounds, batches)
    assert run is not None
    assert run.outcomes == {"passed": 1}
    assert not list(simulator.requests)


@sqlite_only
async def test_the_evidence_of_an_answer_shows_its_audits_and_still_holds(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await add_turn(runtime, "t1", text=TEXT, live=None)
    says(simulator, steers())
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    bundle = await evidence_of_turn(runtime.database, runtime.knowledge, "t1")
    assert [row["purpose"] for row in bundle["verdicts"]] == [f"audit:{run.id}"]
    assert [row["cause"] for row in bundle["reviews"]] == ["audit"]
    # No live verdict was given, so what the audit recorded is what is computed again.
    assert bundle["deterministic"]["outcome"] == "identical"
    assert is_sound(bundle)


async def test_another_policy_asks_anew_and_leaves_nothing_to_be_asked_by_the_old_one(
    runtime: Runtime, rounds: AuditRounds, batches: BatchProcessor
) -> None:
    await add_turn(runtime, "done")
    first = await finish(rounds, batches, await validate_batch(rounds, batches))
    await add_turn(runtime, "waits")
    before = await rounds.open_run(AuditPlan())
    assert before is not None
    runtime.validator.replies.policy_version = "another"
    del runtime.validator.policy_version
    # What waits is not asked by this policy under the old one's name.
    assert await rounds.advance(batches) == 0
    run = await finish(rounds, batches, await validate_batch(rounds, batches))
    assert (run.policy_version, run.turns) == ("another", 2)
    assert (await rounds.subjects.run(before.id)).turns == 0
    made = [(row.turn_id, row.policy_version) for row in await audits(runtime)]
    assert sorted(made) == sorted([("done", first.policy_version), ("done", "another"), ("waits", "another")])

"""Reflection in rounds of batches: each failure once, whoever runs it, whenever, and whatever becomes of an item."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.batch_processing import BatchResult
from guidance_agent.core.batches.bodies import prepared_call
from guidance_agent.core.schema import batch_items, batch_jobs, reflections, turns
from guidance_agent.errors import ProviderUnavailableError
from guidance_agent.learning.batch_reflection import NO_FAILURE_ANY_MORE, ReflectionRounds
from guidance_agent.learning.reflection import learn_from_failures_batch, process_batch_reflection_results
from guidance_agent.learning.reflection_records import MOST_UNREADABLE, ReflectionRecords, TakenError
from guidance_agent.learning.rule_records import Drafted, PreparedRule
from guidance_agent.learning.rules import RulesBase
from guidance_agent.llm.batch_request import ItemOutcome, request_from_json
from guidance_agent.llm.transports.batch import load_object
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from guidance_agent.retrieval.hashed import HashedEmbedder
from guidance_agent.retrieval.vectors import FloatArray
from tests.integration.core.batch_desk import FAST
from tests.integration.core.batch_fixtures import seen
from tests.integration.learning.failing import RULE, Steps, add_turn, rules_base
from tests.integration.learning.rounds import processor_for, row_of, run_through, stages

STEPS = ["reflect", "validate", "refine", "value"]
ITEM = "batches.item"
sqlite_only = pytest.mark.only_on("sqlite")


class Crash(BaseException):
    """A process that ends here."""


@pytest.fixture
def rounds(runtime: Runtime) -> ReflectionRounds:
    return runtime.reflection_rounds()


async def test_failures_become_rules_in_four_rounds_at_half_the_price(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    for name in ("t1", "t2", "t3"):
        await add_turn(runtime, name)
    steps.say_all(times=None)
    async with processor_for(runtime, rounds) as batches:
        assert await learn_from_failures_batch(rounds, batches) == 3
        for stage in ("refine", "value", "keep"):
            # The simulator has answered before a round's submission returns.
            standing = await process_batch_reflection_results(rounds, batches)
            assert standing.waiting == {stage: 3}
        standing = await process_batch_reflection_results(rounds, batches)
        assert (standing.waiting, standing.ended) == ({}, {"draft": 1, "merged": 2})
        assert await process_batch_reflection_results(rounds, batches) == standing
        jobs = await batches.list()
    assert [(job.kind, job.items) for job in reversed(jobs)] == [(f"reflection.{step}", 3) for step in STEPS]
    assert all(job.cost_usd == pytest.approx(job.interactive_usd / 2) for job in jobs)
    assert (await seen(simulator))["requests"] == 12
    (rule,) = await rules_base(runtime).rules()
    assert (rule.text, rule.simulated) == (RULE, True)
    assert [each["turn_id"] for each in rule.evidence] == ["t1", "t2", "t3"]
    assert [step["step"] for step in rule.evidence[0]["steps"]] == STEPS
    assert rule.evidence[0]["models"] == [runtime.validator.model]
    spent = sum(step["cost_usd"] for each in rule.evidence for step in each["steps"])
    assert spent == pytest.approx(sum(job.cost_usd for job in jobs))


async def test_the_bodies_of_all_four_steps_are_those_of_learning_now(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds, wire: str
) -> None:
    await add_turn(runtime)
    steps.say_all(times=None)
    async with processor_for(runtime, rounds) as batches:
        await rounds.open_new(limit=5)
        await run_through(rounds, batches)
        query = sa.select(batch_items.c.request).join(batch_jobs, batch_jobs.c.id == batch_items.c.job_id)
        query = query.order_by(batch_jobs.c.created_at)
        records = await runtime.database.run(lambda connection: list(connection.execute(query).scalars()))
        bodies = []
        for record in records:
            call = await prepared_call(runtime.gateway, request_from_json(record))
            row = load_object((await batches._wires.of(call.endpoint)).row("id", call))
            bodies.append(row["params" if wire == "anthropic" else "body"])
    await forget_everything(runtime)
    before = len(simulator.requests)
    await runtime.learner().learn()
    assert [record.body for record in list(simulator.requests)[before:]] == bodies
    assert len(bodies) == 4


async def forget_everything(runtime: Runtime) -> None:
    from guidance_agent.core.schema import rule_events, rules

    def write(connection: sa.Connection) -> None:
        for table in (reflections, rule_events, rules):
            connection.execute(sa.delete(table))

    await runtime.database.transaction(write)


async def test_nothing_to_reflect_on_submits_nothing(runtime: Runtime, rounds: ReflectionRounds) -> None:
    await add_turn(runtime, judgement="passed")
    async with processor_for(runtime, rounds) as batches:
        assert await learn_from_failures_batch(rounds, batches) == 0
        standing = await process_batch_reflection_results(rounds, batches)
        assert (standing.waiting, standing.ended, await batches.list()) == ({}, {}, [])


# Twice, late, at once, and after a crash


async def test_runs_at_once_and_again_lead_to_the_state_of_one(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps
) -> None:
    for number in range(6):
        await add_turn(runtime, f"t{number}")
    steps.say_all(times=None)

    async def run() -> None:
        own = runtime.reflection_rounds()
        async with processor_for(runtime, own) as batches:
            for _ in range(2):
                await own.open_new(limit=4)
            await run_through(own, batches)

    await asyncio.gather(*(run() for _ in range(3)))
    await run()
    assert await stages(runtime) == ["ended"] * 6
    (rule,) = await rules_base(runtime).rules()
    assert sorted(each["turn_id"] for each in rule.evidence) == [f"t{number}" for number in range(6)]
    assert (await seen(simulator))["requests"] == 24


@sqlite_only
@pytest.mark.parametrize(
    ("kind", "point"),
    [
        ("validate", "prepared"),
        ("validate", "collecting"),
        ("validate", "applying"),
        ("value", "preparing"),
        ("value", "accepted"),
        ("value", "applied_some"),
    ],
)
async def test_a_run_that_dies_on_its_way_is_taken_up_by_the_next(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds, point: str, kind: str
) -> None:
    await add_turn(runtime, "t1")
    await add_turn(runtime, "t2")
    steps.say_all(times=None)
    quick = replace(FAST, lease=0.2, items_per_transaction=1)

    def die(passed: str) -> None:
        if passed == point and len(before) == STEPS.index(kind):
            raise Crash

    before: list[str] = []
    async with processor_for(runtime, rounds, options=quick, crash=die) as batches:
        await rounds.open_new(limit=5)
        with pytest.raises(Crash):
            for _ in STEPS:
                before = [job.kind for job in await batches.list()]
                await rounds.advance(batches)
    async with processor_for(runtime, rounds, options=quick) as batches:
        await run_through(rounds, batches)
    assert await stages(runtime) == ["ended"] * 2
    (rule,) = await rules_base(runtime).rules()
    assert sorted(each["turn_id"] for each in rule.evidence) == ["t1", "t2"]
    assert (await seen(simulator))["requests"] == 8


@sqlite_only
async def test_a_rule_whose_storing_breaks_off_is_stored_once(
    runtime: Runtime, steps: Steps, rounds: ReflectionRounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_turn(runtime)
    steps.say_all(times=None)
    base = runtime.rules_base()
    breaking = ReflectionRounds(runtime.database, runtime.clock, rounds.model, base)
    store = base.store

    def breaks(connection: sa.Connection, prepared: PreparedRule) -> Drafted:
        store(connection, prepared)
        raise SystemError("the process ends here")

    monkeypatch.setattr(base, "store", breaks)
    async with processor_for(runtime, breaking) as batches:
        await breaking.open_new(limit=5)
        with pytest.raises(SystemError):
            await run_through(breaking, batches)
        assert await stages(runtime) == ["keep"]
        assert await rules_base(runtime).rules() == ()
    async with processor_for(runtime, rounds) as batches:
        await run_through(rounds, batches)
    (rule,) = await rules_base(runtime).rules()
    assert len(rule.evidence) == 1


@sqlite_only
async def test_rules_and_cases_wait_for_vectors_that_cannot_be_made_now(
    runtime: Runtime, steps: Steps, rounds: ReflectionRounds
) -> None:
    class Down(HashedEmbedder):
        async def embed(self, texts: Sequence[str], *, shared: bool = False) -> FloatArray:
            raise ProviderUnavailableError("The embedding model does not answer. Try again later.")

    await add_turn(runtime, "t1")
    await add_turn(runtime, "t2", judgement="passed", question="What is an annuity, please?", text="It is an income.")
    steps.say_all(times=None)
    base = RulesBase(runtime.database, runtime.clock, runtime.knowledge, Down())
    waits = ReflectionRounds(runtime.database, runtime.clock, rounds.model, base)
    async with processor_for(runtime, waits) as batches:
        assert await waits.open_new(limit=5) == 1
        await run_through(waits, batches)
        assert (await waits.standing()).waiting == {"keep": 1}
        assert await rounds.open_new(limit=5) == 0
        await rounds.advance(batches)
    assert await stages(runtime) == ["ended"]
    assert len(await rules_base(runtime).rules()) == 1


# What becomes of items


@sqlite_only
async def test_answers_that_cannot_be_read_end_the_reflection_without_a_rule(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    steps.say("reflect")
    steps.say_text("validate", '{"valid": true}', times=None)
    async with processor_for(runtime, rounds, options=replace(FAST, max_rounds=2)) as batches:
        await rounds.open_new(limit=5)
        await run_through(rounds, batches)
    row = await row_of(runtime)
    assert (row.stage, row.outcome) == ("ended", "unreadable")
    assert row.unreadable >= MOST_UNREADABLE
    assert await rules_base(runtime).rules() == ()
    assert (await seen(simulator))["requests"] == 5


@sqlite_only
async def test_an_item_that_nobody_answered_is_sent_again_by_the_next_run(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime, "t1")
    await add_turn(runtime, "t2")
    busy = Fault(kind="status", status=529, operation=ITEM, contains="Your step: refine", times=3)
    simulator.faults.add(busy)
    steps.say_all(times=None)
    once = replace(FAST, max_rounds=1)
    async with processor_for(runtime, rounds, options=once) as batches:
        await rounds.open_new(limit=5)
        await run_through(rounds, batches)
    assert await stages(runtime) == ["ended"] * 2
    (rule,) = await rules_base(runtime).rules()
    assert len(rule.evidence) == 2
    assert (await row_of(runtime)).unreadable == 0


@sqlite_only
@pytest.mark.parametrize("outcome", ["errored_retryable", "expired", "canceled"])
async def test_what_came_to_nothing_leaves_the_reflection_ready(
    outcome: ItemOutcome, runtime: Runtime, simulator: ProviderSimulator, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    simulator.faults.add(Fault(kind="slow_batch", seconds=60.0))
    async with processor_for(runtime, rounds) as batches:
        await learn_from_failures_batch(rounds, batches)
        before = await row_of(runtime)
        result = BatchResult(custom_id=before.id, success=False, outcome=outcome, error="Nothing came of it.")
        await runtime.database.transaction(partial(rounds.apply, result=result, step="reflect"))
        assert await row_of(runtime) == before
        assert await rounds.advance(batches) == 1


@sqlite_only
@pytest.mark.parametrize("way", ["again", "now"])
async def test_what_the_provider_refuses_waits_for_a_person_and_is_not_sent_by_itself(
    way: str, runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    simulator.faults.add(Fault(kind="status", status=400, operation=ITEM, contains="Your step: refine"))
    steps.say_all(times=None)
    async with processor_for(runtime, rounds) as batches:
        await rounds.open_new(limit=5)
        await run_through(rounds, batches)
        standing = await rounds.standing()
        assert standing.waiting == {"refine": 1}
        (told,) = standing.needs_person
        assert "refine" in told
        assert await rounds.advance(batches) == 0
        if way == "again":
            assert await rounds.send_again() == 1
            await run_through(rounds, batches)
        else:
            assert [each.outcome for each in await runtime.learner().learn()] == ["draft"]
        standing = await rounds.standing()
        assert (standing.ended, standing.needs_person) == ({"draft": 1}, [])


@sqlite_only
async def test_a_job_that_is_cancelled_leaves_its_failures_to_the_next_run(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    steps.say_all(times=None)
    simulator.faults.add(Fault(kind="slow_batch", seconds=60.0))
    async with processor_for(runtime, rounds) as batches:
        await rounds.open_new(limit=5)
        await rounds.advance(batches)
        (job,) = await batches.list()
        await batches.cancel(job.job_key)
        await run_through(rounds, batches)
    assert await stages(runtime) == ["ended"]


@sqlite_only
async def test_a_failure_that_a_person_overturns_meanwhile_teaches_nothing(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    steps.say_all(times=None)
    async with processor_for(runtime, rounds) as batches:
        await learn_from_failures_batch(rounds, batches)
        passed = sa.update(turns).values(judgement="passed")
        await runtime.database.transaction(lambda connection: connection.execute(passed))
        await run_through(rounds, batches)
    row = await row_of(runtime)
    assert (row.outcome, row.reason) == ("dismissed", NO_FAILURE_ANY_MORE)
    assert (await seen(simulator))["requests"] == 1


# Beside learning now


async def test_what_stands_in_a_batch_is_not_asked_now(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime, "t1")
    simulator.faults.add(Fault(kind="slow_batch", seconds=60.0))
    steps.say_all(times=None)
    (failure,) = await runtime.learner().failures.waiting()
    async with processor_for(runtime, rounds) as batches:
        await learn_from_failures_batch(rounds, batches)
        assert await runtime.learner().learn() == ()
        told = await runtime.learner().learn_from(failure)
        assert (told.outcome, told.reason) == ("waiting", "Its request is in a batch.")
        assert [
            record.path for record in simulator.requests if record.path.endswith(("/messages", "/completions"))
        ] == []
        (job,) = await batches.list()
        await batches.cancel(job.job_key)
        await run_through(rounds, batches)
    assert (await runtime.learner().learn_from(failure)).outcome == "draft"


async def test_what_is_asked_now_goes_into_no_batch(runtime: Runtime, steps: Steps, rounds: ReflectionRounds) -> None:
    await add_turn(runtime)
    (failure,) = await runtime.learner().failures.waiting()
    records = ReflectionRecords(runtime.database, runtime.clock, runtime.rules_base())
    standing = await records.hold(failure, "somebody")
    async with processor_for(runtime, rounds) as batches:
        assert await rounds.advance(batches) == 0
        assert (await runtime.learner().learn_from(failure)).reason == "Another process works on it."
        await records.let_go(standing, "somebody")
        assert await rounds.advance(batches) == 1


@sqlite_only
async def test_a_process_that_died_while_it_asked_has_what_it_held_for_a_while_only(
    runtime: Runtime, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    (failure,) = await runtime.learner().failures.waiting()
    records = ReflectionRecords(runtime.database, runtime.clock, runtime.rules_base())
    standing = await records.hold(failure, "somebody")
    long_ago = sa.update(reflections).values(lease_until=runtime.clock.now().timestamp() - 1.0)
    await runtime.database.transaction(lambda connection: connection.execute(long_ago))
    async with processor_for(runtime, rounds) as batches:
        assert await rounds.advance(batches) == 1
    await records.hold(failure, "somebody else")
    with pytest.raises(TakenError):
        await records.hold_on(standing, "somebody")


@sqlite_only
async def test_an_answer_that_comes_after_another_changes_nothing(
    runtime: Runtime, simulator: ProviderSimulator, steps: Steps, rounds: ReflectionRounds
) -> None:
    await add_turn(runtime)
    simulator.faults.add(Fault(kind="slow_batch", seconds=0.3))
    steps.say_all(times=None)
    async with processor_for(runtime, rounds) as batches:
        await learn_from_failures_batch(rounds, batches)
        moved: Any = sa.update(reflections).values(stage="ended", outcome="dismissed", reason="By hand.")
        await runtime.database.transaction(lambda connection: connection.execute(moved))
        (job,) = await batches.list()
        await batches.wait(job.job_key, timeout=10)
    row = await row_of(runtime)
    assert (row.outcome, row.reason, row.steps) == ("dismissed", "By hand.", [])

"""Many observations become a few reflections, over batches: each window once, and nothing of anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.batch_processing import BatchProcessor, BatchResult
from guidance_agent.core.schema import batch_items
from guidance_agent.learning.consolidation import MOST_ATTEMPTS, MemoryConsolidation
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.integration.learning.remembering import (
    ASKED,
    FAST,
    SAID,
    WINDOW,
    answers,
    codes,
    consolidation,
    observe,
    reflection,
    rows,
    windows,
    work_through,
)


@pytest.fixture
def work(runtime: Runtime) -> MemoryConsolidation:
    return consolidation(runtime)


@pytest_asyncio.fixture
async def batches(runtime: Runtime, work: MemoryConsolidation) -> AsyncIterator[BatchProcessor]:
    async with BatchProcessor(runtime.database, runtime.gateway, kinds=work.kinds, options=FAST) as processor:
        yield processor


async def test_observations_become_a_reflection_with_evidence_and_are_kept_and_marked(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    ids = await observe(runtime, "ann", SAID[:WINDOW])
    assert await work.open_new(limit=10) == 1
    given = await codes(runtime, "ann")
    answers(simulator, reflection([given[0], given[2]], importance=7))
    await work_through(work, batches)
    (made,) = await rows(runtime, kind="reflection")
    assert (made.text, made.importance, made.evidence) == (ASKED, 7.0, [ids[0], ids[2]])
    assert (made.customer_id, made.turn_id, made.consultation_id, made.simulated) == ("ann", None, None, True)
    originals = await rows(runtime, kind="observation")
    assert [row.text for row in originals] == list(SAID[:WINDOW])
    assert [row.id for row in originals if row.consolidated_at is not None] == [ids[0], ids[2]]
    assert made.created_at == originals[2].created_at
    (window,) = await windows(runtime)
    assert (window.outcome, window.kept, window.refused, window.model) == ("kept", 1, 0, runtime.validator.model)
    assert window.cost_usd > 0
    assert (await work.standing()).ended == {"kept": 1}
    assert await runtime.memory.embed_pending() == WINDOW + 1
    found = await runtime.memory.originals(made.id, customer_id="ann")
    assert [each.id for each in found] == [ids[0], ids[2]]


async def test_the_same_windows_are_made_however_late_and_each_is_asked_about_once(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await observe(runtime, "late", SAID)
    await observe(runtime, "early", SAID[:WINDOW])
    assert await work.open_new(limit=10) == 3
    await observe(runtime, "early", SAID[WINDOW:], first=WINDOW)
    again = consolidation(runtime)
    assert sum(await asyncio.gather(work.open_new(limit=10), again.open_new(limit=10))) == 1
    assert await work.open_new(limit=10) == 0
    made = [(row.customer_id, row.memory_ids) for row in await windows(runtime)]
    assert [[each.rpartition("-")[2] for each in ids] for _, ids in made] == [
        ["00", "01", "02", "03"],
        ["04", "05", "06", "07"],
    ] * 2
    answers(simulator, times=None)
    await asyncio.gather(work_through(work, batches), work_through(again, batches))
    await work_through(work, batches)
    query = sa.select(sa.func.count()).select_from(batch_items)
    assert await runtime.database.run(lambda connection: connection.execute(query).scalar_one()) == 4
    assert (await work.standing()).ended == {"nothing": 4}


async def test_two_processes_that_look_at_an_answer_keep_it_once(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    ids = await observe(runtime, "ann", SAID[:WINDOW])
    await work.open_new(limit=10)
    given = await codes(runtime, "ann")
    answers(simulator, reflection(given))
    await work.advance(batches)
    for status in await batches.list():
        await batches.wait(status.job_key, timeout=20)
    assert (await work.standing()).waiting == {"answered": 1}
    await asyncio.gather(*(consolidation(runtime).settle() for _ in range(3)))
    (made,) = await rows(runtime, kind="reflection")
    assert made.evidence == ids


async def test_an_answer_that_comes_a_second_time_changes_nothing(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await observe(runtime, "ann", SAID[:WINDOW])
    await work.open_new(limit=10)
    given = await codes(runtime, "ann")
    answers(simulator, reflection(given[:2]))
    await work_through(work, batches)
    before = await windows(runtime), await rows(runtime)
    (kind,), (job,) = work.kinds, await batches.list()
    assert kind.apply is not None
    apply = kind.apply

    def again(connection: sa.Connection, *, result: BatchResult) -> None:
        apply(connection, result)

    async for result in batches.results(job.job_key):
        await runtime.database.transaction(partial(again, result=result))
    await work_through(work, batches)
    assert (await windows(runtime), await rows(runtime)) == before


async def test_fewer_observations_than_a_window_wait_and_ask_nobody(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor
) -> None:
    await observe(runtime, "ann", SAID[: WINDOW - 1])
    await work_through(work, batches)
    assert await windows(runtime) == []
    assert await batches.list() == []


async def test_an_answer_about_another_customers_observations_is_refused_as_a_whole(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    """Two customers in one batch, whose answers are exchanged."""
    await observe(runtime, "ann", SAID[:WINDOW])
    await observe(runtime, "bob", SAID[WINDOW:])
    await work.open_new(limit=10)
    given = {customer: await codes(runtime, customer) for customer in ("ann", "bob")}
    for customer, other in (("ann", "bob"), ("bob", "ann")):
        mixed = [reflection(given[customer][:2]), reflection(given[other][:2], f"Said what {other} said.")]
        swapped = [reflection(given[other][:2], f"Said what {other} said and nobody else.")]
        answers(simulator, *mixed, contains=given[customer][0])
        answers(simulator, *swapped, contains=given[customer][0])
    await work_through(work, batches)
    assert await rows(runtime, kind="reflection") == []
    assert [row.consolidated_at for row in await rows(runtime)] == [None] * 2 * WINDOW
    made = await windows(runtime)
    assert [(row.outcome, row.attempts) for row in made] == [("refused", MOST_ATTEMPTS)] * 2
    assert all("not given" in row.reason for row in made)


async def test_a_refused_answer_is_asked_for_again_and_what_passes_then_is_kept(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await observe(runtime, "ann", SAID[:WINDOW])
    await work.open_new(limit=10)
    given = await codes(runtime, "ann")
    answers(simulator, reflection(["deadbeef"]))
    answers(simulator, reflection(given[:1]))
    await work_through(work, batches)
    (window,) = await windows(runtime)
    assert (window.outcome, window.attempts, window.kept) == ("kept", 1, 1)


async def test_what_steers_or_invents_is_left_out_and_its_observations_stay_as_they_are(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    ids = await observe(runtime, "ann", SAID[:WINDOW])
    await work.open_new(limit=10)
    given = await codes(runtime, "ann")
    answers(
        simulator,
        reflection(given[:1], "Said that they want the pot, and should take it before the roof falls in."),
        reflection(given[1:2], "Said that they have cared for a husband with dementia for 7 years."),
        reflection(given[2:3], "Asked whether the roof money is taxed."),
    )
    await work_through(work, batches)
    (made,) = await rows(runtime, kind="reflection")
    assert made.evidence == [ids[2]]
    assert [row.id for row in await rows(runtime, kind="observation") if row.consolidated_at] == [ids[2]]
    (window,) = await windows(runtime)
    assert (window.kept, window.refused) == (1, 2)
    assert "steers" in window.reason
    assert "figures" in window.reason


FAILING: list[dict[str, Any]] = [
    {"kind": "script", "script": {"text": '{"reflections": [], "approved": true}'}},
    {"kind": "script", "script": {"text": "I cannot help with that.", "stop": "refusal"}},
]


@pytest.mark.parametrize("fault", FAILING, ids=str)
async def test_an_answer_that_never_comes_ends_the_window_and_changes_no_memory(
    fault: dict[str, Any],
    runtime: Runtime,
    work: MemoryConsolidation,
    batches: BatchProcessor,
    simulator: ProviderSimulator,
) -> None:
    await observe(runtime, "ann", SAID[:WINDOW])
    simulator.faults.add(Fault.model_validate({"contains": "Say what these observations", "times": None, **fault}))
    await work_through(work, batches)
    assert (await work.standing()).ended == {"failed": 1}
    assert len(await rows(runtime)) == WINDOW
    assert [row.consolidated_at for row in await rows(runtime)] == [None] * WINDOW


async def test_a_customer_who_was_erased_meanwhile_is_not_remembered_again(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    await observe(runtime, "ann", SAID[:WINDOW])
    await observe(runtime, "bob", SAID[:WINDOW])
    await work.open_new(limit=10)
    for customer in ("ann", "bob"):
        given = await codes(runtime, customer)
        answers(simulator, reflection(given[:2]), contains=given[0])
    assert await work.advance(batches) == 2
    await runtime.memory.erase_customer("ann")
    await work_through(work, batches)
    assert {row.customer_id for row in await rows(runtime)} == {"bob"}
    assert [row.customer_id for row in await rows(runtime, kind="reflection")] == ["bob"]


async def test_a_window_that_has_lost_an_observation_is_given_up_and_frees_the_others(
    runtime: Runtime, work: MemoryConsolidation, batches: BatchProcessor
) -> None:
    from guidance_agent.core.schema import memories

    ids = await observe(runtime, "ann", SAID[:WINDOW])
    await work.open_new(limit=10)
    gone = sa.delete(memories).where(memories.c.id == ids[0])
    await runtime.database.transaction(lambda connection: connection.execute(gone))
    assert await work.advance(batches) == 0
    assert (await work.standing()).ended == {"failed": 1}
    await observe(runtime, "ann", SAID[4:5], first=4)
    assert await work.open_new(limit=10) == 1


async def test_what_a_simulated_model_says_of_a_real_customer_is_not_kept(
    runtime: Runtime, batches: BatchProcessor, simulator: ProviderSimulator
) -> None:
    work = consolidation(runtime, include_simulated=False)
    await observe(runtime, "ann", SAID[:WINDOW], simulated=False)
    await observe(runtime, "bob", SAID[:WINDOW], simulated=True)
    assert await work.open_new(limit=10) == 1
    given = await codes(runtime, "ann")
    answers(simulator, reflection(given[:2]), times=None)
    await work_through(work, batches)
    assert (await work.standing()).ended == {"refused": 1}
    assert await rows(runtime, kind="reflection") == []

"""Spans of batches: the job, the steps of its batches, and its items, whatever became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from guidance_agent.core.batch_processing import BatchKind, BatchOptions, BatchProcessor, BatchRequest, BatchStatus
from guidance_agent.core.database import Database
from guidance_agent.errors import BatchRequestError
from guidance_agent.llm.messages import Usage
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script, SimulatorSettings
from guidance_agent.settings import Settings
from guidance_agent.tracing import Tracing
from guidance_agent.tracing.export import ExportLimits, ExportThread
from guidance_agent.tracing.memory import MemorySink, tracing_in_memory
from guidance_agent.tracing.preparing import FinishedSpan, NoRedaction, Preparation
from guidance_agent.tracing.setup import redactor_of
from tests.integration.core.batch_desk import (
    APPLIES,
    FAST,
    MODELS,
    gateway_before,
    make_ledger,
    options,
    requests,
    with_prefix,
)
from tests.integration.core.batch_fixtures import provider

__all__ = ["provider"]

pytestmark = pytest.mark.only_on("sqlite")
each_wire = pytest.mark.parametrize("wire", ("anthropic", "openai"))
Open = Callable[..., BatchProcessor]


class Rating(BaseModel):
    stars: int


RATES = BatchKind(name="rate", output=Rating)


@pytest.fixture
def traced() -> Iterator[tuple[Tracing, MemorySink]]:
    tracing, sink = tracing_in_memory()
    yield tracing, sink
    tracing.close(5)


@pytest.fixture
async def open_processor(
    database: Database, provider: ProviderSimulator, traced: tuple[Tracing, MemorySink]
) -> AsyncIterator[Open]:
    await make_ledger(database)
    async with AsyncExitStack() as stack:

        def make(
            options: BatchOptions = FAST, base_url: str = provider.base_url, tracing: Tracing = traced[0]
        ) -> BatchProcessor:
            gateway = gateway_before(base_url, tracing=tracing)
            made = BatchProcessor(database, gateway, kinds=[APPLIES, RATES], options=options, tracing=tracing)
            stack.push_async_callback(gateway.aclose)
            stack.push_async_callback(made.aclose)
            return made

        yield make


async def run(processor: BatchProcessor, asked: Any, wire: str, **fields: Any) -> BatchStatus:
    handle = await processor.submit(asked, **({"kind": APPLIES.name, "model": MODELS[wire]} | fields))
    return await processor.wait(handle.job_key, timeout=20)


async def spans(traced: tuple[Tracing, MemorySink]) -> dict[str, list[FinishedSpan]]:
    assert await asyncio.to_thread(traced[0].flush, 10)
    named: dict[str, list[FinishedSpan]] = {}
    for span in traced[1].spans:
        named.setdefault(span.name, []).append(span)
    return named


STEPS = ["batch.submit", "batch.wait", "batch.collect", "batch.apply", "batch.done"]


@each_wire
async def test_a_job_is_a_trace_with_the_steps_of_its_batches(
    open_processor: Open, traced: tuple[Tracing, MemorySink], wire: str
) -> None:
    status = await run(open_processor(options(most_items=4)), requests(8), wire, job_key="night")
    found = await spans(traced)
    (job,) = found["batch.job"]
    assert (job.parent, job.attributes["guidance.batch.items"], job.attributes["guidance.batch.batches"]) == (
        None,
        8,
        2,
    )
    for name in STEPS:
        assert {span.parent for span in found[name]} == {job.context}
        assert {span.attributes["guidance.batch.job"] for span in found[name]} == {"night"}
        assert len(found[name]) == (1 if name == "batch.done" else 2)
    for span in found["batch.apply"]:
        assert span.attributes["guidance.batch.outcomes"] == ["4 succeeded"]
        assert span.attributes["guidance.batch.state"] == "applied"
    (done,) = found["batch.done"]
    assert done.attributes["guidance.cost.usd"] == pytest.approx(status.cost_usd)
    assert done.attributes["guidance.cost.interactive_usd"] == pytest.approx(status.interactive_usd)
    assert done.started <= job.finished
    assert done.finished >= max(span.finished for span in found["batch.apply"])


@each_wire
async def test_an_item_is_a_trace_of_its_own_that_names_job_and_origin_and_what_it_cost(
    open_processor: Open, traced: tuple[Tracing, MemorySink], wire: str
) -> None:
    ids = {"turn_id": "turn_1", "consultation_id": "consultation_1", "customer_id": "customer_7", "note": "private"}
    processor = open_processor()
    status = await run(processor, [BatchRequest(custom_id="a", user_message="What is drawdown?", metadata=ids)], wire)
    (result,) = [each async for each in processor.results(status.job_key)]
    found = await spans(traced)
    (item,), (job,) = found["batch.item"], found["batch.job"]
    assert item.parent is None
    assert item.link == job.context
    assert item.context.trace_id != job.context.trace_id
    said = item.attributes
    assert (said["session.id"], said["guidance.turn_id"], said["guidance.consultation_id"]) == (
        "consultation_1",
        "turn_1",
        "consultation_1",
    )
    assert said["user.id"] == traced[0].user_id("customer_7")
    assert not {"customer_7", "private"} & {str(value) for value in said.values()}
    assert (said["guidance.batch.item"], said["guidance.batch.item_outcome"], said["guidance.outcome"]) == (
        "a",
        "succeeded",
        "completed",
    )
    assert said["output.value"] == result.response
    assert said["guidance.cost.usd"] == pytest.approx(result.cost)
    assert said["guidance.cost.interactive_usd"] == pytest.approx(2 * (result.cost or 0))
    usage = result.usage or Usage()
    assert (said["llm.token_count.prompt"], said["llm.token_count.completion"]) == (
        usage.total_input_tokens,
        usage.output_tokens,
    )
    assert said["guidance.transport"] == "batch"
    assert str(said["guidance.call_id"]).endswith("-1")
    (submitted,) = found["batch.submit"]
    assert submitted.started <= item.started <= item.finished


async def test_what_items_carry_is_redacted(
    database: Database, provider: ProviderSimulator, open_processor: Open
) -> None:
    tracing, sink = tracing_in_memory(redactor_of(Settings()))
    try:
        text = "Write to janet.smith@example.org, or ring 07700 900123."
        provider.faults.add(Fault(kind="script", operation="batches.item", script=Script(text=text)))
        ids = {"consultation_id": "janet.smith@example.org"}
        asked = [BatchRequest(custom_id="07700 900123", user_message="Hello.", metadata=ids)]
        await run(open_processor(tracing=tracing), asked, "openai")
        (item,) = (await spans((tracing, sink)))["batch.item"]
    finally:
        await asyncio.to_thread(tracing.close, 5)
    said = " ".join(str(value) for value in item.attributes.values())
    assert "Write to" in said
    assert "janet.smith" not in said
    assert "900123" not in said
    assert item.attributes["session.id"] == item.attributes["gen_ai.conversation.id"] != ""


async def test_the_cache_of_a_primed_batch_is_told_of_its_items(
    open_processor: Open, traced: tuple[Tracing, MemorySink]
) -> None:
    await run(open_processor(options(prime_wait=60.0)), with_prefix(25), "anthropic")
    items = (await spans(traced))["batch.item"]
    labels = [span.attributes["guidance.cache.outcome"] for span in items]
    reads = [bool(span.attributes["llm.token_count.prompt_details.cache_read"]) for span in items]
    assert labels == ["hit" if read else "first_write" for read in reads]
    assert labels[0] == "first_write"
    # A provider promises no hit inside a batch.
    assert labels.count("hit") > 15


FAULTS: list[tuple[str, Fault, str]] = [
    ("errored_fatal", Fault(kind="status", status=400, operation="batches.item", times=None), "failed"),
    ("errored_retryable", Fault(kind="status", status=500, operation="batches.item", times=None), "failed"),
    ("invalid", Fault(kind="script", operation="batches.item", times=None, script=Script(text="None.")), "failed"),
    ("expired", Fault(kind="expire", times=None), "failed"),
]


@each_wire
@pytest.mark.parametrize(("outcome", "fault", "said"), FAULTS, ids=[outcome for outcome, _, _ in FAULTS])
async def test_an_item_that_failed_says_how(
    open_processor: Open, traced: tuple[Tracing, MemorySink], wire: str, outcome: str, fault: Fault, said: str
) -> None:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7).but(batch_window=0.2)) as hurried:
        hurried.faults.add(fault)
        asked = [BatchRequest(user_message="Rate it.", response_schema=Rating, metadata={"turn_id": "turn_1"})]
        processor = open_processor(options(max_rounds=1), hurried.base_url)
        status = await run(processor, asked, wire, kind="rate")
    assert status.outcomes == {outcome: 1}
    (item,) = (await spans(traced))["batch.item"]
    assert (item.attributes["guidance.batch.item_outcome"], item.attributes["guidance.outcome"]) == (outcome, said)
    assert item.attributes["guidance.turn_id"] == "turn_1"
    assert item.attributes["guidance.batch.reason"]
    assert item.status is False
    assert ("guidance.cost.usd" in item.attributes) is (outcome == "invalid")


@each_wire
async def test_a_cancelled_item_is_no_failure(
    open_processor: Open, provider: ProviderSimulator, traced: tuple[Tracing, MemorySink], wire: str
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    processor = open_processor()
    handle = await processor.submit(requests(6), model=MODELS[wire])
    await processor.cancel(handle.job_key)
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes.get("canceled", 0) > 3
    items = (await spans(traced))["batch.item"]
    cancelled = [span for span in items if span.attributes["guidance.batch.item_outcome"] == "canceled"]
    assert {(span.attributes["guidance.outcome"], span.status) for span in cancelled} == {("cancelled", True)}


async def test_a_refused_submission_is_a_step_that_failed(
    open_processor: Open, provider: ProviderSimulator, traced: tuple[Tracing, MemorySink]
) -> None:
    provider.faults.add(Fault(kind="status", status=429, operation="batches.create"))
    await run(open_processor(), requests(2), "anthropic")
    refused, accepted = (await spans(traced))["batch.submit"]
    assert (refused.status, refused.attributes["guidance.batch.state"]) == (False, "prepared")
    assert [event.name for event in refused.events] == ["exception"]
    assert (accepted.status, accepted.attributes["guidance.batch.state"]) == (True, "submitted")


async def test_a_submission_whose_answer_was_lost_is_looked_for(
    open_processor: Open, provider: ProviderSimulator, traced: tuple[Tracing, MemorySink]
) -> None:
    provider.faults.add(Fault(kind="answer_lost", operation="batches.create"))
    await run(open_processor(), requests(2), "openai")
    found = await spans(traced)
    assert [span.status for span in found["batch.submit"]] == [False]
    assert [span.attributes["guidance.batch.state"] for span in found["batch.find"]] == ["submitted"]


async def test_what_is_asked_online_has_its_call_below_its_item(
    open_processor: Open, provider: ProviderSimulator, traced: tuple[Tracing, MemorySink]
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    asked = requests(3, metadata={"consultation_id": "consultation_1"})
    await run(open_processor(), asked, "openai", deadline=soon, online_after_deadline=True)
    found = await spans(traced)
    items = {span.context: span for span in found["batch.item.online"]}
    assert {span.link for span in items.values()} == {found["batch.job"][0].context}
    assert {span.attributes["session.id"] for span in items.values()} == {"consultation_1"}
    calls = found["batch"]
    assert {span.parent for span in calls} == items.keys()
    assert {span.attributes["session.id"] for span in calls} == {"consultation_1"}


async def test_a_job_that_is_submitted_again_or_refused_has_no_second_trace(
    open_processor: Open, traced: tuple[Tracing, MemorySink]
) -> None:
    processor = open_processor()
    for _ in range(2):
        await run(processor, requests(2), "openai", job_key="night")
    await processor.resume()
    with pytest.raises(BatchRequestError):
        await run(processor, [*requests(1), *requests(1)], "openai", job_key="other")
    found = await spans(traced)
    assert [(span.attributes["guidance.batch.job"], span.status) for span in found["batch.job"]] == [
        ("night", True),
        ("other", False),
    ]
    assert [len(found[name]) for name in STEPS] == [1] * 5


async def test_of_many_items_a_sample_is_shown_and_told(
    open_processor: Open, provider: ProviderSimulator, traced: tuple[Tracing, MemorySink]
) -> None:
    provider.faults.add(Fault(kind="status", status=400, operation="batches.item", times=2))
    await run(open_processor(options(item_spans=10)), requests(80), "openai")
    found = await spans(traced)
    items = found["batch.item"]
    assert 2 < len(items) < 40
    assert [span.attributes["guidance.batch.item_outcome"] for span in items].count("errored_fatal") == 2
    (collected,) = found["batch.collect"]
    assert collected.attributes["guidance.batch.items"] == 80
    assert collected.attributes["guidance.batch.items_shown"] == len(items)


async def test_items_never_fill_the_queue_of_a_collector_that_is_away(open_processor: Open) -> None:
    class Away(MemorySink):
        def send(self, spans: Any, timeout: float) -> Any:
            return super().send(spans, timeout)._replace(accepted=0, try_again=True, problem="it is away")

    outlet = ExportThread(Away(), Preparation(NoRedaction()), ExportLimits(spans=16, delay=0.01, batch=3))
    tracing = Tracing(outlet)
    try:
        await run(open_processor(tracing=tracing), requests(60), "openai")
        assert outlet.counts.dropped == 0
        assert outlet.counts.waiting <= 16
    finally:
        await asyncio.to_thread(tracing.close, 0.1)

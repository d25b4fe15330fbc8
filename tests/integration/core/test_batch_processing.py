"""Batches from end to end on both wire formats: results, money, splitting, keys, refusals, cancelling, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel

from guidance_agent.core.batch_processing import BatchKind, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches
from guidance_agent.errors import (
    BatchConflictError,
    BatchesUnsupportedError,
    BatchRequestError,
    BatchTimeoutError,
    UnknownBatchError,
)
from guidance_agent.llm.messages import ToolSpec
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.core.batch_desk import APPLIES, MODELS, applied, options, requests, with_prefix
from tests.integration.core.batch_fixtures import open_processor, processor, provider, seen

__all__ = ["open_processor", "processor", "provider"]

WIRES = ("anthropic", "openai")
sqlite_only = pytest.mark.only_on("sqlite")


async def rows(database: Database, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return await database.run(lambda connection: int(connection.execute(query).scalar_one()))


async def results(processor: BatchProcessor, key: str) -> list[BatchResult]:
    return [result async for result in processor.results(key)]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_job_brings_every_answer_in_the_order_of_its_requests_at_half_the_price(
    processor: BatchProcessor, database: Database, wire: str
) -> None:
    asked = [
        BatchRequest(custom_id=f"c-{n}", user_message=f"What is drawdown? {n}", metadata={"n": str(n)})
        for n in range(30)
    ]
    handle = await processor.submit(asked, kind=APPLIES.name, model=MODELS[wire])
    status = await processor.wait(handle.job_key, timeout=20)
    found = await results(processor, handle.job_key)
    assert [result.custom_id for result in found] == [f"c-{n}" for n in range(30)]
    assert [result.metadata["n"] for result in found] == [str(n) for n in range(30)]
    assert all(result.success and result.response and result.simulated for result in found)
    assert status.cost_usd > 0
    assert status.cost_usd == pytest.approx(status.interactive_usd / 2)
    assert status.cost_usd == pytest.approx(sum(result.cost or 0 for result in found))
    assert await applied(database) == sorted(f"c-{n}" for n in range(30))


@sqlite_only
@pytest.mark.parametrize("wire", WIRES)
async def test_a_row_of_a_batch_has_the_body_of_the_interactive_call(
    provider: ProviderSimulator, open_processor: Callable[..., BatchProcessor], wire: str
) -> None:
    from guidance_agent.core.batches.bodies import prepared_call
    from guidance_agent.llm.batch_request import model_request, request_from_json, request_to_json
    from guidance_agent.llm.transports.batch import load_object
    from tests.integration.core.batch_desk import gateway_before

    (asked,) = with_prefix(1)
    request = model_request(asked, "c", model=MODELS[wire], operation="test")
    async with gateway_before(provider.base_url) as gateway:
        call = await prepared_call(gateway, request_from_json(request_to_json(request)))
        await gateway.complete(request)
        row = load_object((await open_processor()._wires.of(call.endpoint)).row("c", call))
    assert row["params" if wire == "anthropic" else "body"] == provider.requests[-1].body


@sqlite_only
@pytest.mark.parametrize(("limit", "expected"), [({"most_items": 5}, [5, 5, 2]), ({"most_bytes": 1_200}, None)])
async def test_a_job_is_split_where_a_batch_would_be_too_large(
    open_processor: Callable[..., BatchProcessor], limit: dict[str, int], expected: list[int] | None
) -> None:
    processor = open_processor(options(**limit))
    handle = await processor.submit(requests(12), model=MODELS["openai"])
    status = await processor.wait(handle.job_key, timeout=20)
    sizes = [batch.items for batch in status.batches]
    assert sum(sizes) == 12
    assert sizes == expected if expected else len(sizes) > 2
    assert status.outcomes == {"succeeded": 12}


@sqlite_only
async def test_each_model_has_batches_of_its_own(processor: BatchProcessor) -> None:
    asked = [BatchRequest(user_message="Hello.", model=MODELS[wire]) for wire in WIRES for _ in range(3)]
    handle = await processor.submit(asked)
    status = await processor.wait(handle.job_key, timeout=20)
    assert sorted((batch.model, batch.items) for batch in status.batches) == sorted(
        (name, 3) for name in MODELS.values()
    )
    assert [result.custom_id for result in await results(processor, handle.job_key)] == ["1", "2", "3", "4", "5", "6"]


@sqlite_only
async def test_the_same_key_with_the_same_requests_is_the_same_job(
    processor: BatchProcessor, provider: ProviderSimulator
) -> None:
    first = await processor.submit(requests(4), job_key="night", model=MODELS["openai"])
    assert await processor.submit(requests(4), job_key="night", model=MODELS["openai"]) == first
    await processor.wait("night", timeout=20)
    assert await processor.submit(requests(4), job_key="night", model=MODELS["openai"]) == first
    assert (await seen(provider))["requests"] == 4
    with pytest.raises(BatchConflictError, match="'night'"):
        await processor.submit(requests(5), job_key="night", model=MODELS["openai"])


@sqlite_only
async def test_a_job_without_requests_has_ended_and_submits_nothing(
    processor: BatchProcessor, provider: ProviderSimulator
) -> None:
    handle = await processor.submit([], model=MODELS["openai"])
    assert (await processor.status(handle.job_key)).done
    assert list(provider.requests) == []


class Rating(BaseModel):
    stars: int
    why: str


TOOL = ToolSpec("look_up", "Looks something up.", {"type": "object", "properties": {}})
REFUSED: list[tuple[list[BatchRequest], dict[str, Any], str]] = [
    ([*requests(2), *requests(1)], {}, "'item-0' stands twice"),
    ([BatchRequest(user_message="Hello.", tools=[TOOL])], {}, "execute_tools=False"),
    ([BatchRequest(user_message="Hello.", custom_id="")], {}, "id ''"),
    ([BatchRequest()], {}, "messages or user_message"),
    ([BatchRequest(messages=[{"role": "robot", "content": "Hello."}])], {}, "robot"),
    (requests(1), {"model": None}, "names no model"),
    (requests(1), {"kind": "unheard"}, "'unheard' is not known"),
    ([BatchRequest(user_message="Hello.", response_schema=Rating)], {}, "a Rating, which is not the output"),
    (requests(1), {"job_key": "no spaces"}, "'no spaces'"),
    (requests(1), {"deadline": datetime(2026, 11, 21)}, "no time zone"),  # noqa: DTZ001 - that is the fault
]


@sqlite_only
@pytest.mark.parametrize(("asked", "fields", "told"), REFUSED, ids=[told for _, _, told in REFUSED])
async def test_what_cannot_go_into_a_batch_is_refused_and_nothing_of_it_is_kept(
    processor: BatchProcessor, database: Database, asked: list[BatchRequest], fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(BatchRequestError, match=told):
        await processor.submit(asked, **({"model": MODELS["openai"]} | fields))
    assert [await rows(database, table) for table in (batch_jobs, provider_batches, batch_items)] == [0, 0, 0]


@sqlite_only
async def test_a_provider_without_a_batch_api_is_named(
    open_processor: Callable[..., BatchProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.integration.core import batch_desk

    monkeypatch.setitem(batch_desk.KEYS, "GEMINI_API_KEY", "key")
    with pytest.raises(BatchesUnsupportedError, match="gemini"):
        await open_processor().submit(requests(1), model="gemini/gemini-3.6-flash")


@sqlite_only
async def test_an_unknown_job_is_named(processor: BatchProcessor) -> None:
    for asked in (processor.status("nothing"), processor.cancel("nothing"), processor.wait("nothing")):
        with pytest.raises(UnknownBatchError, match="'nothing'"):
            await asked


@sqlite_only
@pytest.mark.parametrize("wire", WIRES)
async def test_a_cancelled_job_ends_with_its_items_cancelled_and_sends_them_no_more(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    handle = await processor.submit(requests(12), model=MODELS[wire])
    with pytest.raises(BatchTimeoutError, match="has not ended"):
        await processor.wait(handle.job_key, timeout=0.2)
    await processor.cancel(handle.job_key)
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes.get("canceled", 0) > 6
    assert sum(status.outcomes.values()) == 12
    assert len(status.batches) == 1


@sqlite_only
async def test_a_job_is_cancelled_before_it_has_left(
    open_processor: Callable[..., BatchProcessor], provider: ProviderSimulator
) -> None:
    processor = open_processor(options(retry_after=3_600))
    provider.faults.add(Fault(kind="status", status=429, operation="batches.create"))
    handle = await processor.submit(requests(3), model=MODELS["anthropic"])
    assert (await processor.status(handle.job_key)).batches[0].state == "prepared"
    status = await processor.cancel(handle.job_key)
    assert (status.done, status.outcomes) == (True, {"canceled": 3})
    assert (await seen(provider))["requests"] == 0


@sqlite_only
@pytest.mark.parametrize("wire", WIRES)
async def test_what_no_batch_has_answered_by_the_deadline_is_asked_online_at_the_interactive_price(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    handle = await processor.submit(
        requests(6), model=MODELS[wire], deadline=soon, online_after_deadline=True, kind=APPLIES.name
    )
    status = await processor.wait(handle.job_key, timeout=20)
    found = await results(processor, handle.job_key)
    assert all(result.success for result in found)
    online = [result for result in found if result.route == "online"]
    assert len(online) > 3
    assert all(result.cost == pytest.approx(result.interactive_cost) for result in online)
    assert [batch.route for batch in status.batches] == ["batch", "online"]


@sqlite_only
async def test_online_a_request_has_the_time_that_it_names(
    open_processor: Callable[..., BatchProcessor], provider: ProviderSimulator
) -> None:
    processor = open_processor(options(max_rounds=1))
    provider.faults.add(
        Fault(kind="slow_batch", seconds=3_600),
        Fault(kind="script", operation="messages", times=None, script=Script(text="Late.", first_ms=30_000)),
    )
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    handle = await processor.submit(
        requests(1, timeout=0.05), model=MODELS["anthropic"], deadline=soon, online_after_deadline=True
    )
    await processor.wait(handle.job_key, timeout=20)
    (result,) = await results(processor, handle.job_key)
    assert (result.outcome, result.error_type) == ("errored_retryable", "ModelTimeoutError")
    assert "no answer within 0.05 s" in (result.error or "")


@sqlite_only
@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer_that_was_cut_off_says_so(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    for text, stop in (("An annuity pays", "length"), ("It depends.", "end")):
        script = Script(text=text, stop=stop)
        provider.faults.add(Fault(kind="script", operation="batches.item", script=script))
    handle = await processor.submit(requests(2), model=MODELS[wire])
    await processor.wait(handle.job_key, timeout=20)
    found = await results(processor, handle.job_key)
    told = {result.response: result.finish_reason for result in found}
    assert told == {"An annuity pays": "length", "It depends.": "stop"}


@sqlite_only
@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer_that_is_not_what_was_asked_for_goes_again_with_the_reason(
    open_processor: Callable[..., BatchProcessor], provider: ProviderSimulator, database: Database, wire: str
) -> None:
    processor = open_processor(kinds=[BatchKind(name="rate", output=Rating)])
    provider.faults.add(Fault(kind="script", operation="batches.item", script=Script(text='{"stars": "four"}')))
    provider.faults.add(
        Fault(
            kind="script",
            operation="batches.item",
            times=None,
            contains="could not be used",
            script=Script(text='{"stars": 4, "why": "clear"}'),
        )
    )
    asked = [BatchRequest(user_message="Rate this answer.", response_schema=Rating, custom_id="a")]
    handle = await processor.submit(asked, kind="rate", model=MODELS[wire])
    status = await processor.wait(handle.job_key, timeout=20)
    (result,) = await results(processor, handle.job_key)
    assert (result.parsed, result.attempts) == (Rating(stars=4, why="clear"), 2)
    assert [batch.counts for batch in status.batches] == [{"invalid": 1}, {"succeeded": 1}]
    assert result.cost == pytest.approx(status.cost_usd)


@sqlite_only
async def test_two_processors_at_once_and_over_and_over_do_what_one_does(
    open_processor: Callable[..., BatchProcessor], provider: ProviderSimulator, database: Database
) -> None:
    workers = [open_processor(options(items_per_transaction=5)) for _ in range(3)]
    fields: dict[str, Any] = {"job_key": "night", "kind": APPLIES.name, "model": MODELS["anthropic"]}

    async def work(processor: BatchProcessor) -> None:
        for _ in range(200):
            try:
                await processor.submit(requests(23), **fields)
                break
            except BatchConflictError:
                await asyncio.sleep(0.02)
        for _ in range(5):
            await processor.resume()

    await asyncio.gather(*map(work, workers))
    await workers[0].wait("night", timeout=20)
    for worker in workers:
        await worker.resume()
    assert await applied(database) == sorted(f"item-{number}" for number in range(23))
    accepted = await seen(provider)
    assert (accepted["requests"], accepted["repeated"]) == (23, {})


async def test_an_item_that_cannot_be_applied_holds_up_no_other_and_is_told(
    open_processor: Callable[..., BatchProcessor], database: Database
) -> None:
    broken = True

    def apply(connection: sa.Connection, result: BatchResult) -> None:
        if APPLIES.apply is not None:
            APPLIES.apply(connection, result)
        if broken and result.custom_id == "item-3":
            raise ValueError("the rule has no text")

    kind = BatchKind(name="test", apply=apply)
    processor = open_processor(options(apply_attempts=50), kinds=[kind])
    handle = await processor.submit(requests(12), kind="test", model=MODELS["openai"])
    with pytest.raises(BatchTimeoutError):
        await processor.wait(handle.job_key, timeout=0.5)
    status = await processor.status(handle.job_key)
    assert (status.applied, status.needs_person) == (11, True)
    assert "the rule has no text" in (status.batches[0].reason or "")
    assert "item-3" not in await applied(database)
    broken = False
    assert (await processor.wait(handle.job_key, timeout=20)).applied == 12
    assert len(await applied(database)) == 12


@sqlite_only
async def test_a_first_batch_of_one_request_primes_the_prefix_that_the_others_read(
    open_processor: Callable[..., BatchProcessor],
) -> None:
    processor = open_processor(options(prime_wait=60.0))
    handle = await processor.submit(with_prefix(100), model=MODELS["anthropic"])
    status = await processor.wait(handle.job_key, timeout=30)
    assert [batch.items for batch in status.batches] == [1, 99]
    usages = [result.usage for result in await results(processor, handle.job_key) if result.usage is not None]
    written = usages[0].cache_write_1h_tokens
    assert written > 2_000
    assert sum(usage.cache_read_tokens for usage in usages[1:]) >= 0.9 * 99 * written
    assert status.saved_usd == pytest.approx(status.interactive_usd / 2)


@sqlite_only
async def test_a_job_of_a_kind_that_is_not_known_here_is_left_to_who_knows_it(
    open_processor: Callable[..., BatchProcessor],
) -> None:
    knows, knows_not = open_processor(), open_processor(kinds=())
    handle = await knows.submit(requests(2), kind=APPLIES.name, model=MODELS["openai"])
    await knows_not.resume()
    with pytest.raises(BatchRequestError, match="'test' is not known"):
        await knows_not.wait(handle.job_key)
    assert (await knows.wait(handle.job_key, timeout=20)).applied == 2


@sqlite_only
async def test_a_few_requests_are_not_held_up_by_priming(processor: BatchProcessor) -> None:
    handle = await processor.submit(with_prefix(5), model=MODELS["anthropic"])
    assert [batch.items for batch in (await processor.wait(handle.job_key, timeout=20)).batches] == [5]


@sqlite_only
async def test_code_without_an_event_loop_runs_a_job(processor: BatchProcessor) -> None:
    def run() -> list[str]:
        with processor.sync as batches:
            handle = batches.submit(requests(3), model=MODELS["openai"])
            assert batches.wait(handle.job_key, timeout=20).done
            assert [status.job_key for status in batches.list()] == [handle.job_key]
            return [result.custom_id for result in batches.results(handle.job_key)]

    assert await asyncio.to_thread(run) == ["item-0", "item-1", "item-2"]

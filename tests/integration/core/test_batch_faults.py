"""What a provider does wrong with a batch, and what it refuses: nothing is lost, sent twice or told as an answer."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from guidance_agent.core.batch_processing import BatchProcessor, BatchResult, BatchStatus
from guidance_agent.core.batches.preparing import item_id, wire_id
from guidance_agent.core.database import Database
from guidance_agent.errors import BatchTimeoutError, UnknownBatchError
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batches.openai import OpenAIBatches
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.core import batch_desk
from tests.integration.core.batch_desk import APPLIES, MODELS, applied, options, requests
from tests.integration.core.batch_fixtures import open_processor, processor, provider, seen

__all__ = ["open_processor", "processor", "provider"]

pytestmark = pytest.mark.only_on("sqlite")
WIRES = ("anthropic", "openai")
each_wire = pytest.mark.parametrize("wire", WIRES)
Open = Callable[..., BatchProcessor]


async def run(processor: BatchProcessor, wire: str, count: int = 12, **fields: Any) -> BatchStatus:
    handle = await processor.submit(requests(count), kind=APPLIES.name, model=MODELS[wire], **fields)
    return await processor.wait(handle.job_key, timeout=20)


async def results(processor: BatchProcessor, status: BatchStatus) -> list[BatchResult]:
    return [result async for result in processor.results(status.job_key)]


async def control(provider: ProviderSimulator, method: str, path: str) -> Any:
    url = f"{provider.base_url}/_simulator/{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return await response.json()


@each_wire
async def test_a_submission_whose_answer_was_lost_is_found_and_not_sent_again(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    provider.faults.add(Fault(kind="answer_lost", operation="batches.create"))
    status = await run(processor, wire)
    assert status.outcomes == {"succeeded": 12}
    assert status.batches[0].notes["adopted"] is True
    accepted = await seen(provider)
    assert (accepted["requests"], accepted["repeated"]) == (12, {})
    assert len(await applied(database)) == 12


@each_wire
async def test_of_two_equal_jobs_whose_answers_were_lost_each_finds_its_own(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="answer_lost", operation="batches.create", times=2))
    keys = [(await processor.submit(requests(5), model=MODELS[wire])).job_key for _ in range(2)]
    found = [await processor.wait(key, timeout=20) for key in keys]
    assert [status.outcomes for status in found] == [{"succeeded": 5}] * 2
    assert (await seen(provider))["requests"] == 10


async def test_a_batch_that_runs_and_may_be_ours_is_waited_for(
    open_processor: Open, provider: ProviderSimulator
) -> None:
    processor = open_processor(options(poll=0.05))
    provider.faults.add(Fault(kind="answer_lost", operation="batches.create"), Fault(kind="slow_batch", seconds=1.0))
    handle = await processor.submit(requests(6), model=MODELS["anthropic"])
    with pytest.raises(BatchTimeoutError):
        await processor.wait(handle.job_key, timeout=0.3)
    (batch,) = (await processor.status(handle.job_key)).batches
    assert (batch.state, batch.provider_batch_id) == ("submitting", None)
    assert "may be this one" in (batch.reason or "")
    assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 6}
    assert (await seen(provider))["requests"] == 6


@each_wire
async def test_nothing_is_sent_again_while_a_list_may_lag(
    open_processor: Open, provider: ProviderSimulator, wire: str
) -> None:
    processor = open_processor(options(grace=600.0))
    provider.faults.add(
        Fault(kind="answer_lost", operation="batches.create"), Fault(kind="stale_list", operation="list", times=3)
    )
    status = await run(processor, wire)
    assert status.outcomes == {"succeeded": 12}
    assert (await seen(provider))["requests"] == 12
    lists = [request for request in provider.requests if request.operation.endswith("batches.list")]
    assert len(lists) == 4


@each_wire
async def test_what_the_provider_never_had_is_sent_again_only_after_the_grace_period(
    open_processor: Open, provider: ProviderSimulator, wire: str
) -> None:
    careful, free = open_processor(options(grace=600.0)), open_processor(options(grace=0.0))
    provider.faults.add(Fault(kind="accept_then_drop", operation="batches.create"))
    handle = await careful.submit(requests(4), model=MODELS[wire])
    with pytest.raises(BatchTimeoutError):
        await careful.wait(handle.job_key, timeout=0.3)
    assert (await seen(provider))["requests"] == 0
    (batch,) = (await careful.status(handle.job_key)).batches
    assert batch.state == "submitting"
    assert (await free.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 4}
    assert (await seen(provider))["repeated"] == {}


async def test_a_person_decides_that_there_is_no_batch_or_which_it_is(
    open_processor: Open, provider: ProviderSimulator
) -> None:
    processor = open_processor(options(grace=600.0, poll=60.0))
    for kind, adopts in (("accept_then_drop", False), ("answer_lost", True)):
        provider.faults.add(
            Fault(kind=kind, operation="batches.create"), Fault(kind="stale_list", operation="list", times=None)
        )
        handle = await processor.submit(requests(3), model=MODELS["anthropic"])
        (batch,) = (await processor.status(handle.job_key)).batches
        assert batch.state == "submitting"
        found = (await control(provider, "GET", "batches"))["batches"]
        newest = max(found, key=lambda each: float(each["created_at"]))["id"] if found else None
        await processor.decide(batch.id, adopt=newest if adopts else None)
        with pytest.raises(UnknownBatchError):
            await processor.decide("batch_nothing")
        assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 3}
        provider.faults.clear()


@each_wire
async def test_rows_for_nobody_and_rows_that_come_twice_are_refused_and_told(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    download = "batches.results" if wire == "anthropic" else "files.content"
    provider.faults.add(Fault(kind="unknown_row", operation=download, after_chunks=2))
    first = await run(processor, wire, job_key="first")
    provider.faults.add(Fault(kind="repeat_row", operation=download, after_chunks=2))
    second = await run(processor, wire, job_key="second")
    assert first.outcomes == second.outcomes == {"succeeded": 12}
    assert first.batches[0].notes["unknown"]["rows"] == 1
    assert second.batches[0].notes["repeated"]["rows"] == 1
    assert len(await applied(database)) == 24


@each_wire
@pytest.mark.parametrize("kind", ["truncate", "drop", "garbage"])
async def test_results_that_break_off_are_read_again(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str, kind: Any
) -> None:
    download = "batches.results" if wire == "anthropic" else "files.content"
    provider.faults.add(Fault(kind=kind, operation=download, after_chunks=5))
    status = await run(processor, wire)
    assert (status.outcomes, status.applied, len(status.batches)) == ({"succeeded": 12}, 12, 1)
    downloads = [request for request in provider.requests if request.operation.endswith(download)]
    assert len(downloads) >= 2
    assert sorted(await applied(database)) == sorted(f"item-{number}" for number in range(12))


@each_wire
async def test_items_that_the_results_never_name_go_again(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="lose", times=2))
    status = await run(processor, wire)
    assert status.outcomes == {"succeeded": 12}
    assert status.batches[0].notes["without_result"] == 2
    assert [(batch.round, batch.items) for batch in status.batches] == [(1, 12), (2, 2)]


@each_wire
async def test_items_that_failed_for_a_reason_that_passes_go_again_and_others_do_not(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    provider.faults.add(
        Fault(kind="status", status=529 if wire == "anthropic" else 500, operation="batches.item", times=3),
        Fault(kind="status", status=400, operation="batches.item", times=2),
    )
    status = await run(processor, wire)
    assert status.outcomes == {"succeeded": 10, "errored_fatal": 2}
    assert [batch.items for batch in status.batches] == [12, 3]
    found = await results(processor, status)
    assert sorted(result.attempts for result in found) == [1] * 9 + [2] * 3
    failed = [result for result in found if not result.success]
    assert all(result.error and result.response is None and result.cost == 0.0 for result in failed)
    assert len(await applied(database)) == 12
    assert (await seen(provider))["repeated"] == {}


@each_wire
async def test_items_fail_for_good_after_the_last_round(
    open_processor: Open, provider: ProviderSimulator, wire: str
) -> None:
    processor = open_processor(options(max_rounds=2))
    provider.faults.add(Fault(kind="status", status=500, operation="batches.item", times=None))
    status = await run(processor, wire, 3)
    assert (status.done, status.outcomes, len(status.batches)) == (True, {"errored_retryable": 3}, 2)


async def test_items_that_expired_go_again(open_processor: Open) -> None:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7).but(batch_window=0.5)) as hurried:
        hurried.faults.add(Fault(kind="expire", times=4))
        status = await run(open_processor(base_url=hurried.base_url), "anthropic")
    assert status.batches[0].counts == {"succeeded": 8, "expired": 4}
    assert status.outcomes == {"succeeded": 12}


async def test_a_file_that_the_provider_refuses_as_a_whole_waits_and_goes_again(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database
) -> None:
    provider.faults.add(Fault(kind="fail_batch", message="Not today.", times=4))
    status = await run(processor, "openai")
    assert (status.outcomes, len(status.batches)) == ({"succeeded": 12}, 1)
    assert status.batches[0].notes["refusals"] == 4
    assert "Not today." in status.batches[0].notes["last_refusal"]
    assert len(await applied(database)) == 12


async def test_one_bad_row_fails_alone_and_the_others_go_again(
    processor: BatchProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, bad = OpenAIBatches.row, wire_id(item_id("night", "item-5"), 1)

    def row(self: OpenAIBatches, name: str, call: PreparedCall) -> bytes:
        made = real(self, name, call)
        return made.replace(b'"method":"POST"', b'"method":"PUT"') if name == bad else made

    monkeypatch.setattr(OpenAIBatches, "row", row)
    status = await run(processor, "openai", job_key="night")
    assert status.outcomes == {"succeeded": 11, "errored_fatal": 1}
    failed = [result for result in await results(processor, status) if not result.success]
    assert [result.custom_id for result in failed] == ["item-5"]
    assert "PUT" in (failed[0].error or "")


async def test_a_model_that_is_gone_is_named_with_each_item(processor: BatchProcessor) -> None:
    handle = await processor.submit(requests(3), model="openai/gpt-gone")
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes == {"errored_fatal": 3}
    assert all("gpt-gone" in (result.error or "") for result in await results(processor, status))


@each_wire
async def test_a_refused_submission_waits_and_goes_again(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="status", status=429, operation="batches.create", times=3))
    status = await run(processor, wire)
    assert status.outcomes == {"succeeded": 12}
    assert (await seen(provider))["requests"] == 12


@each_wire
async def test_a_refused_key_needs_a_person_and_loses_nothing(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="status", status=401, operation="batches.create"))
    handle = await processor.submit(requests(3), model=MODELS[wire])
    status = await processor.status(handle.job_key)
    assert status.needs_person
    assert "AuthenticationError" in (status.batches[0].reason or "")
    assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 3}
    assert not (await processor.status(handle.job_key)).needs_person


@each_wire
async def test_a_batch_that_was_deleted_at_the_provider_is_told_and_not_paid_for_again(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    handle = await processor.submit(requests(3), model=MODELS[wire])
    (batch,) = (await processor.status(handle.job_key)).batches
    await control(provider, "DELETE", f"batches/{batch.provider_batch_id}")
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes == {"errored_fatal": 3}
    found = [result async for result in processor.results(handle.job_key)]
    assert all("no such batch" in (result.error or "") for result in found)
    assert (await seen(provider))["requests"] <= 3


async def test_a_batch_that_another_key_does_not_see_is_not_given_up(
    open_processor: Open, provider: ProviderSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = open_processor(options(gone_after=3_600.0))
    provider.faults.add(Fault(kind="slow_batch", seconds=0.5))
    handle = await processor.submit(requests(3), model=MODELS["openai"])
    with monkeypatch.context() as patched:
        patched.setitem(batch_desk.KEYS, "OPENAI_API_KEY", "sk-another")
        other = open_processor(options(gone_after=3_600.0))
    with pytest.raises(BatchTimeoutError):
        await other.wait(handle.job_key, timeout=0.3)
    status = await processor.status(handle.job_key)
    assert (status.batches[0].state, status.needs_person, status.outcomes) == ("submitted", True, {})
    assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 3}


async def test_a_disk_that_is_full_leaves_the_batch_for_later(
    processor: BatchProcessor, provider: ProviderSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    real = asyncio.to_thread

    async def to_thread(work: Callable[..., Any], *arguments: Any) -> Any:
        return full() if getattr(work, "__name__", "") == "write" else await real(work, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "to_thread", to_thread)
        handle = await processor.submit(requests(3), model=MODELS["anthropic"])
    status = await processor.status(handle.job_key)
    assert (status.batches[0].state, status.needs_person) == ("prepared", True)
    assert "No space left" in (status.batches[0].reason or "")
    assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 3}


async def test_a_disk_on_which_no_file_can_be_made_leaves_the_batch_for_later(
    open_processor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # Nobody comes for it while it may have been sent.
    processor = open_processor(options(grace=3_600.0))
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", full)
        handle = await processor.submit(requests(3), model=MODELS["anthropic"])
    status = await processor.status(handle.job_key)
    assert (status.batches[0].state, status.needs_person) == ("prepared", True)
    assert "No space left" in (status.batches[0].reason or "")
    assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 3}


async def test_the_key_goes_to_the_configured_address_and_to_no_other(
    processor: BatchProcessor, provider: ProviderSimulator
) -> None:
    await run(processor, "anthropic", 2)
    hosts = {request.headers.get("host") for request in provider.requests}
    assert hosts == {provider.base_url.removeprefix("http://")}

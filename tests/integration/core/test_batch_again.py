"""What goes again: halves of a batch that was too large, failed items on request, what late processes leave behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.batches.leases import BatchLease, LeaseGone, taken
from guidance_agent.core.batches.states import Parts
from guidance_agent.core.database import Database
from guidance_agent.core.schema import model_calls, provider_batches
from guidance_agent.errors import BatchRequestError, UnknownBatchError
from guidance_agent.llm.transports.batches.anthropic import AnthropicBatches
from guidance_agent.llm.transports.batches.base import ProviderBatch
from guidance_agent.llm.transports.batches.openai import OpenAIBatches
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.core.batch_desk import APPLIES, MODELS, applied, options, requests
from tests.integration.core.batch_fixtures import open_processor, processor, provider, seen

__all__ = ["open_processor", "processor", "provider"]

sqlite_only = pytest.mark.only_on("sqlite")
each_wire = pytest.mark.parametrize("wire", ("anthropic", "openai"))
WIRES: dict[str, Any] = {"anthropic": AnthropicBatches, "openai": OpenAIBatches}
Open = Callable[..., BatchProcessor]


@each_wire
async def test_a_batch_that_is_too_large_is_halved_until_its_provider_takes_it(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    where = "batches.create" if wire == "anthropic" else "files.create"
    provider.faults.add(Fault(kind="status", status=413, operation=where, times=3))
    handle = await processor.submit(requests(11), kind=APPLIES.name, model=MODELS[wire])
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes == {"succeeded": 11}
    assert sorted(batch.items for batch in status.batches) == [1, 1, 3, 6]
    assert len(await applied(database)) == 11
    assert [result.custom_id async for result in processor.results(handle.job_key)] == [f"item-{n}" for n in range(11)]
    accepted = await seen(provider)
    assert (accepted["requests"], accepted["repeated"]) == (11, {})


@sqlite_only
async def test_a_request_that_is_too_large_alone_fails_and_the_others_do_not(
    processor: BatchProcessor, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="status", status=413, operation="batches.create", times=2))
    handle = await processor.submit(requests(2), model=MODELS["anthropic"])
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes == {"succeeded": 1, "errored_fatal": 1}
    (failed,) = [each async for each in processor.results(handle.job_key) if not each.success]
    assert (failed.custom_id, failed.error_type) == ("item-0", "too_large")


@each_wire
async def test_failed_items_go_again_on_request_and_others_do_not(
    open_processor: Open, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    processor = open_processor(options(max_rounds=1))
    provider.faults.add(
        Fault(kind="status", status=500, operation="batches.item", times=3),
        Fault(kind="status", status=400, operation="batches.item", times=2),
    )
    handle = await processor.submit(requests(8), kind=APPLIES.name, model=MODELS[wire], job_key="night")
    status = await processor.wait(handle.job_key, timeout=20)
    assert status.outcomes == {"succeeded": 3, "errored_retryable": 3, "errored_fatal": 2}
    assert await processor.resubmit("night") == 3
    status = await processor.wait("night", timeout=20)
    assert (status.state, status.outcomes) == ("done", {"succeeded": 6, "errored_fatal": 2})
    assert [(batch.round, batch.items) for batch in status.batches] == [(1, 8), (2, 3)]
    assert await processor.resubmit("night") == 0
    assert (await processor.status("night")).done
    names = await applied(database)
    assert (len(names), len(set(names))) == (11, 8)
    assert (await seen(provider))["requests"] == 11


@sqlite_only
async def test_what_goes_again_on_request_is_a_batch_even_after_the_deadline(
    open_processor: Open, provider: ProviderSimulator
) -> None:
    processor = open_processor(options(max_rounds=1))
    provider.faults.add(Fault(kind="status", status=500, operation="batches.item", times=2))
    soon = datetime.now(UTC) + timedelta(seconds=60)
    handle = await processor.submit(requests(4), model=MODELS["openai"], deadline=soon)
    await processor.wait(handle.job_key, timeout=20)
    assert await processor.resubmit(handle.job_key, deadline=None) == 2
    status = await processor.wait(handle.job_key, timeout=20)
    assert (status.outcomes, [batch.route for batch in status.batches]) == ({"succeeded": 4}, ["batch", "batch"])


@sqlite_only
async def test_a_cancelled_or_unknown_job_does_not_go_again(
    processor: BatchProcessor, provider: ProviderSimulator
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    handle = await processor.submit(requests(2), model=MODELS["openai"])
    await processor.cancel(handle.job_key)
    with pytest.raises(BatchRequestError, match="was cancelled"):
        await processor.resubmit(handle.job_key)
    with pytest.raises(UnknownBatchError, match="'nothing'"):
        await processor.resubmit("nothing")


class Frozen:
    """A way to create batches that stands still the first time, and goes on when another process has done `meanwhile`.

    That the lease is over is written into the records, because this process only seems to stand still.
    """

    def __init__(self, database: Database, real: Any, meanwhile: Callable[[], Any], *, accepted_first: bool) -> None:
        self._database = database
        self._real = real
        self._meanwhile = meanwhile
        self._accepted_first = accepted_first
        self.made: list[str] = []
        self._begun = False

    async def _submit(self, wire: Any, *arguments: Any) -> ProviderBatch:
        made: ProviderBatch = await self._real(wire, *arguments)
        return made

    async def create(self, wire: Any, *arguments: Any) -> ProviderBatch:
        first, self._begun = not self._begun, True
        made: ProviderBatch | None = None
        if not first or self._accepted_first:
            made = await self._submit(wire, *arguments)
        if first:
            free = sa.update(provider_batches).values(owner=None, lease_until=0.0)
            await self._database.transaction(lambda connection: connection.execute(free))
            await self._meanwhile()
        if made is None:
            made = await self._submit(wire, *arguments)
        self.made.append(made.id)
        return made


@sqlite_only
@each_wire
async def test_a_process_that_went_on_after_another_had_sent_the_batch_cancels_its_own(
    open_processor: Open, provider: ProviderSimulator, database: Database, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    late, other = open_processor(), open_processor()
    provider.faults.add(Fault(kind="slow_batch", seconds=0.5, times=None))
    frozen = Frozen(database, WIRES[wire].create, lambda: other.resume("night"), accepted_first=False)
    monkeypatch.setattr(WIRES[wire], "create", lambda self, *arguments: frozen.create(self, *arguments))
    await late.submit(requests(4), job_key="night", kind=APPLIES.name, model=MODELS[wire])
    status = await other.wait("night", timeout=20)
    assert (status.outcomes, len(await applied(database))) == ({"succeeded": 4}, 4)
    kept, cancelled = frozen.made
    assert status.batches[0].provider_batch_id == kept
    asked = [request.path for request in provider.requests if request.operation.endswith("batches.cancel")]
    assert [path for path in asked if cancelled in path] == asked != []


@sqlite_only
async def test_a_process_that_went_on_while_another_looks_says_what_was_accepted(
    open_processor: Open, provider: ProviderSimulator, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, other = open_processor(), open_processor(options(grace=600.0, poll=0.02))
    provider.faults.add(Fault(kind="stale_list", operation="list", times=None))
    frozen = Frozen(database, AnthropicBatches.create, lambda: other.resume("night"), accepted_first=True)
    monkeypatch.setattr(AnthropicBatches, "create", lambda self, *arguments: frozen.create(self, *arguments))
    await late.submit(requests(4), job_key="night", kind=APPLIES.name, model=MODELS["anthropic"])
    status = await other.wait("night", timeout=20)
    assert status.outcomes == {"succeeded": 4}
    assert ((await seen(provider))["requests"], len(frozen.made)) == (4, 1)


@sqlite_only
async def test_a_lease_is_over_by_whichever_clock_says_so_first(
    processor: BatchProcessor, provider: ProviderSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    handle = await processor.submit(requests(1), model=MODELS["openai"])
    (batch,) = (await processor.status(handle.job_key)).batches
    parts = processor._parts
    async with taken(parts, batch.id, ("submitted",), early=True) as lease:
        assert isinstance(lease, BatchLease)
        lease.check()
        later = parts.now + 6
        with monkeypatch.context() as patched:
            patched.setattr(Parts, "now", property(lambda self: later))
            with pytest.raises(LeaseGone):
                lease.check()
        lease.check()


@sqlite_only
async def test_a_process_that_ends_while_it_asks_online_loses_only_what_was_under_way(
    open_processor: Open, provider: ProviderSimulator, database: Database
) -> None:
    class Ended(Exception):
        pass

    def ends(point: str) -> None:
        stored.append(point)
        if stored.count("collecting") >= 5:
            raise Ended

    stored: list[str] = []
    past = datetime.now(UTC)
    fields: dict[str, Any] = {"deadline": past, "online_after_deadline": True, "job_key": "night"}
    dies, other = open_processor(options(online_at_a_time=2)), open_processor()
    dies._parts = replace(dies._parts, crash=ends)
    with pytest.raises(Ended):
        await dies.submit(requests(9), model=MODELS["openai"], kind=APPLIES.name, **fields)
    status = await other.wait("night", timeout=20)
    assert status.outcomes == {"succeeded": 9}
    asked = [request for request in provider.requests if request.path.endswith("/chat/completions")]
    assert len(asked) == 9
    count = sa.select(sa.func.count()).select_from(model_calls).where(model_calls.c.transport == "batch")
    assert await database.run(lambda connection: connection.execute(count).scalar_one()) == 0


STARS = {"type": "object", "properties": {"stars": {"$ref": "#/$defs/stars"}}, "$defs": {"stars": {"type": "integer"}}}


@each_wire
async def test_an_answer_is_held_to_the_schema_of_its_request(
    processor: BatchProcessor, provider: ProviderSimulator, wire: str
) -> None:
    provider.faults.add(
        Fault(kind="script", operation="batches.item", script=Script(text='{"stars": "four"}')),
        Fault(kind="script", operation="batches.item", times=None, script=Script(text='{"stars": 4}')),
    )
    asked = requests(1, response_schema=STARS)
    handle = await processor.submit(asked, model=MODELS[wire])
    status = await processor.wait(handle.job_key, timeout=20)
    (result,) = [each async for each in processor.results(handle.job_key)]
    assert (result.parsed, result.attempts, status.batches[0].counts) == ({"stars": 4}, 2, {"invalid": 1})


@sqlite_only
@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "objekt"}, "objekt"),
        ({"$ref": "https://example.org/schema.json"}, "not in it"),
        ({"$ref": "#/$defs/stars"}, "not in it"),
    ],
)
async def test_a_schema_that_is_none_is_refused_before_anything_is_sent(
    processor: BatchProcessor, schema: dict[str, Any], told: str
) -> None:
    with pytest.raises(BatchRequestError, match=told):
        await processor.submit(requests(1, response_schema=schema), model=MODELS["openai"])

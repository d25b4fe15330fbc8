"""What batches leave in the usage ledger: each answered attempt once, at the batch price, with the ids of its item."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel

from guidance_agent.core.batch_processing import BatchKind, BatchProcessor, BatchRequest, BatchStatus
from guidance_agent.core.cache_report import cache_report
from guidance_agent.core.database import Database
from guidance_agent.core.ledger import UsageLedger
from guidance_agent.core.schema import model_calls
from guidance_agent.llm.messages import UnitPrices, Usage
from guidance_agent.llm.pricing import cost_of
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.core.batch_desk import APPLIES, MODELS, options, requests, with_prefix
from tests.integration.core.batch_fixtures import open_processor, processor, provider

__all__ = ["open_processor", "processor", "provider"]

each_wire = pytest.mark.parametrize("wire", ("anthropic", "openai"))
sqlite_only = pytest.mark.only_on("sqlite")
Open = Callable[..., BatchProcessor]


async def run(processor: BatchProcessor, asked: Any, wire: str, **fields: Any) -> BatchStatus:
    handle = await processor.submit(asked, **({"kind": APPLIES.name, "model": MODELS[wire]} | fields))
    return await processor.wait(handle.job_key, timeout=20)


async def ledger(database: Database) -> list[dict[str, Any]]:
    query = sa.select(model_calls).order_by(model_calls.c.started_at, model_calls.c.id)
    return await database.run(lambda connection: [dict(row) for row in connection.execute(query).mappings()])


@each_wire
async def test_each_answer_is_a_row_at_the_batch_price_with_the_ids_of_its_item(
    processor: BatchProcessor, database: Database, wire: str
) -> None:
    asked = [
        BatchRequest(
            custom_id=f"c-{n}",
            user_message="What is drawdown?",
            max_tokens=40,
            metadata={"turn_id": f"turn_{n}", "consultation_id": f"consultation_{n}", "customer_name": "Janet"},
        )
        for n in range(7)
    ]
    status = await run(processor, asked, wire)
    rows = await ledger(database)
    assert sorted((row["turn_id"], row["consultation_id"]) for row in rows) == [
        (f"turn_{n}", f"consultation_{n}") for n in range(7)
    ]
    assert {(row["operation"], row["model"], row["transport"], row["outcome"], row["simulated"]) for row in rows} == {
        ("batch", MODELS[wire], "batch", "completed", True)
    }
    for row in rows:
        usage = Usage(input_tokens=row["input_tokens"], output_tokens=row["output_tokens"])
        prices = UnitPrices(**row["unit_prices"])
        assert ", batch" in prices.source
        assert row["cost_usd"] == pytest.approx(cost_of(usage, prices).usd)
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(status.cost_usd)


@sqlite_only
@each_wire
async def test_an_attempt_that_was_paid_for_in_vain_has_a_row_of_its_own(
    open_processor: Open, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    class Rating(BaseModel):
        stars: int

    processor = open_processor(kinds=[BatchKind(name="rate", output=Rating)])
    provider.faults.add(
        Fault(kind="script", operation="batches.item", script=Script(text='{"stars": "four"}')),
        Fault(
            kind="script",
            operation="batches.item",
            times=None,
            contains="could not be used",
            script=Script(text='{"stars": 4}'),
        ),
    )
    status = await run(processor, [BatchRequest(user_message="Rate it.", custom_id="a")], wire, kind="rate")
    rows = await ledger(database)
    assert [row["outcome"] for row in rows] == ["completed", "completed"]
    assert [row["id"][-2:] for row in rows] == ["-1", "-2"]
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(status.cost_usd)


@sqlite_only
@each_wire
async def test_a_failure_that_the_provider_tells_is_a_row_without_tokens_or_money(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    provider.faults.add(Fault(kind="status", status=400, operation="batches.item"))
    await run(processor, requests(3), wire)
    failed = [row for row in await ledger(database) if row["outcome"] != "completed"]
    assert [(row["input_tokens"], row["cost_usd"], row["unit_prices"]) for row in failed] == [(None, None, None)]
    assert failed[0]["outcome"].startswith("error:")
    assert failed[0]["error"]


@sqlite_only
@each_wire
async def test_what_the_provider_never_worked_on_has_no_row(
    processor: BatchProcessor, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    provider.faults.add(Fault(kind="lose", times=2))
    await run(processor, requests(6), wire)
    rows = await ledger(database)
    assert sorted(row["id"][-2:] for row in rows) == ["-1"] * 4 + ["-2"] * 2


@each_wire
async def test_results_that_are_read_twice_leave_their_rows_once(
    open_processor: Open, provider: ProviderSimulator, database: Database, wire: str
) -> None:
    processor = open_processor(options(items_per_transaction=2))
    download = "batches.results" if wire == "anthropic" else "files.content"
    provider.faults.add(Fault(kind="truncate", operation=download, after_chunks=5))
    status = await run(processor, requests(12), wire)
    rows = await ledger(database)
    assert len(rows) == 12
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(status.cost_usd)


@sqlite_only
async def test_what_is_asked_online_leaves_the_row_of_an_interactive_call(
    open_processor: Open, provider: ProviderSimulator, database: Database
) -> None:
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.core.journal import Journal

    provider.faults.add(Fault(kind="slow_batch", seconds=3_600))
    processor = open_processor()
    async with Journal(database, SystemClock(), owner="test") as journal:
        processor._parts.gateway._sinks = (UsageLedger(journal),)
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        asked = requests(3, metadata={"turn_id": "turn_1"})
        await run(processor, asked, "openai", deadline=soon, online_after_deadline=True)
    online = [row for row in await ledger(database) if row["transport"] != "batch"]
    assert {(row["transport"], row["operation"], row["turn_id"]) for row in online} == {("native", "batch", "turn_1")}
    assert all(", batch" not in row["unit_prices"]["source"] for row in online)


@sqlite_only
async def test_the_cache_report_counts_batches_at_their_own_price(open_processor: Open, database: Database) -> None:
    processor = open_processor(options(prime_wait=60.0))
    await run(processor, with_prefix(30), "anthropic", kind="text")
    (section,) = (await cache_report(database, by=("operation", "transport"))).sections
    rows = await ledger(database)
    read = sum(row["cache_read_tokens"] for row in rows)
    (prices,) = {UnitPrices(**row["unit_prices"]) for row in rows}
    total = section.total
    assert total.calls == 30
    hits = sum(row["cache_read_tokens"] > 0 for row in rows)
    # A provider promises no hit inside a batch.
    assert total.outcomes == {"first_write": 30 - hits, "hit": hits}
    assert total.read_tokens == read > 20 * 2_000
    assert total.uncached_usd == pytest.approx(total.total_input_tokens * prices.input)
    assert total.saved_usd is not None
    assert total.saved_usd > 0
    assert section.lines["operation"].keys() == {"batch"}
    assert section.lines["transport"].keys() == {"batch"}

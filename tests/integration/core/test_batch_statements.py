"""Statements about batches: what a slice of a batch costs does not grow with it, and who comes second is told so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_jobs
from guidance_agent.errors import BatchConflictError
from tests.integration.core.batch_desk import APPLIES, MODELS, requests
from tests.integration.core.batch_fixtures import open_processor, processor, provider

__all__ = ["open_processor", "processor", "provider"]


@pytest.mark.only_on("sqlite")
async def test_a_slice_of_results_is_found_and_applied_without_reading_the_rest_of_its_batch(
    database: Database, processor: BatchProcessor
) -> None:
    asked: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "json_each" in statement and "batch_items" in statement:
            asked.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        handle = await processor.submit(requests(3), kind=APPLIES.name, model=MODELS["anthropic"])
        await processor.wait(handle.job_key, timeout=20)
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)

    def plans(connection: sa.Connection) -> list[str]:
        said = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in asked]
        return [next(row.detail for row in plan if "batch_items" in row.detail) for plan in said]

    found, claimed = await database.run(plans)
    assert found.endswith("(wire_id=?)")
    assert claimed.endswith("(batch_id=? AND position>? AND position<?)")


@pytest.mark.only_on("postgresql")
async def test_who_submits_a_job_that_another_process_begins_at_the_same_moment_is_told_so(
    database: Database, open_processor: Callable[..., BatchProcessor]
) -> None:
    now = SystemClock().now()
    begun = {
        "id": "at-once",
        "kind": APPLIES.name,
        "state": "preparing",
        "created_at": now,
        "online_allowed": False,
        "metadata": {},
        "owner": "another process",
        "lease_until": now.timestamp() + 60.0,
    }
    waits = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with database.engine.connect() as other:
        other.execute(sa.insert(batch_jobs).values(begun))
        submitting = asyncio.create_task(
            open_processor().submit(requests(3), job_key="at-once", kind=APPLIES.name, model=MODELS["anthropic"])
        )
        until = time.monotonic() + 10.0
        while not await database.run(lambda connection: connection.execute(waits).scalar_one()):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        other.commit()
    with pytest.raises(BatchConflictError, match="being prepared by another process"):
        await submitting

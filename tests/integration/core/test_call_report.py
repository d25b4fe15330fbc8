"""How calls went, added up from the ledger: each figure from calls that are made for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.core.bulk import insert_rows
from guidance_agent.core.call_report import CallFigures, call_report
from guidance_agent.core.database import Database
from guidance_agent.core.ledger import ledger_row
from guidance_agent.core.schema import batch_jobs, model_calls, provider_batches
from guidance_agent.llm.messages import Cost, ModelCall, Timing, UnitPrices, Usage

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MODEL = "anthropic/claude-haiku-5-5"
PRICES = UnitPrices(input=1e-6, output=5e-6, cache_read=1e-7, cache_write_5m=1.25e-6, cache_write_1h=2e-6)
CALL = ModelCall(
    id="call",
    operation="guidance",
    model=MODEL,
    requested_model=MODEL,
    provider="anthropic",
    transport="native",
    started_at=NOW,
    outcome="completed",
    finish_reason="stop",
    attempts=1,
    timing=Timing(first_token=0.5, total=2.5, chunks=20),
    usage=Usage(input_tokens=100, cache_read_tokens=900, output_tokens=100),
    cost=Cost(0.001, PRICES),
    cache_outcome="hit",
    cache_parts={},
    cache_use={},
    simulated=False,
    request_id=None,
    error=None,
    metadata={},
)


async def lines(database: Database, *calls: dict[str, Any], since: datetime | None = None) -> list[CallFigures]:
    rows = [ledger_row(replace(CALL, id=f"call_{number}", **each)) for number, each in enumerate(calls)]
    await database.transaction(lambda connection: insert_rows(connection, model_calls, rows))
    return list((await call_report(database, since=since)).lines)


async def test_nothing_on_record_gives_no_line(database: Database) -> None:
    assert await lines(database) == []


async def test_the_pace_is_that_of_whole_streams(database: Database) -> None:
    whole = {"usage": None, "timing": Timing(first_token=None, total=9.0)}
    broken = {"outcome": "error:StreamTruncated", "timing": Timing(first_token=1.0, total=50.0, chunks=3)}
    [line] = await lines(database, {}, {"timing": Timing(first_token=1.5, total=3.5, chunks=9)}, whole, broken)
    assert line.tokens_per_second == pytest.approx(200 / 4)
    assert line.first_token_seconds == pytest.approx(1.0)
    assert (line.calls, line.completed, line.failed) == (4, 3, 1)


async def test_retries_count_by_how_they_ended(database: Database) -> None:
    [line] = await lines(
        database,
        {},
        {"attempts": 2, "rate_limited": 1},
        {"attempts": 3, "rate_limited": 2},
        {"attempts": 3, "outcome": "error:RateLimitedError", "rate_limited": 3},
    )
    assert (line.retried, line.retried_completed, line.refused) == (3, 2, 6)
    assert line.retry_success_rate == pytest.approx(2 / 3)


async def test_waits_for_limits_are_counted_and_added_up(database: Database) -> None:
    [line] = await lines(database, {}, {"limit_wait": 2.0}, {"limit_wait": 0.5})
    assert (line.waited, line.longest_wait) == (2, 2.0)
    assert line.waited_seconds == pytest.approx(2.5)


async def test_calls_of_before_there_were_limits_have_waited_for_nothing(database: Database) -> None:
    await lines(database, {})
    old = sa.update(model_calls).values(limit_wait_seconds=None, rate_limited=None)
    await database.transaction(lambda connection: connection.execute(old))
    [line] = (await call_report(database)).lines
    assert (line.waited, line.waited_seconds, line.refused) == (0, 0, 0)


async def test_the_saving_of_caching_is_that_of_the_cache_report(database: Database) -> None:
    [line] = await lines(database, {})
    assert line.cache_saved_usd == pytest.approx(900 * 0.9e-6)


async def test_what_has_no_price_costs_none_and_not_zero(database: Database) -> None:
    [line] = await lines(database, {"cost": None})
    assert line.cost_usd is None
    assert line.cache_saved_usd is None


async def test_real_and_simulated_calls_and_each_model_have_lines_of_their_own(database: Database) -> None:
    other = {"model": "openai/gpt-6-luna", "provider": "openai"}
    found = await lines(database, {"simulated": True}, {}, other)
    assert [(line.provider, line.simulated) for line in found] == [
        ("anthropic", False),
        ("openai", False),
        ("anthropic", True),
    ]


async def test_a_period_leaves_out_what_began_before_it(database: Database) -> None:
    [line] = await lines(database, {"started_at": NOW - timedelta(days=2)}, {}, since=NOW - timedelta(days=1))
    assert line.calls == 1


async def test_the_saving_of_batches_is_counted_where_both_prices_are_known(database: Database) -> None:
    job = {
        "id": "job_1",
        "kind": "test",
        "state": "applied",
        "created_at": NOW,
        "online_allowed": False,
        "metadata": {},
    }
    batch = {"job_id": "job_1", "provider": "anthropic", "model": MODEL, "state": "applied", "submitted_at": NOW}
    rows = [
        {"id": "b1", "number": 1, "cost_usd": 1.0, "interactive_usd": 2.0, "simulated": False, **batch},
        {"id": "b2", "number": 2, "cost_usd": 3.0, "interactive_usd": 6.5, "simulated": False, **batch},
        {"id": "b3", "number": 3, "cost_usd": None, "interactive_usd": 9.0, "simulated": False, **batch},
    ]

    def insert(connection: sa.Connection) -> None:
        connection.execute(sa.insert(batch_jobs).values(**job))
        connection.execute(sa.insert(provider_batches), rows)

    await database.transaction(insert)
    [line] = await lines(database, {"transport": "batch", "timing": Timing(total=60.0)})
    assert line.batch_saved_usd == pytest.approx(4.5)
    assert line.tokens_per_second is None

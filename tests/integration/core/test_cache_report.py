"""The cache report of the records, with money that was worked out by hand, on SQLite and on PostgreSQL."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.core.cache_report import DIMENSIONS, CacheReport, CacheSection, cache_report
from guidance_agent.core.database import Database
from guidance_agent.core.ledger import ledger_row
from guidance_agent.core.schema import model_calls
from guidance_agent.llm.messages import Cost, ModelCall, Timing, UnitPrices, Usage
from guidance_agent.llm.pricing import cost_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLAUDE = "anthropic/claude-sonnet-5-5"
PRICES = UnitPrices(input=2e-6, output=10e-6, cache_read=0.1e-6, cache_write_5m=2.5e-6, cache_write_1h=4e-6)


@pytest.fixture
def records(database: Database) -> Database:
    return database


class Ledger:
    """Rows of model calls, made as the ledger makes them."""

    def __init__(self, records: Database) -> None:
        self.records = records
        self.number = 0
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        outcome: str = "hit",
        usage: Usage | None = None,
        *,
        prices: UnitPrices | None = PRICES,
        at: datetime = NOON,
        use: str = "",
        **fields: Any,
    ) -> None:
        self.number += 1
        cost: Cost | None = cost_of(usage, prices) if usage is not None and prices is not None else None
        names = ("conduct", "requirements", "customer", "conversation")
        values: dict[str, Any] = {
            "operation": "guidance",
            "model": CLAUDE,
            "requested_model": CLAUDE,
            "provider": "anthropic",
            "transport": "native",
            "outcome": "completed",
            "finish_reason": "stop",
            "attempts": 1,
            "timing": Timing(),
            "cache_parts": {},
            "simulated": False,
            "request_id": None,
            "error": None,
            "metadata": {},
            **fields,
        }
        call = ModelCall(
            id=f"call_{self.number}",
            started_at=at,
            usage=usage,
            cost=cost,
            cache_outcome=outcome,
            cache_use=dict(zip(names, use.split(), strict=False)),
            **values,
        )
        self.rows.append(dict(ledger_row(call)))

    async def report(self, **options: Any) -> CacheReport:
        if self.rows:
            rows, self.rows = self.rows, []
            await self.records.transaction(lambda connection: connection.execute(sa.insert(model_calls), rows))
        return await cache_report(self.records, **options)

    async def section(self, **options: Any) -> CacheSection:
        report = await self.report(**options)
        assert len(report.sections) == 1
        return report.sections[0]


@pytest.fixture
def ledger(records: Database) -> Ledger:
    return Ledger(records)


async def test_no_calls_are_no_sections(ledger: Ledger) -> None:
    assert (await ledger.report(by=DIMENSIONS)).sections == ()


async def test_money_is_that_of_the_input_with_its_writes(ledger: Ledger) -> None:
    ledger.add("first_write", Usage(input_tokens=1_000, cache_write_1h_tokens=3_000, output_tokens=400))
    ledger.add(
        "hit",
        Usage(input_tokens=900, cache_read_tokens=3_000, cache_write_5m_tokens=400, output_tokens=300),
    )
    total = (await ledger.section()).total
    # 1,000 and 900 at 2, 3,000 at 4, 3,000 at 0.10 and 400 at 2.50 dollars per million tokens; 8,300 at 2.
    assert total.paid_usd == pytest.approx(0.0038 + 0.012 + 0.0003 + 0.001)
    assert total.uncached_usd == pytest.approx(0.0166)
    assert total.saved_usd == pytest.approx(0.0166 - 0.0171)
    assert (total.calls, total.hits, total.outcomes) == (2, 1, {"first_write": 1, "hit": 1})
    assert (total.input_tokens, total.read_tokens) == (1_900, 3_000)
    assert (total.written_5m_tokens, total.written_1h_tokens) == (400, 3_000)
    assert total.read_share == pytest.approx(3_000 / 8_300)


async def test_the_money_agrees_with_the_recorded_costs(ledger: Ledger) -> None:
    usages = [
        Usage(input_tokens=n, cache_read_tokens=31 * n, cache_write_5m_tokens=7 * n, cache_write_1h_tokens=3 * n)
        for n in range(1, 40)
    ]
    no_cache_prices = UnitPrices(input=1e-6, output=2e-6)
    no_hour_price = UnitPrices(input=2e-6, output=1e-5, cache_read=2e-7, cache_write_5m=2.5e-6)
    for usage in usages:
        for prices in (PRICES, no_cache_prices, no_hour_price):
            ledger.add(usage=usage, prices=prices)
    expected = sum(
        cost_of(usage, prices).usd for usage in usages for prices in (PRICES, no_cache_prices, no_hour_price)
    )
    assert (await ledger.section()).total.paid_usd == pytest.approx(expected)


async def test_an_unknown_price_is_unknown_and_never_nothing(ledger: Ledger) -> None:
    ledger.add(usage=Usage(input_tokens=100, cache_read_tokens=3_000), prices=None, model="ollama/llama3.2")
    ledger.add(usage=Usage(input_tokens=100, cache_read_tokens=1_000))
    section = await ledger.section(by=("model",))
    local = section.lines["model"]["ollama/llama3.2"]
    assert (local.paid_usd, local.uncached_usd, local.saved_usd, local.without_price) == (None, None, None, 1)
    assert local.read_tokens == 3_000
    assert section.total.saved_usd == pytest.approx(1_000 * 1.9e-6)
    assert section.total.without_price == 1


async def test_a_stated_price_of_nothing_is_known(ledger: Ledger) -> None:
    ledger.add(usage=Usage(input_tokens=100), prices=UnitPrices(input=0.0, output=0.0))
    total = (await ledger.section()).total
    assert (total.paid_usd, total.saved_usd, total.without_price) == (0.0, 0.0, 0)


async def test_calls_without_usage_are_counted_and_have_no_tokens(ledger: Ledger) -> None:
    ledger.add("unknown", None)
    ledger.add("hit", Usage(input_tokens=10, cache_read_tokens=30, estimated=True))
    total = (await ledger.section()).total
    assert (total.calls, total.without_usage, total.estimated) == (2, 1, 1)
    assert total.total_input_tokens == 40


async def test_simulated_calls_stand_apart(ledger: Ledger) -> None:
    ledger.add(usage=Usage(cache_read_tokens=1_000))
    ledger.add("first_write", Usage(cache_write_1h_tokens=500), simulated=True)
    real, simulated = (await ledger.report()).sections
    assert (real.simulated, real.total.read_tokens, real.total.written_1h_tokens) == (False, 1_000, 0)
    assert (simulated.simulated, simulated.total.read_tokens, simulated.total.written_1h_tokens) == (True, 0, 500)


async def test_embeddings_and_local_answers_are_left_out(ledger: Ledger) -> None:
    ledger.add("not_supported", Usage(input_tokens=50), operation="embedding")
    ledger.add("local_hit", Usage(), transport="response_cache")
    ledger.add()
    assert (await ledger.section()).total.outcomes == {"hit": 1}


async def test_parts_are_counted_by_what_became_of_them(ledger: Ledger) -> None:
    ledger.add("first_write", Usage(cache_write_1h_tokens=3_000), use="written written written")
    ledger.add("hit", Usage(cache_read_tokens=2_800), use="read read written")
    ledger.add("hit", Usage(cache_read_tokens=3_000), use="read read read extended")
    ledger.add("part_changed:requirements", Usage(cache_read_tokens=1_400), use="read written written uncached")
    ledger.add("unknown", None)
    parts = (await ledger.section()).parts
    assert list(parts) == ["conduct", "requirements", "customer", "conversation"]
    conduct, requirements, customer, conversation = parts.values()
    assert (conduct.calls, conduct.read, conduct.written) == (4, 3, 1)
    assert (requirements.read, requirements.written, requirements.changed) == (2, 2, 1)
    assert (customer.read, customer.written) == (1, 3)
    assert (conversation.calls, conversation.extended, conversation.uncached) == (2, 1, 1)


async def test_lines_by_model_day_of_utc_operation_and_transport(ledger: Ledger) -> None:
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    ledger.add(usage=Usage(input_tokens=1), at=midnight - timedelta(microseconds=1))
    ledger.add(usage=Usage(input_tokens=2), at=midnight, operation="reasoning", model="anthropic/claude-haiku-5-5")
    lines = (await ledger.section(by=DIMENSIONS)).lines
    tokens = {dimension: {name: line.input_tokens for name, line in lines[dimension].items()} for dimension in lines}
    assert tokens == {
        "model": {CLAUDE: 1, "anthropic/claude-haiku-5-5": 2},
        "day": {"2026-11-20": 1, "2026-11-21": 2},
        "operation": {"guidance": 1, "reasoning": 2},
        "transport": {"native": 3},
    }


async def test_a_period_holds_its_first_moment_and_not_its_end(ledger: Ledger) -> None:
    for hour in range(4):
        ledger.add(usage=Usage(input_tokens=10**hour), at=NOON + timedelta(hours=hour))
    since, until = NOON + timedelta(hours=1), NOON + timedelta(hours=3)
    assert (await ledger.section(since=since, until=until)).total.input_tokens == 110
    assert (await ledger.section(since=since)).total.input_tokens == 1_110
    assert (await ledger.report(until=NOON)).sections == ()


async def test_one_model_is_reported_alone(ledger: Ledger) -> None:
    ledger.add(usage=Usage(input_tokens=1))
    ledger.add(usage=Usage(input_tokens=2), model="openai/gpt-6-sol")
    assert (await ledger.section(model="openai/gpt-6-sol")).total.input_tokens == 2


async def test_memory_does_not_grow_with_the_calls(ledger: Ledger) -> None:
    for number in range(10_000):
        use = ("read read written", "read read read extended")[number % 2]
        ledger.add(usage=Usage(cache_read_tokens=1), use=use, at=NOON + timedelta(days=number % 3))
    await ledger.report()
    tracemalloc.start()
    try:
        section = await ledger.section(by=DIMENSIONS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert section.total.calls == 10_000
    assert section.parts["conduct"].calls == 10_000
    # A tenth of what the rows alone would take.
    assert peak < 1_000_000

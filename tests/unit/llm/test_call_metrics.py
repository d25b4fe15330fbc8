"""Figures of calls in the application's own meter provider, and nothing where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from guidance_agent.llm.call_metrics import CallMetrics, cache_saving
from guidance_agent.llm.messages import Cost, ModelCall, Timing, UnitPrices, Usage

PRICES = UnitPrices(input=1e-6, output=5e-6, cache_read=1e-7, cache_write_5m=1.25e-6, cache_write_1h=2e-6)
CALL = ModelCall(
    id="call_1",
    operation="guidance",
    model="anthropic/claude-haiku-5-5",
    requested_model="anthropic/claude-haiku-5-5",
    provider="anthropic",
    transport="native",
    started_at=datetime(2026, 11, 21, tzinfo=UTC),
    outcome="completed",
    finish_reason="stop",
    attempts=2,
    timing=Timing(first_token=0.25, total=1.5, chunks=10, tokens_per_second=80.0),
    usage=Usage(input_tokens=100, cache_read_tokens=900, output_tokens=50),
    cost=Cost(0.001, PRICES),
    cache_outcome="hit",
    cache_parts={},
    cache_use={},
    simulated=False,
    request_id="req_1",
    error=None,
    metadata={"customer": "Janet Fictional"},
    limit_wait=0.5,
    rate_limited=1,
)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    made = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[made])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    yield made
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_every_figure_of_a_call_is_recorded(reader: InMemoryMetricReader) -> None:
    sink = CallMetrics()
    sink.record(CALL)
    sink.record(CALL)
    found = points(reader)
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in found["gen_ai.client.token.usage"]} == {
        "input": 2_000,
        "output": 100,
        "cache_read": 1_800,
    }
    assert found["guidance.calls"][0].value == 2
    assert found["guidance.calls.retried"][0].value == 2
    assert found["guidance.limit.refusals"][0].value == 2
    assert found["guidance.limit.wait"][0].sum == 1.0
    assert found["guidance.call.first_token"][0].sum == 0.5
    assert found["guidance.stream.pace"][0].sum == 160
    assert found["gen_ai.client.operation.duration"][0].sum == 3.0
    assert found["guidance.cost"][0].value == pytest.approx(0.002)
    assert found["guidance.cache.saved"][0].value == pytest.approx(2 * 900 * 0.9e-6)


def test_a_failure_has_its_class_and_no_made_up_figures(reader: InMemoryMetricReader) -> None:
    failed = replace(
        CALL, outcome="error:RateLimitedError", attempts=1, rate_limited=0, limit_wait=0.0, usage=None, cost=None
    )
    CallMetrics().record(replace(failed, timing=Timing(total=0.1)))
    found = points(reader)
    assert found["guidance.calls"][0].attributes["error.type"] == "RateLimitedError"
    assert set(found) == {"guidance.calls", "gen_ai.client.operation.duration"}


def test_no_attribute_holds_what_somebody_wrote(reader: InMemoryMetricReader) -> None:
    CallMetrics().record(CALL)
    assert "Janet" not in str(points(reader))
    assert "call_1" not in str(points(reader))


def test_a_provider_that_is_set_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = CallMetrics()
    sink.record(CALL)
    made = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[made])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    sink.record(CALL)
    assert points(made)["guidance.calls"][0].value == 1
    provider.shutdown()


def test_writes_that_cost_more_than_reads_bring_count_against_the_saving() -> None:
    usage = Usage(cache_write_5m_tokens=1_000, cache_write_1h_tokens=1_000)
    assert cache_saving(usage, Cost(0.0, PRICES)) == pytest.approx(-1_000 * 0.25e-6 - 1_000 * 1e-6)


def test_without_opentelemetry_nothing_of_it_is_imported() -> None:
    program = (
        "import sys; import guidance_agent.llm.gateway; from guidance_agent.llm.call_metrics import CallMetrics;"
        "CallMetrics().record(None); print(any(n.startswith('opentelemetry') for n in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"

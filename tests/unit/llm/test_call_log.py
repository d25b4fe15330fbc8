"""One line in the log for every call, without a word of anybody."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from guidance_agent.llm.call_log import LOGGER, log_call
from guidance_agent.llm.messages import Cost, ModelCall, Timing, UnitPrices, Usage

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
    timing=Timing(first_token=0.25, total=1.5, chunks=10),
    usage=Usage(input_tokens=100, cache_read_tokens=900, output_tokens=50),
    cost=Cost(0.001, UnitPrices(input=0.0, output=0.0)),
    cache_outcome="hit",
    cache_parts={},
    cache_use={},
    simulated=False,
    request_id="req_1",
    error="anthropic refused: 'Janet Fictional has no account'",
    metadata={"turn_id": "turn_1", "customer": "Janet Fictional"},
    limit_wait=0.5,
    rate_limited=1,
)


def logged(call: ModelCall, caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    with caplog.at_level(logging.INFO, logger=LOGGER):
        log_call(call, "0af7651916cd43dd8448eb211c80319c")
    [record] = caplog.records
    return record


def test_the_line_has_every_figure_and_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(CALL, caplog).getMessage() == (
        "model call model=anthropic/claude-haiku-5-5 operation=guidance outcome=completed attempts=2 rate_limited=1 "
        "limit_wait_s=0.5 input_tokens=1000 cached_tokens=900 output_tokens=50 estimated=False cost_usd=0.001 "
        "cache=hit first_token_s=0.25 total_s=1.5 request_id=req_1 simulated=False "
        "trace_id=0af7651916cd43dd8448eb211c80319c"
    )


def test_the_same_values_are_there_for_programs(caplog: pytest.LogCaptureFixture) -> None:
    fields = logged(CALL, caplog).model_call  # type: ignore[attr-defined]
    assert fields["cached_tokens"] == 900
    assert fields["cost_usd"] == 0.001


def test_neither_errors_nor_metadata_are_in_it(caplog: pytest.LogCaptureFixture) -> None:
    record = logged(CALL, caplog)
    assert "Janet" not in record.getMessage() + str(record.__dict__["model_call"])


def test_what_is_not_known_is_none_and_never_zero(caplog: pytest.LogCaptureFixture) -> None:
    line = logged(replace(CALL, usage=None, cost=None, timing=Timing()), caplog).getMessage()
    assert "input_tokens=None" in line
    assert "cost_usd=None" in line
    assert "first_token_s=None" in line


def test_an_operation_with_a_line_break_stays_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    line = logged(replace(CALL, operation="mine\noutcome=completed"), caplog).getMessage()
    assert "\n" not in line
    assert r'operation="mine\noutcome=completed"' in line


def test_nothing_is_made_when_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger=LOGGER):
        log_call(CALL, None)
    assert not caplog.records

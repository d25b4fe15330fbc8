"""What the tests of batches share: a gateway before a simulator, requests, a place where results are applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batch_processing import BatchKind, BatchOptions, BatchRequest, BatchResult
from guidance_agent.core.database import Database
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message
from guidance_agent.settings import Settings
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

MODELS = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}
KEYS = {"ANTHROPIC_API_KEY": "sk-ant-test-123456", "OPENAI_API_KEY": "sk-test-123456"}
QUESTION = "What is the difference between an annuity and drawdown?"
FAST = BatchOptions(lease=5.0, grace=0.0, retry_after=0.01, poll=0.02, gone_after=0.0, prime_wait=0.0)
IN_PIECES = replace(FAST, lease=1.0, items_per_transaction=5)
"""Twelve items are three transactions, and a batch of a dead process is free soon."""

_APPLIED = sa.Table(
    "applied_for_tests",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("custom_id", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
)


def options(**changes: Any) -> BatchOptions:
    return replace(FAST, **changes)


def gateway_before(base_url: str, *, tracing: Tracing = NO_TRACING, **settings: Any) -> ModelGateway:
    environ = KEYS | {"ANTHROPIC_BASE_URL": base_url, "OPENAI_BASE_URL": f"{base_url}/v1"}
    settings.setdefault("retry", {"max_attempts": 1})
    return ModelGateway(Settings.load(**settings), environ=environ, tracing=tracing)


def requests(count: int, **fields: Any) -> list[BatchRequest]:
    return [
        BatchRequest(custom_id=f"item-{number}", user_message=QUESTION, max_tokens=40, **fields)
        for number in range(count)
    ]


def with_prefix(count: int, words: int = 3_000) -> Iterator[BatchRequest]:
    """Requests with a long prefix that all of them share."""
    prefix = " ".join(f"Rule {number} of the handbook is about pensions." for number in range(words // 7))
    for number in range(count):
        yield BatchRequest(
            custom_id=f"item-{number}",
            messages=[Message("system", prefix, part="conduct"), Message("user", f"{QUESTION} ({number})")],
            max_tokens=40,
        )


async def make_ledger(database: Database) -> None:
    """Make the table in which `APPLIES` leaves one row for each time that an item is applied."""
    await database.transaction(lambda connection: _APPLIED.create(connection, checkfirst=True))


def leave_row(connection: sa.Connection, result: BatchResult) -> None:
    connection.execute(sa.insert(_APPLIED).values(custom_id=result.custom_id, outcome=result.outcome))


APPLIES = BatchKind(name="test", apply=leave_row)


async def applied(database: Database) -> list[str]:
    query = sa.select(_APPLIED.c.custom_id).order_by(_APPLIED.c.custom_id)
    return await database.run(lambda connection: list(connection.execute(query).scalars()))

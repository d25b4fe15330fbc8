"""What `doctor` says of rate limits."""

from __future__ import annotations

import os
from pathlib import Path

from guidance_agent.cli.checks.limits import check_limits
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.limit_store import LimitTable
from guidance_agent.llm.limits_state import NOTHING, Amounts, Bounds, LimitState
from guidance_agent.settings import Settings


async def test_limits_that_are_set_are_told(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 1_000, "models": {"claude-haiku-5-5": {"tokens_per_minute": 2_000_000}}}
    settings = Settings.load(data_dir=tmp_path, providers={"anthropic": {"limits": limits}})
    check = await check_limits(settings)
    assert check.status == "ok"
    assert "anthropic 1,000 requests a minute" in check.message
    assert "anthropic/claude-haiku-5-5 2e+06 tokens" not in check.message
    assert "2,000,000 tokens a minute" in check.message


async def test_without_any_it_says_when_there_will_be(tmp_path: Path) -> None:
    check = await check_limits(Settings.load(data_dir=tmp_path / "new"))
    assert (check.status, check.message) == ("ok", "none set: calls queue once a provider has refused one")
    assert not os.path.exists(tmp_path / "new")  # noqa: ASYNC240 - nothing waits


async def test_a_refusal_of_the_last_hour_is_a_warning_with_the_next_step(settings: Settings) -> None:
    def refuse(state: LimitState, now: float) -> None:
        state.refuse(Bounds(), now, retry_after=30, told=Amounts(300), reached=NOTHING)

    async with Database(database_url(settings)) as database:
        await LimitTable(database, SystemClock()).apply("anthropic/claude-haiku-5-5", refuse)
    check = await check_limits(settings)
    assert check.status == "warn"
    assert "anthropic/claude-haiku-5-5 was refused (429) at" in check.message
    assert "at most 294 requests a minute" in check.message
    assert check.next_step == "Set what the account allows under providers.NAME.limits."

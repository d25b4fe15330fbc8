"""A check of the rate limits: which are set, and what the providers' refusals have taught lately."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from guidance_agent.cli.checks.result import Check, ok, warn
from guidance_agent.errors import StorageError
from guidance_agent.llm.limits_state import Bounds, LimitState
from guidance_agent.settings import ModelLimits, Settings

__all__ = ["check_limits"]

_LATELY = 3_600.0


async def check_limits(settings: Settings) -> Check:
    """Say what limits calls, and which models were refused within the last hour."""
    told = [line for name, own in sorted(settings.providers.items()) if own.limits for line in _told(name, own.limits)]
    told += [
        line
        for name, own in sorted(settings.providers.items())
        if own.limits
        for model, limits in sorted(own.limits.models.items())
        for line in _told(f"{name}/{model}", limits)
    ]
    refused = await _refused(settings)
    lines = "; ".join(told) or "none set: calls queue once a provider has refused one"
    if not settings.limits.adapt and not told:
        lines = "none set, and refusals (429) teach nothing because limits.adapt is off"
    if refused:
        return warn(
            "Limits", f"{lines}; {'; '.join(refused)}", "Set what the account allows under providers.NAME.limits."
        )
    return ok("Limits", lines)


def _told(name: str, limits: ModelLimits) -> list[str]:
    wanted = (
        (limits.requests_per_minute, "requests"),
        (limits.tokens_per_minute, "tokens"),
        (limits.output_tokens_per_minute, "output tokens"),
    )
    parts = [f"{limit:,.10g} {what}" for limit, what in wanted if limit is not None]
    return [f"{name} {' and '.join(parts)} a minute"] if parts else []


async def _refused(settings: Settings) -> list[str]:
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.core.database import Database, database_url
    from guidance_agent.core.limit_store import LimitTable

    url = database_url(settings)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):  # noqa: ASYNC240 - nothing waits
        return []
    try:
        async with Database(url, auto_migrate=False) as database:
            states = await LimitTable(database, SystemClock()).states()
    except StorageError:
        # The check of the database has said it.
        return []
    return [
        _of(model, state, now)
        for model, (state, now) in states.items()
        if state.refused_at and now - state.refused_at < _LATELY
    ]


def _of(model: str, state: LimitState, now: float) -> str:
    since = datetime.fromtimestamp(state.refused_at, UTC).isoformat(timespec="minutes")
    rate = state.rates(Bounds(), now).requests
    learned = f", at most {rate:,.0f} requests a minute since" if rate else ""
    blocked = f", waits {state.blocked_until - now:.0f} s" if state.blocked_until > now else ""
    return f"{model} was refused (429) at {since}{learned}, {state.factor_at(now):.0%} of the rate in use{blocked}"

"""Checks of what is opened for an answer: the database, the knowledge base, the simulator, and the model itself."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from guidance_agent.cli.checks.result import Check, failed, ok, warn
from guidance_agent.cli.figures import money
from guidance_agent.errors import ConfigurationError, GuidanceAgentError, KnowledgeError, StorageError
from guidance_agent.settings import Settings

__all__ = ["check_database", "check_judgements", "check_knowledge", "check_online", "check_simulator"]

_SOON_DAYS = 30
_LONG_WAIT = timedelta(minutes=10)


async def check_database(settings: Settings, *, migrate: bool) -> Check:
    """Check that the records can be opened and written and have this program's schema; `migrate` brings them to it."""
    from guidance_agent.core.database import Database, database_url

    try:
        url = database_url(settings)
        database = Database(url, auto_migrate=migrate)
        place = url.render_as_string(hide_password=True)
        file = Path(url.database) if database.is_sqlite and url.database not in (None, "", ":memory:") else None
        if file is not None and not file.exists() and not migrate:
            return _not_there_yet(file, settings)
        async with database:
            revision = await database.revision()
            await database.transaction(lambda _: None)
    except (StorageError, ConfigurationError) as error:
        return failed("Database", error)
    return ok("Database", f"{file or place}, schema {revision}, can be written")


def _not_there_yet(file: Path, settings: Settings) -> Check:
    if settings.auto_migrate:
        return ok("Database", f"{file} is made at first use")
    return warn(
        "Database",
        f"{file} does not exist, and GUIDANCE_AUTO_MIGRATE is off.",
        "Run `guidance-agent doctor --migrate`.",
    )


async def check_judgements(settings: Settings) -> Check | None:
    """Say how many answers wait for their verdict; None where there are no records yet."""
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.core.database import Database, database_url
    from guidance_agent.core.verdicts import VerdictRecords

    url = database_url(settings)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):  # noqa: ASYNC240 - nothing waits
        return None
    clock = SystemClock()
    try:
        async with Database(url, auto_migrate=False) as database:
            backlog = await VerdictRecords(database, clock).backlog()
    except StorageError:
        # The check of the database has said it.
        return None
    told = f"{backlog.pending} answers wait for their verdict, {backlog.unjudged} for a person"
    if backlog.oldest is not None and clock.now() - backlog.oldest > _LONG_WAIT:
        since = backlog.oldest.isoformat(timespec="minutes")
        return warn("Judgements", f"{told}; the oldest since {since}", "Run `guidance-agent worker --once`.")
    if backlog.unjudged:
        return warn("Judgements", told, "Look at them in the table `reviews`.")
    return ok("Judgements", told)


def check_knowledge(settings: Settings) -> Check:
    """Check that the facts can be read, and say when the next of them ends."""
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.knowledge import load_knowledge

    try:
        knowledge = load_knowledge(settings.knowledge_dir)
    except KnowledgeError as error:
        return failed("Knowledge", error)
    today = SystemClock().today()
    current = knowledge.valid_on(today, include_upcoming=False)
    if not current:
        return failed("Knowledge", f"No fact is valid on {today}.", "Bring the knowledge base up to date.")
    told = f"{len(current)} of {len(knowledge.facts)} facts and {len(knowledge.figures_on(today))} figures hold today"
    ends = min((item.fact.valid_until for item in current if item.fact.valid_until is not None), default=None)
    if ends is None:
        return ok("Knowledge", f"{told}; none of them has an end")
    told += f"; the next end on {ends}"
    if (ends - today).days < _SOON_DAYS:
        return warn("Knowledge", told, "Add what follows them, or set GUIDANCE_KNOWLEDGE_DIR to a newer base.")
    return ok("Knowledge", told)


async def check_simulator() -> Check:
    """Check that the local simulator can start."""
    from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings

    try:
        async with ProviderSimulator(SimulatorSettings.instant()) as simulator:
            return ok("Simulator", f"starts on {simulator.base_url.removeprefix('http://').partition(':')[0]}")
    except OSError as error:
        return failed(
            "Simulator",
            f"No port of 127.0.0.1 can be opened: {error.strerror}.",
            "Allow programs to listen on the loopback address, or set a provider's key.",
        )


async def check_online(settings: Settings) -> Check:
    """Make one tiny call to the author model."""
    from guidance_agent.llm.messages import Message, ModelRequest
    from guidance_agent.runtime import Runtime

    try:
        async with Runtime(settings.model_copy(update={"background": False})) as runtime:
            request = ModelRequest(
                model=runtime.model,
                messages=(Message("user", "Reply with the single word: ready"),),
                max_tokens=64,
                operation="doctor",
                use_cache=False,
            )
            call = (await runtime.gateway.complete(request)).call
    except GuidanceAgentError as error:
        return failed("Online", error)
    cost = money(None if call.cost is None else call.cost.usd, simulated=call.simulated)
    who = f"{call.model} (simulated)" if call.simulated else call.model
    return ok("Online", f"{who} answered after {call.timing.total:.2f} s; {cost}")

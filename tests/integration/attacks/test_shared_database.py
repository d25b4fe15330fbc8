"""Several processes on one database: no lock errors, no lost rows, one migration."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Completed, Runtime, Settings
from guidance_agent.core.schema import consultations, memories, model_calls, turns
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import author_says, wired_settings
from tests.integration.attacks.children import start_child
from tests.integration.attacks.evidence import asks, check_ended, rows

TURNS = 20


@pytest.mark.slow
async def test_processes_that_begin_on_an_empty_database_and_stream_at_once_lose_nothing(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty.database_url is not None:
        monkeypatch.setenv("GUIDANCE_DATABASE_URL", empty.database_url)
    author_says(simulator, wire, Script(chunks=40, first_ms=0, interval_ms=10))
    names = ("ada", "ben", "cal")
    children = await asyncio.gather(
        *(start_child(simulator, wire, tmp_path / "data", turns=TURNS, name=name) for name in names)
    )
    await asyncio.gather(*(child.read() for child in children))
    for child in children:
        assert await child.stderr() == ""
        assert await child.process.wait() == 0
        assert list(child.ended.values()) == ["completed"] * TURNS
    async with Runtime(wired_settings(simulator, wire, tmp_path / "data"), environ={}) as runtime:
        for child in children:
            for turn_id, text in child.shown.items():
                await check_ended(runtime, turn_id, text)
        for table in (turns, consultations, memories, model_calls):
            assert len(await rows(runtime, table)) == TURNS * len(names)


async def test_a_stranger_who_locks_the_journal_delays_streams_and_ends_none(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(chunks=60, first_ms=0, interval_ms=10))
    locked, released = asyncio.Event(), asyncio.Event()
    lock = "BEGIN IMMEDIATE" if wired_runtime.database.is_sqlite else "LOCK TABLE turn_events IN EXCLUSIVE MODE"

    async def hold() -> None:
        stranger = await asyncio.to_thread(wired_runtime.database.engine.connect)
        await asyncio.to_thread(stranger.exec_driver_sql, lock)
        locked.set()
        await asyncio.sleep(1.5)
        await asyncio.to_thread(stranger.close)
        released.set()

    async def stream(customer_id: str) -> tuple[str, str]:
        async with wired.consult(asks(customer_id), use_reasoning=False) as turn:
            events = [event async for event in turn]
        assert released.is_set()
        assert isinstance(events[-1], Completed)
        return turn.turn_id, events[-1].text

    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(stream(f"c-{number}")) for number in range(10)]
        await asyncio.sleep(0.15)
        holder = group.create_task(hold())
        await locked.wait()
        late = group.create_task(stream("late"))
    assert holder.done()
    for task in (*streams, late):
        await check_ended(wired_runtime, *task.result())

"""After `kill -9` the text that was shown is inside what the journal holds, and the next process closes the turn."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Failed, Runtime, event_from_json
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.journal import LEASE_SECONDS
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import AUTHOR, author_says, wired_settings

CHILD = "tests.integration.advisor.streaming_child"
ROOT = Path(__file__).parents[3]


class LaterClock(SystemClock):
    """The clock of a process that starts after the leases of the dead have run out."""

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=LEASE_SECONDS + 1)


async def start_child(simulator: ProviderSimulator, wire: str, data_dir: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        CHILD,
        simulator.base_url,
        str(data_dir),
        AUTHOR[wire],
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=2**24,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def shown_before_kill(child: asyncio.subprocess.Process, pieces: int) -> tuple[str, str]:
    """Read until some pieces of text have been shown, kill the process, and return the turn's id and all it showed."""
    assert child.stdout is not None
    turn_id, shown, seen = "", "", 0
    async for line in child.stdout:
        values = json.loads(line)
        turn_id = values.get("turn", turn_id)
        shown += values.get("text", "")
        seen += "text" in values
        if seen == pieces:
            child.send_signal(signal.SIGKILL)
            break
    async for line in child.stdout:
        if line.endswith(b"\n"):
            shown += json.loads(line).get("text", "")
    assert await child.wait() == -signal.SIGKILL
    return turn_id, shown


@pytest.mark.slow
@pytest.mark.parametrize("interval_ms", [0, 2])
async def test_the_shown_text_is_inside_the_journal_after_sigkill(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, interval_ms: int
) -> None:
    data_dir = tmp_path / "data"
    script = Script(bytes=30_000_000, first_ms=0) if interval_ms == 0 else Script(chunks=5_000, interval_ms=interval_ms)
    author_says(simulator, wire, script)
    pieces = random.Random(f"{wire}{interval_ms}").randrange(1, 20)
    turn_id, shown = await shown_before_kill(await start_child(simulator, wire, data_dir), pieces)
    settings = wired_settings(simulator, wire, data_dir)
    async with Runtime(settings, environ={}) as runtime:
        journaled = "".join(event.text or "" for event in await runtime.records.events(turn_id))
        assert shown
        assert journaled.startswith(shown)
        assert await runtime.close_dead_turns() == ()
    async with Runtime(settings, environ={}, clock=LaterClock()) as runtime:
        assert await runtime.close_dead_turns() == (turn_id,)
        turn = await runtime.records.turn(turn_id)
        assert turn is not None
        assert (turn["state"], turn["judgement"]) == ("process_died", "pending")
        assert turn["delivered_length"] == len(journaled)
        last = event_from_json((await runtime.records.events(turn_id))[-1].payload)
        assert isinstance(last, Failed)
        assert last.error == "ProcessDied"


async def test_a_process_that_starts_closes_what_a_dead_one_left_and_leaves_live_turns_alone(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    author_says(simulator, wire, Script(chunks=5_000, first_ms=0, interval_ms=5))
    settings = wired_settings(simulator, wire, tmp_path / "data", background=True)
    turn_id, _ = await shown_before_kill(await start_child(simulator, wire, tmp_path / "data"), 3)
    question = {"customer_id": "c", "presenting_question": "How?"}
    async with (
        Runtime(settings, environ={}) as alive,
        AdvisorAgent(runtime=alive) as advisor,
        advisor.consult(question, use_reasoning=False) as turn,
    ):
        await anext(turn)
        await _renewed(alive, turn.turn_id)
        async with Runtime(settings, environ={}, clock=LaterClock()) as later:
            closed = await _wait_until_closed(later, turn_id)
            live = await later.records.turn(turn.turn_id)
    assert closed["state"] == "process_died"
    assert live is not None
    assert live["state"] == "streaming"


async def _renewed(runtime: Runtime, turn_id: str) -> None:
    """Give the live turn the lease that it would have at the later process's time."""
    import sqlalchemy as sa

    from guidance_agent.core.schema import turns

    with runtime.database.engine.begin() as connection:
        later = LaterClock().now().timestamp() + LEASE_SECONDS
        connection.execute(sa.update(turns).where(turns.c.id == turn_id).values(lease_until=later))


async def _wait_until_closed(runtime: Runtime, turn_id: str) -> dict[str, object]:
    async with asyncio.timeout(10):
        while True:
            row = await runtime.records.turn(turn_id)
            assert row is not None
            if row["state"] != "streaming":
                return row
            await asyncio.sleep(0.02)

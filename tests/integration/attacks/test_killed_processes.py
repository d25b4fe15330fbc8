"""A process with many live turns is killed or stopped: nothing shown is missing, no turn stays open, none is lost."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Runtime
from guidance_agent.core.schema import turns
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.test_process_death import LaterClock
from tests.integration.advisor.wiring import author_says, wired_settings
from tests.integration.attacks.children import Child, start_child
from tests.integration.attacks.evidence import asks, check_ended, replayed, rows, shown

pytestmark = pytest.mark.slow
TURNS = 20


async def stopped_child(simulator: ProviderSimulator, wire: str, data_dir: Path, number: int) -> Child:
    """Run a child with many turns and send it the signal after a random number of pieces."""
    child = await start_child(simulator, wire, data_dir, turns=TURNS)
    await child.read(until_pieces=random.Random(f"{wire}{number}").randrange(30, 400))
    child.process.send_signal(number)
    await child.read()
    return child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_process_has_shown_nothing_that_is_not_journaled_and_all_its_turns_are_closed(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, number: int
) -> None:
    author_says(simulator, wire, Script(chunks=2_000, first_ms=0, interval_ms=25))
    settings = wired_settings(simulator, wire, tmp_path / "data")
    child = await stopped_child(simulator, wire, tmp_path / "data", number)
    assert await child.process.wait() == -number
    async with Runtime(settings, environ={}) as runtime:
        assert await runtime.close_dead_turns() == ()
    async with (
        Runtime(settings, environ={}, clock=LaterClock()) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
        advisor.consult(asks("alive"), use_reasoning=False) as live,
    ):
        await anext(live)
        left = {row["id"] for row in await rows(runtime, turns)} - {live.turn_id}
        assert set(child.shown) <= left
        assert len(left) == TURNS
        assert set(await runtime.close_dead_turns()) == left
        assert await runtime.close_dead_turns() == ()
        for turn_id in left:
            journaled = shown(await replayed(runtime, turn_id))
            assert journaled.startswith(child.shown[turn_id])
            row = await check_ended(runtime, turn_id, journaled)
            assert row["state"] == "process_died"


async def test_an_interrupt_ends_every_turn_with_exactly_what_was_shown(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    author_says(simulator, wire, Script(chunks=2_000, first_ms=0, interval_ms=25))
    child = await stopped_child(simulator, wire, tmp_path / "data", signal.SIGINT)
    assert "KeyboardInterrupt" in await child.stderr()
    await child.process.wait()
    async with Runtime(wired_settings(simulator, wire, tmp_path / "data"), environ={}) as runtime:
        for row in await rows(runtime, turns):
            await check_ended(runtime, row["id"], child.shown[row["id"]])
            assert row["state"] == "closed_early"
        assert len(child.shown) == TURNS

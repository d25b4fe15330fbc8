"""Processes that stream and judge are killed at many moments, or asked to stop, while another lives beside them."""

from __future__ import annotations

import signal

import pytest

from benchmarks.kill_child import Job
from benchmarks.kill_evidence import contradictions, recorded_turns
from benchmarks.kill_run import DOOMED, kill_and_look
from benchmarks.kill_streams import Moment, Streams
from guidance_agent import Settings
from guidance_agent.core.database import Database, database_url
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from tests.storage import Storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
PROVIDER = ("--instant", "--any-model", "--no-bodies")
KILLS = {"sqlite": 6, "postgresql": 3}


async def test_whenever_processes_are_killed_what_was_shown_is_on_record_and_has_one_verdict(
    settings: Settings, storage: Storage
) -> None:
    kills = KILLS[storage.name]
    with ProviderSimulatorProcess(PROVIDER) as provider:
        outcome = await kill_and_look(settings, provider.base_url, kills=kills, at_once=4, hurry=5.0, living=1)
    assert outcome.violations == []
    assert outcome.kills == kills
    assert outcome.characters > 0
    assert outcome.closed_after_kill != []
    assert outcome.longer_than_a_lease > 0
    assert outcome.live_turns_taken == 0
    assert outcome.verdicts > 0
    assert outcome.corrections > 0
    assert (outcome.unjudged, outcome.judged_twice) == (0, 0)
    assert outcome.killed_starting + sum(outcome.cut.values()) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_that_is_asked_to_stop_records_exactly_what_was_shown(settings: Settings, number: int) -> None:
    async with Database(database_url(settings)) as database:
        with ProviderSimulatorProcess(PROVIDER) as provider:
            job = Job(
                name="stopped",
                provider_url=provider.base_url,
                data_dir=settings.data_dir,
                database_url=settings.database_url,
                models=DOOMED,
            )
            child = await Streams.start(job)
            try:
                status = await child.read(Moment(kind="between commits", number=60, delay=0.01, signal=number))
            finally:
                child.leave()
        found = await recorded_turns(database, "stopped")
    assert status == 0
    assert [what for turn in found.values() for what in contradictions(turn, child.shown[turn.id], None)] == []
    recorded = {turn_id: turn.row["delivered_length"] for turn_id, turn in found.items()}
    assert recorded == {turn_id: len(child.shown[turn_id]) for turn_id in found}
    assert {turn.row["state"] for turn in found.values()} == {"completed", "closed_early"}

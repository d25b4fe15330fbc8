"""Judging across processes: killed with SIGKILL, beside each other, one after the other. One verdict for each turn."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.schema import turns, verdicts
from guidance_agent.core.slots import SLOT_LEASE_SECONDS
from guidance_agent.llm import collect
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging
from tests.integration.advisor.test_process_death import LaterClock, shown_before_kill, start_child
from tests.integration.advisor.wiring import author_says, wired_settings

ROOT = Path(__file__).parents[3]
WITHIN = 30.0


class AfterTheLeases(SystemClock):
    """The clock of a process that starts after the slots of the dead are free."""

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=SLOT_LEASE_SECONDS + 1)


async def have_answered(settings: Settings, customer: CustomerProfile, times: int) -> None:
    """Leave turns behind that nobody has judged."""
    customers = [customer.model_copy(update={"customer_id": f"customer-{number}"}) for number in range(times)]
    async with AdvisorAgent(settings=settings) as advisor:
        await asyncio.gather(*(collect(advisor.provide_guidance_stream(each, None, False)) for each in customers))


async def counted(runtime: Runtime) -> tuple[int, dict[str | None, int]]:
    """Return the number of verdicts, and how many turns are in which state of judgement."""

    def read(connection: sa.Connection) -> tuple[int, dict[str | None, int]]:
        number = connection.execute(sa.select(sa.func.count()).select_from(verdicts)).scalar_one()
        states = sa.select(turns.c.judgement, sa.func.count()).group_by(turns.c.judgement)
        return number, {judgement: count for judgement, count in connection.execute(states)}

    return await runtime.database.run(read)


async def command(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GUIDANCE_SIMULATOR": "instant", **environment},
    )


async def worker(settings: Settings, *options: str, **environment: str) -> asyncio.subprocess.Process:
    folder = str(settings.data_dir)
    return await command(
        "-m", "guidance_agent.cli.main", "worker", "--json", *options, "--data-dir", folder, **environment
    )


async def told(process: asyncio.subprocess.Process) -> tuple[int | None, dict[str, object], str]:
    async with asyncio.timeout(WITHIN):
        out, err = await process.communicate()
    return process.returncode, json.loads(out.decode().splitlines()[-1]), err.decode()


@pytest.mark.slow
async def test_a_process_killed_between_the_judge_and_the_commit_leaves_a_turn_that_is_judged_again_and_stored_once(
    settings: Settings, janet: CustomerProfile
) -> None:
    await have_answered(settings, janet, 1)
    child = await command("-m", "tests.integration.advisor.judging_child", str(settings.data_dir))
    assert child.stdout is not None
    async with asyncio.timeout(WITHIN):
        assert await child.stdout.readline() == b"judged, not stored\n"
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    judge = ScriptedJudge()
    async with Runtime(settings) as runtime:
        assert await counted(runtime) == (0, {"pending": 1})
        async with judging(runtime, judge, clock=AfterTheLeases()) as dispatcher:
            await dispatcher.drain()
        assert await counted(runtime) == (1, {"passed": 1})
    assert len(judge.asked) == 1


@pytest.mark.slow
async def test_processes_beside_each_other_judge_every_turn_once(settings: Settings, janet: CustomerProfile) -> None:
    await have_answered(settings, janet, 10)
    workers = [await worker(settings, "--once") for _ in range(2)]
    results = await asyncio.gather(*(told(each) for each in workers))
    assert [code for code, _, _ in results] == [0, 0], results
    assert sum(int(str(values["judged"])) for _, values, _ in results) == 10
    async with Runtime(settings) as runtime:
        number, states = await counted(runtime)
    assert number == sum(states.values()) == 10
    assert "pending" not in states


@pytest.mark.slow
async def test_what_a_killed_process_had_shown_is_judged_with_all_that_is_journaled(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    author_says(simulator, wire, Script(chunks=5_000, interval_ms=2))
    turn_id, shown = await shown_before_kill(await start_child(simulator, wire, tmp_path / "data"), 5)
    judge = ScriptedJudge()
    settings = wired_settings(simulator, wire, tmp_path / "data")
    async with Runtime(settings, environ={}, clock=LaterClock()) as runtime:
        assert await runtime.close_dead_turns() == (turn_id,)
        async with judging(runtime, judge) as dispatcher:
            assert (await dispatcher.drain()).judged == 1
        assert judge.texts == [await runtime.records.text(turn_id)]
        assert str(judge.texts[0]).startswith(shown)
        assert judge.asked[0]["complete"] is False
        assert (await counted(runtime))[0] == 1


@pytest.mark.slow
async def test_a_worker_with_nothing_to_do_leaves_at_once(settings: Settings) -> None:
    code, values, said = await told(await worker(settings, "--once"))
    assert (code, values) == (
        0,
        {"closed": 0, "judged": 0, "given_up": 0, "waiting": {}, "annotations": {"sent": 0, "waiting": 0}},
    )
    assert "Error" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("status", "judgement"), [(503, "pending"), (401, "unjudged_needs_review")])
async def test_a_worker_whose_judge_fails_says_so_and_leaves_the_turn_where_it_belongs(
    simulator: ProviderSimulator, settings: Settings, janet: CustomerProfile, status: int, judgement: str
) -> None:
    await have_answered(settings, janet, 1)
    simulator.faults.add(Fault(kind="status", status=status, times=None))
    address = {"ANTHROPIC_BASE_URL": simulator.base_url, "ANTHROPIC_API_KEY": "key-of-the-test"}
    quick = {"GUIDANCE_RETRY__MAX_ATTEMPTS": "1"}
    code, values, said = await told(await worker(settings, "--once", **address, **quick))
    assert code == 4
    assert values["judged"] == 0
    assert ("still wait for their verdict" if status == 503 else "wait for a person") in said
    async with Runtime(settings) as runtime:
        assert await counted(runtime) == (0, {judgement: 1})


@pytest.mark.slow
async def test_a_worker_judges_what_comes_until_it_is_told_to_stop(settings: Settings, janet: CustomerProfile) -> None:
    process = await worker(settings)
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN):
        assert json.loads(await process.stdout.readline())["waiting"] == 0
        await have_answered(settings, janet, 2)
        while json.loads(await process.stdout.readline())["judged"] != 2:
            continue
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0
    async with Runtime(settings) as runtime:
        assert (await counted(runtime))[0] == 2


SHOWS_WHEN_DBOS_IS_LOADED = """
import asyncio, json, sys
from pathlib import Path
from guidance_agent import AdvisorAgent, Settings, TextDelta

async def main():
    settings = Settings.load(data_dir=Path(sys.argv[1]), simulator="instant")
    customer = {"customer_id": "janet", "presenting_question": "Can I take it all?"}
    seen = {}
    async with AdvisorAgent(settings=settings) as advisor:
        async with advisor.consult(customer, use_reasoning=False) as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    seen.setdefault("at the first text", "dbos" in sys.modules)
            seen["has a verdict"] = await turn.verdict() is not None
        seen["after the verdict"] = "dbos" in sys.modules
    print(json.dumps(seen))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_no_first_text_waits_for_dbos_to_be_loaded(settings: Settings) -> None:
    process = await command("-c", SHOWS_WHEN_DBOS_IS_LOADED, str(settings.data_dir))
    code, values, said = await told(process)
    assert code == 0, said
    assert values == {"at the first text": False, "has a verdict": True, "after the verdict": True}

"""However a program ends or shares its parts, it ends: no waiting for ever, no warning, no invented success."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Completed, Event, Runtime, Settings, Turn
from guidance_agent.core.schema import turns
from guidance_agent.errors import GuidanceAgentError, JournalError
from guidance_agent.provider_simulator import ProviderSimulator
from tests.integration.advisor.test_process_death import LaterClock
from tests.integration.advisor.wiring import endless, wired_settings
from tests.integration.attacks.evidence import asks, replayed, rows, shown

ENDS_WITHIN = 10

PROGRAM = """
import asyncio, sys
from pathlib import Path
from guidance_agent import AdvisorAgent, Runtime, Settings

CUSTOMER = {"customer_id": "c", "presenting_question": "Can I take it all?"}
settings = Settings.load(data_dir=Path(sys.argv[1]), background=True)
kept = []

"""


def run(program: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    source = PROGRAM + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source, str(data_dir)],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )


async def states(data_dir: Path) -> list[str]:
    async with Runtime(Settings.load(data_dir=data_dir, simulator="instant", background=False)) as runtime:
        return [row["state"] for row in await rows(runtime, turns)]


def test_a_program_that_forgets_to_leave_its_advisor_still_ends(tmp_path: Path) -> None:
    program = """
        async def main():
            runtime = await Runtime(settings, environ={}).__aenter__()
            advisor = await AdvisorAgent(runtime=runtime).__aenter__()
            stream = advisor.provide_guidance_stream(CUSTOMER, use_reasoning=False)
            kept.append((runtime, advisor, stream))
            print(await anext(stream))

        asyncio.run(main())
        print("ended")
    """
    done = run(program, tmp_path / "data")
    assert done.stdout.endswith("ended\n")


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "ZeroDivisionError"])
def test_an_error_in_the_program_ends_its_live_turns_and_comes_out_without_a_warning(
    tmp_path: Path, error: str
) -> None:
    program = f"""
        async def main():
            async with Runtime(settings, environ={{}}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
                kept.append(advisor.provide_guidance_stream(CUSTOMER, use_reasoning=False))
                async with asyncio.TaskGroup() as group:
                    group.create_task(anext(kept[0]))
                    await anext(advisor.provide_guidance_stream(CUSTOMER, use_reasoning=False))
                raise {error}

        asyncio.run(main())
    """
    done = run(program, tmp_path / "data")
    assert done.returncode != 0 or error == "SystemExit"
    assert "Warning" not in done.stderr
    assert "never retrieved" not in done.stderr
    assert "was destroyed" not in done.stderr
    assert sorted(asyncio.run(states(tmp_path / "data"))) == ["closed_early", "closed_early"]


def test_turns_that_are_forgotten_when_their_loop_is_closed_raise_nothing(tmp_path: Path) -> None:
    program = """
        async def main():
            async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
                turn = await advisor.consult(CUSTOMER, use_reasoning=False).__aenter__()
                kept.extend((turn, advisor.provide_guidance_stream(CUSTOMER, use_reasoning=False)))
                await anext(turn)
                await anext(kept[1])

        asyncio.run(main())
        kept.clear()
        print("ended")
    """
    done = run(program, tmp_path / "data")
    assert (done.stdout, done.stderr) == ("ended\n", "")
    assert asyncio.run(states(tmp_path / "data")) == ["closed_early", "closed_early"]


async def test_a_runtime_that_is_closed_under_a_live_turn_does_not_make_its_answer_whole(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    endless(simulator, wire)
    settings = wired_settings(simulator, wire, tmp_path / "data")
    events: list[Event] = []

    async def read(turn: Turn) -> None:
        async for event in turn:
            events.append(event)  # noqa: PERF401 - what came before an error counts

    async with Runtime(settings, environ={}) as runtime:
        advisor = await AdvisorAgent(runtime=runtime).__aenter__()
        turn = await advisor.consult(asks("c"), use_reasoning=False).__aenter__()
        reader = asyncio.create_task(read(turn))
        async with asyncio.timeout(ENDS_WITHIN):
            while not shown(events):  # noqa: ASYNC110 - the reader's list is what is polled
                await asyncio.sleep(0.01)
    with contextlib.suppress(JournalError):
        # The end itself may come too late for the journal.
        await asyncio.wait_for(reader, ENDS_WITHIN)
    await advisor.__aexit__(None, None, None)
    assert turn.state == "failed"
    assert not any(isinstance(event, Completed) for event in events)
    async with Runtime(settings, environ={}, clock=LaterClock()) as runtime:
        await runtime.close_dead_turns()
        row = await runtime.records.turn(turn.turn_id)
        assert row is not None
        assert row["state"] in ("failed", "process_died")
        assert row["judgement"] == "pending"
        assert shown(await replayed(runtime, turn.turn_id)).startswith(shown(events))


async def test_a_runtime_that_is_entered_again_answers_or_says_why_not(settings: Settings) -> None:
    runtime = Runtime(settings, environ={})
    async with runtime, AdvisorAgent(runtime=runtime) as advisor:
        await advisor.provide_guidance(asks("c"), use_reasoning=False)
    try:
        async with runtime, AdvisorAgent(runtime=runtime) as advisor:
            assert runtime.simulated
            assert await advisor.provide_guidance(asks("d"), use_reasoning=False)
    except GuidanceAgentError as error:
        assert "runtime" in str(error).lower()


async def test_a_runtime_that_was_not_entered_is_refused_with_a_typed_error(settings: Settings) -> None:
    with pytest.raises(GuidanceAgentError):
        async with AdvisorAgent(runtime=Runtime(settings, environ={})) as advisor:
            await advisor.provide_guidance(asks("c"))

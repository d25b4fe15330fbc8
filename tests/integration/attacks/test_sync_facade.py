"""The synchronous facade under attack: what was not taken was not delivered, and every way out is a clean one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Runtime, Settings
from guidance_agent.core.schema import turns
from guidance_agent.errors import ConfigurationError, CustomerProfileError, ProviderUnreachableError
from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess, Script
from tests.integration.advisor.wiring import AUTHOR, FAST
from tests.integration.attacks.evidence import asks, check_ended, rows

PIECES = 300


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--instant"]) as running:
        running.add_faults(
            Fault(kind="script", times=None, script=Script(chunks=PIECES, first_ms=0, interval_ms=2)),
        )
        yield running


@pytest.fixture
def far(provider: ProviderSimulatorProcess, tmp_path: Path) -> Settings:
    return Settings.load(
        data_dir=tmp_path / "data",
        background=False,
        model=AUTHOR["anthropic"],
        reasoning_model=FAST["anthropic"],
        providers={"anthropic": {"base_url": provider.base_url, "api_key": "test-key"}},
    )


def check_only_turn(settings: Settings, delivered: str, state: str) -> None:
    async def check() -> None:
        async with Runtime(settings, environ={}) as runtime:
            (row,) = await rows(runtime, turns)
            await check_ended(runtime, row["id"], delivered)
            assert row["state"] == state

    asyncio.run(check())


def sync_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("guidance-agent")]


@pytest.mark.parametrize("taken", [1, 3])
def test_only_what_the_caller_took_is_recorded_as_delivered(far: Settings, taken: int) -> None:
    stream = AdvisorAgent(settings=far).stream_sync(asks("c"), use_reasoning=False)
    text = "".join(next(stream) for _ in range(taken))
    threading.Event().wait(0.3)
    stream.close()  # type: ignore[attr-defined]
    check_only_turn(far, text, "closed_early")


def test_a_stream_that_is_left_early_leaves_no_thread_and_an_ended_turn(far: Settings) -> None:
    for text in AdvisorAgent(settings=far).stream_sync(asks("c"), use_reasoning=False):
        assert text
        break
    assert sync_threads() == []
    assert asyncio.run(_states(far)) == ["closed_early"]


async def _states(settings: Settings) -> list[str]:
    async with Runtime(settings, environ={}) as runtime:
        return [row["state"] for row in await rows(runtime, turns)]


def test_an_interrupt_of_the_reader_ends_the_turn_and_comes_out(far: Settings) -> None:
    def read() -> None:
        for _ in AdvisorAgent(settings=far).stream_sync(asks("c"), use_reasoning=False):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert sync_threads() == []
    assert asyncio.run(_states(far)) == ["closed_early"]


def test_errors_come_out_of_the_iterator_with_their_own_type(far: Settings) -> None:
    with pytest.raises(CustomerProfileError):
        AdvisorAgent(settings=far).provide_guidance_sync({"customer_id": ""})
    nowhere = Settings.load(
        data_dir=far.data_dir,
        background=False,
        model=AUTHOR["anthropic"],
        providers={"anthropic": {"base_url": "http://127.0.0.1:1"}},
        retry={"max_attempts": 1},
    )
    with pytest.raises(ProviderUnreachableError):
        AdvisorAgent(settings=nowhere).provide_guidance_sync(asks("c"), use_reasoning=False)
    assert sync_threads() == []


async def test_it_works_inside_a_running_loop_and_refuses_an_open_advisor(far: Settings) -> None:
    closed = AdvisorAgent(settings=far)
    assert len("".join(closed.stream_sync(asks("c"), use_reasoning=False))) > PIECES
    async with AdvisorAgent(settings=far) as advisor:
        with pytest.raises(ConfigurationError):
            advisor.stream_sync(asks("c"))


def test_the_same_advisor_answers_again_and_an_iterator_that_never_began_costs_nothing(far: Settings) -> None:
    advisor = AdvisorAgent(settings=far)
    unused = advisor.stream_sync(asks("never"))
    first = "".join(advisor.stream_sync(asks("a"), use_reasoning=False))
    assert "".join(advisor.stream_sync(asks("b"), use_reasoning=False)) == first
    del unused
    assert asyncio.run(_states(far)) == ["completed", "completed"]

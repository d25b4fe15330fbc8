"""The clock that a test moves, and the one timer that serves all streams."""

from __future__ import annotations

import asyncio

import pytest

from guidance_agent.provider_simulator.clock import ManualClock, SystemClock, sleep_until
from guidance_agent.provider_simulator.pacing import Pacer


async def test_what_waits_wakes_in_the_order_of_its_moments() -> None:
    clock, woken = ManualClock(0.0), []
    for moment in (3.0, 1.0, 2.0):
        clock.call_at(moment, lambda moment=moment: woken.append((moment, clock.now())))  # type: ignore[misc]
    clock.advance(2.5)
    assert woken == [(1.0, 1.0), (2.0, 2.0)]
    assert clock.now() == 2.5


async def test_a_cancelled_wait_never_fires() -> None:
    clock = ManualClock(0.0)
    waiting = asyncio.create_task(sleep_until(clock, 5.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.advance(10)
    await asyncio.sleep(0)
    assert waiting.cancelled()


def test_a_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="only moves forward"):
        ManualClock().advance(-1)


async def test_a_moment_that_has_passed_is_not_waited_for() -> None:
    for clock in (ManualClock(10.0), SystemClock()):
        await sleep_until(clock, clock.now() - 1)


async def test_the_pacer_calls_each_stepper_when_it_asked_for_it() -> None:
    clock = ManualClock(0.0)
    pacer, calls = Pacer(clock), []

    def stepper(name: str, interval: float, times: int) -> None:
        left = [times]

        def step(now: float) -> float | None:
            calls.append((name, now))
            left[0] -= 1
            return now + interval if left[0] else None

        pacer.add(step, clock.now() + interval)

    stepper("slow", 2.0, 2)
    stepper("fast", 1.0, 3)
    clock.advance(5.0)
    assert calls == [("fast", 1.0), ("slow", 2.0), ("fast", 2.0), ("fast", 3.0), ("slow", 4.0)]


async def test_a_stopped_pacer_calls_nobody() -> None:
    clock = ManualClock(0.0)
    pacer, calls = Pacer(clock), []
    pacer.add(lambda now: calls.append(now), 1.0)
    pacer.stop()
    clock.advance(2.0)
    assert calls == []

"""Calls queue for a limit: in which order, for how long, and how a wait ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest

from guidance_agent.core.clock import SystemClock
from guidance_agent.errors import DatabaseUnavailableError, LimitWaitError, RateLimitedError
from guidance_agent.llm.limits import LimitQueue, LocalLimitStore, Priority
from guidance_agent.llm.limits_grant import CallSize, Grant
from guidance_agent.llm.limits_state import Amounts, Bounds, LimitState
from guidance_agent.llm.messages import Usage

T = TypeVar("T")
SMALL = CallSize(10, 10)
FAST = Bounds(per_minute=Amounts(6_000), burst=0.01)
"""One call each 10 ms."""
SLOW = Bounds(per_minute=Amounts(60), burst=1)


class Desk:
    """A queue with what it needs of a gateway."""

    def __init__(self, bounds: Bounds) -> None:
        self.tasks: set[asyncio.Task[object]] = set()
        self.store = LocalLimitStore(SystemClock())
        self.queue = LimitQueue("a/model", bounds, store=self.store, clock=SystemClock(), own=self.own)

    def own(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def state(self) -> LimitState:
        found: list[LimitState] = []

        def look(state: LimitState, now: float) -> None:
            found.append(state)

        await self.store.apply("a/model", look)
        return found[0]


async def enter(queue: LimitQueue, *, priority: Priority = "chat", within: float = 30.0) -> Grant:
    return await queue.enter(SMALL, priority, within)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a queue has no event for this
            await asyncio.sleep(0.001)


async def test_the_first_to_come_is_the_first_to_go() -> None:
    desk, order = Desk(FAST), list[int]()

    async def call(number: int) -> None:
        await enter(desk.queue)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(call(number))
    assert order == list(range(12))
    assert desk.queue.status.granted == 12
    assert desk.queue.status.waited_seconds > 0
    await desk.queue.aclose()


async def test_people_go_before_work_in_the_background_and_that_is_not_starved() -> None:
    desk, order = Desk(Bounds(per_minute=Amounts(1_500), burst=0.01)), list[str]()
    await enter(desk.queue)

    async def call(priority: Priority) -> None:
        await enter(desk.queue, priority=priority)
        order.append(priority)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(call("background"))
        await until(lambda: desk.queue.status.background == 4)
        for _ in range(12):
            group.create_task(call("chat"))
    assert order[:4] == ["chat"] * 4
    assert order[:15].count("background") == 3
    await desk.queue.aclose()


async def test_a_cancelled_wait_ends_at_once_and_takes_nothing() -> None:
    desk = Desk(SLOW)
    await enter(desk.queue)
    waits = [asyncio.create_task(enter(desk.queue)) for _ in range(3)]
    await until(lambda: desk.queue.status.chat == 3)
    for task in waits:
        task.cancel()
    async with asyncio.timeout(0.5):
        results = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert desk.queue.status.chat == 0
    await desk.queue.aclose()
    # What the queue had reserved for the first of them is given back with the next look.
    await desk.queue._apply(lambda state, now: None)
    assert (await desk.state()).used[0] <= 1


async def test_a_wait_that_would_outlast_the_deadline_is_refused_at_once() -> None:
    desk = Desk(SLOW)
    await enter(desk.queue)
    async with asyncio.timeout(0.5):
        with pytest.raises(LimitWaitError, match=r"'a/model' would wait about \d+ s .* nothing was sent"):
            await enter(desk.queue, within=0.6)
    waits = [asyncio.create_task(enter(desk.queue)) for _ in range(5)]
    await until(lambda: desk.queue.status.chat == 5)
    with pytest.raises(LimitWaitError) as caught:
        await enter(desk.queue, within=4)
    assert caught.value.retryable is False
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 4
    await desk.queue.aclose()
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(result, LimitWaitError) and "closed" in str(result) for result in results)


async def test_a_refusal_holds_the_queue_for_as_long_as_the_provider_asks() -> None:
    desk = Desk(Bounds())
    clock = SystemClock()
    await enter(desk.queue)
    desk.queue.refused(RateLimitedError("too fast", retry_after=0.15))
    began = clock.monotonic()
    grant = await enter(desk.queue)
    assert clock.monotonic() - began >= 0.14
    assert grant.waited >= 0.14
    assert (await desk.state()).episodes == 1
    await desk.queue.aclose()


async def test_a_provider_that_is_not_to_be_listened_to_holds_nothing() -> None:
    desk = Desk(Bounds())
    desk.queue.refused(RateLimitedError("too fast", retry_after=60), respect_retry_after=False)
    desk.queue.refused(RateLimitedError("too fast"))
    async with asyncio.timeout(5):
        await enter(desk.queue)
    await desk.queue.aclose()


async def test_a_refusal_reaches_who_sleeps_already() -> None:
    desk = Desk(Bounds(per_minute=Amounts(600), burst=0.1))
    await enter(desk.queue)
    waiting = asyncio.create_task(enter(desk.queue))
    await until(lambda: desk.queue.status.chat == 1)
    desk.queue.refused(RateLimitedError("too fast", retry_after=0.3))
    grant = await waiting
    assert grant.waited >= 0.29
    await desk.queue.aclose()


async def test_the_reported_usage_takes_the_place_of_the_estimate() -> None:
    desk = Desk(Bounds(per_minute=Amounts(6_000, 60_000), burst=10))
    grant = await desk.queue.enter(CallSize(1_000, 500), "chat", 30)
    before = (await desk.state()).used[1]
    assert before == pytest.approx(1_256, abs=30)
    grant.settle(Usage(input_tokens=100, cache_read_tokens=900, output_tokens=4))
    grant.settle(Usage(input_tokens=100_000))
    await desk.queue._apply(lambda state, now: None)
    assert (await desk.state()).used[1] == pytest.approx(1_004, abs=50)
    await desk.queue.aclose()


async def test_estimates_learn_from_what_calls_took() -> None:
    desk = Desk(Bounds(per_minute=Amounts(6_000, 6_000_000), burst=10))
    size = CallSize(1_000, 500, "uncached")
    for _ in range(20):
        grant = await desk.queue.enter(size, "chat", 30)
        grant.settle(Usage(input_tokens=50, cache_read_tokens=950, output_tokens=10))
    expected = desk.queue.learned.expected(size)
    assert expected.tokens < 100
    assert expected.output_tokens < 20
    await desk.queue.aclose()


class _BrokenStore:
    async def apply(self, scope: str, change: Callable[[LimitState, float], T]) -> T:
        raise DatabaseUnavailableError("The database is gone.")


async def test_without_its_database_a_queue_limits_by_itself_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(FAST)
    queue = LimitQueue("a/model", FAST, store=_BrokenStore(), clock=SystemClock(), own=desk.own)
    with caplog.at_level(logging.WARNING, logger="guidance_agent.limits"):
        for _ in range(3):
            await enter(queue)
    assert [record.message for record in caplog.records] == [
        "The shared rate limit of a/model cannot be used: The database is gone. Limited by itself."
    ]
    assert queue.status.waited_seconds > 0
    await queue.aclose()


class _WrongStore:
    async def apply(self, scope: str, change: Callable[[LimitState, float], T]) -> T:
        raise ValueError("a fault of the store")


async def test_a_fault_of_the_store_is_told_where_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(FAST)
    queue = LimitQueue("a/model", FAST, store=_WrongStore(), clock=SystemClock(), own=desk.own)
    with caplog.at_level(logging.ERROR, "guidance_agent.limits"):
        queue.change(lambda state, now: None, urgent=True)
        await asyncio.gather(*desk.tasks)
    (record,) = caplog.records
    assert "a/model" in record.message
    assert record.exc_info is not None and isinstance(record.exc_info[1], ValueError)
    await queue.aclose()


async def test_a_fault_of_the_store_reaches_who_waits() -> None:
    desk = Desk(FAST)
    queue = LimitQueue("a/model", FAST, store=_WrongStore(), clock=SystemClock(), own=desk.own)
    with pytest.raises(ValueError, match="a fault of the store"):
        await enter(queue)
    await queue.aclose()

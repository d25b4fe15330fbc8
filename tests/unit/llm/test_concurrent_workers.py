"""The workers of a concurrent batch: order, bounds, failures and ends, without a model."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.llm.concurrent.workers import Workers


async def all_of(workers: Workers[int, int]) -> list[int]:
    found = []
    while (done := await workers.next()) is not None:
        found.append(done.result)
    await workers.aclose()
    return found


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.integers(0, 5), max_size=40), width=st.integers(1, 7))
def test_results_come_in_the_order_of_the_source_however_long_each_takes(turns: list[int], width: int) -> None:
    async def work(place: int, turn: int) -> int:
        for _ in range(turn):
            await asyncio.sleep(0)
        return place

    async def both() -> tuple[list[int], list[int]]:
        ordered: Workers[int, int] = Workers(turns, work, width=width, ordered=True)
        finished: Workers[int, int] = Workers(turns, work, width=width, ordered=False)
        return await all_of(ordered), await all_of(finished)

    ordered, finished = asyncio.run(both())
    assert ordered == list(range(len(turns)))
    assert sorted(finished) == ordered


async def test_no_more_run_at_once_than_the_width_and_the_source_is_read_no_further_than_there_are_places() -> None:
    running = most = read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(200):
            read += 1
            yield number

    async def work(place: int, item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return item

    workers: Workers[int, int] = Workers(source(), work, width=3, ordered=False)
    for _ in range(20):
        assert await workers.next() is not None
    for _ in range(50):
        await asyncio.sleep(0)
    assert read <= 20 + 3 * 4
    assert len(await all_of(workers)) == 180
    assert most == 3


async def test_results_that_wait_for_a_slow_one_are_bounded() -> None:
    let_go = asyncio.Event()
    finished = 0

    async def work(place: int, item: int) -> int:
        nonlocal finished
        if item == 0:
            await let_go.wait()
        finished += 1
        return item

    workers: Workers[int, int] = Workers(range(500), work, width=5, ordered=True)
    first = asyncio.create_task(workers.next())
    for _ in range(200):
        await asyncio.sleep(0)
    assert finished < 5 * 4
    let_go.set()
    assert (await first) == (0, 0)
    assert await all_of(workers) == list(range(1, 500))


async def test_what_the_source_raises_comes_after_what_was_pulled_before_it() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise OSError("the file ended")

    async def work(place: int, item: int) -> int:
        await asyncio.sleep(0)
        return item

    workers: Workers[int, int] = Workers(source(), work, width=2, ordered=True)
    assert [await workers.next(), await workers.next()] == [(0, 1), (1, 2)]
    with pytest.raises(OSError, match="the file ended"):
        await workers.next()


async def test_a_result_that_stops_the_work_cancels_the_rest_before_anybody_reads() -> None:
    cancelled: list[int] = []

    async def work(place: int, item: int) -> int:
        try:
            await asyncio.sleep(0 if item == 2 else 30)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    workers: Workers[int, int] = Workers(range(9), work, width=3, ordered=True, stops=lambda result: result == 2)
    assert await workers.next() is None
    await workers.aclose()
    assert sorted(cancelled) == [0, 1]
    assert workers.stopped_by == (2, 2)
    assert [done.result for done in workers.waiting()] == [2]


async def test_closing_ends_what_runs_and_the_source() -> None:
    closed: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("source")

    async def work(place: int, item: int) -> int:
        try:
            await asyncio.sleep(30 if place else 0)
        finally:
            closed.append("work")
        return item

    workers: Workers[int, int] = Workers(source(), work, width=2, ordered=False)
    assert await workers.next() == (0, 1)
    await workers.aclose()
    await workers.aclose()
    assert closed[-1] == "source"
    assert closed.count("work") == 3


async def test_what_the_work_raises_ends_everything() -> None:
    async def work(place: int, item: int) -> int:
        if item == 1:
            raise RuntimeError("broken")
        await asyncio.sleep(30)
        return item

    workers: Workers[int, int] = Workers(range(5), work, width=2, ordered=False)
    with pytest.raises(RuntimeError, match="broken"):
        await workers.next()


async def test_twenty_thousand_items_take_as_many_tasks_and_as_little_memory_as_ten() -> None:
    async def work(place: int, item: int) -> bytes:
        return b"x" * 1_000

    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers: Workers[int, bytes] = Workers(range(20_000), work, width=50, ordered=True)
    found = most = 0
    while await workers.next() is not None:
        found += 1
        if found % 2_000 == 0:
            most = max(most, len(asyncio.all_tasks()))
    await workers.aclose()
    assert found == 20_000
    assert most <= 60
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1_024 < 10


async def test_a_width_of_a_billion_takes_as_many_tasks_as_there_are_items() -> None:
    most = 0

    async def work(place: int, item: int) -> int:
        nonlocal most
        await asyncio.sleep(0)
        most = max(most, len(asyncio.all_tasks()))
        return item

    before = len(asyncio.all_tasks())
    assert await all_of(Workers(range(5), work, width=10**9, ordered=True)) == list(range(5))
    assert most <= before + 6


async def test_work_that_is_cancelled_from_within_is_no_silent_end() -> None:
    async def work(place: int, item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    workers: Workers[int, int] = Workers(range(3), work, width=1, ordered=False)
    with pytest.raises(asyncio.CancelledError):
        await all_of(workers)
    await workers.aclose()

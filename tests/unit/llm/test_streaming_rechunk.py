"""Another rhythm: no wait for the first text, none too long for any, and nothing lost whatever ends the stream."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.errors import InputError, MidStreamError
from guidance_agent.llm.messages import Delta
from guidance_agent.llm.streaming import rechunk
from guidance_agent.llm.streaming.pieces import PieceBuffer
from guidance_agent.llm.streaming.sources import AnyStream

MODES: Sequence[dict[str, Any]] = (
    {"characters": 3},
    {"words": 2},
    {"sentences": 1},
    {"characters": 3, "max_delay": None},
    {"words": 2, "max_delay": None},
    {"sentences": 1, "max_delay": None},
    {},
)


class Source:
    """Yields what it is given, one item at a time; an exception is raised, an event is waited for."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.given = ""
        self.asked = 0
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> str:
        self.asked += 1
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
                continue
            self.given += str(step)
            return str(step)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


async def generated(source: Source) -> AsyncIterator[str]:
    try:
        async for text in source:
            yield text
    finally:
        await source.aclose()


def modes() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode) or "time")


@settings(deadline=None)
@given(chunks=st.lists(st.text(alphabet="ab .\n\u0301é", max_size=8), max_size=12), mode=st.sampled_from(MODES))
def test_joined_it_is_the_text_of_the_stream(chunks: list[str], mode: dict[str, Any]) -> None:
    async def read() -> str:
        return "".join([piece async for piece in rechunk(Source(*chunks), **mode)])

    assert asyncio.run(read()) == "".join(chunks)


@modes()
async def test_the_first_text_is_not_delayed(mode: dict[str, Any]) -> None:
    more = asyncio.Event()
    async with rechunk(Source("Hel", more, "lo."), **mode) as pieces:
        async with asyncio.timeout(1):
            assert await anext(pieces) == "Hel"
        more.set()


@pytest.mark.parametrize("unit", [{}, {"characters": 100}, {"words": 9}, {"sentences": 9}])
async def test_nothing_is_held_longer_than_the_delay(unit: dict[str, int]) -> None:
    more = asyncio.Event()
    async with rechunk(Source("First.", " Second and", " third", more, "end"), **unit, max_delay=0.05) as pieces:
        assert await anext(pieces) == "First."
        async with asyncio.timeout(1):
            assert await anext(pieces) == " Second and third"
        more.set()
        assert await anext(pieces) == "end"


async def test_the_read_that_was_not_waited_for_is_not_lost_and_nothing_is_read_ahead() -> None:
    more = asyncio.Event()
    source = Source("a", "b", more, "c", "d", "e")
    async with rechunk(source, characters=1, max_delay=0.01) as pieces:
        assert [await anext(pieces), await anext(pieces)] == ["a", "b"]
        asked = source.asked
        more.set()
        await asyncio.sleep(0)
        assert source.asked == asked
        assert "".join([piece async for piece in pieces]) == "cde"


@modes()
@pytest.mark.parametrize("chunks", [("Hello wor", "ld, s"), ("Hello",), ()])
async def test_what_is_held_at_an_error_comes_before_it(mode: dict[str, Any], chunks: tuple[str, ...]) -> None:
    source = Source(*chunks, MidStreamError("broken"))
    text = ""
    with pytest.raises(MidStreamError, match="broken"):
        async for piece in rechunk(source, **mode):
            text += piece
    assert text == "".join(chunks)
    assert source.closed


@modes()
@pytest.mark.parametrize("wrapped", [False, True], ids=["object", "generator"])
async def test_after_a_cancel_nothing_is_lost_and_the_source_is_closed(mode: dict[str, Any], wrapped: bool) -> None:
    source = Source("First. Sec", "ond", "…", asyncio.Event())
    pieces = rechunk(
        generated(source) if wrapped else source, **{**mode, **({"max_delay": 60} if "max_delay" not in mode else {})}
    )
    read: list[str] = []

    async def consume() -> None:
        async for piece in pieces:
            read.append(piece)  # noqa: PERF401 - a comprehension would lose what came before the cancel

    task = asyncio.create_task(consume())
    async with asyncio.timeout(5):
        while source.asked < 4:  # noqa: ASYNC110 - what the source was asked for is what is polled
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "".join(read) + pieces.held == source.given == "First. Second…"
    assert source.closed


async def test_what_arrives_in_the_moment_of_a_cancel_is_not_lost() -> None:
    reader: asyncio.Task[None] | None = None

    async def source() -> AsyncIterator[str]:
        yield "First."
        assert reader is not None
        reader.cancel()
        yield " Second."

    read: list[str] = []
    pieces = rechunk(source(), sentences=1)

    async def consume() -> None:
        async for piece in pieces:
            read.append(piece)  # noqa: PERF401 - a comprehension would lose what came before the cancel

    reader = asyncio.create_task(consume())
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert "".join(read) + pieces.held == "First. Second."


async def test_a_source_that_is_read_when_the_stream_is_left_is_closed_and_not_cancelled() -> None:
    class Recording(Source):
        def __init__(self) -> None:
            super().__init__("a", "b")
            self.left: list[str] = []
            self.over = asyncio.Event()

        async def __anext__(self) -> str:
            if self.steps:
                return await super().__anext__()
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                self.left.append("cancelled")
                raise
            raise StopAsyncIteration

        async def aclose(self) -> None:
            self.left.append("closed")
            self.over.set()

    source = Recording()
    async with rechunk(source, characters=100, max_delay=0.01) as pieces:
        assert [await anext(pieces), await anext(pieces)] == ["a", "b"]
    assert source.left[0] == "closed"


async def test_half_a_character_that_waits_costs_no_busy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    flushes = 0
    flush = PieceBuffer.flush

    def counted(buffer: PieceBuffer, *, last: bool = False) -> None:
        nonlocal flushes
        flushes += 1
        flush(buffer, last=last)

    monkeypatch.setattr(PieceBuffer, "flush", counted)
    more = asyncio.Event()
    async with rechunk(Source("a", "\ud83d", more, "\ude00"), max_delay=0.02) as pieces:
        assert await anext(pieces) == "a"
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.wait({waiting}, timeout=0.2)
        assert flushes < 30
        more.set()
        assert await waiting == "\ud83d\ude00"


@modes()
async def test_a_stream_that_is_left_early_closes_its_source(mode: dict[str, Any]) -> None:
    for wrap in (lambda source: source, generated):
        source = Source("a", "b", asyncio.Event())
        async with rechunk(wrap(source), **mode) as pieces:
            assert await anext(pieces) == "a"
        assert source.closed
        await pieces.aclose()


@modes()
async def test_a_stream_that_is_forgotten_closes_its_source(mode: dict[str, Any]) -> None:
    for wrap in (lambda source: source, generated):
        source = Source("a", "b", asyncio.Event())
        async for piece in rechunk(wrap(source), **mode):
            assert piece == "a"
            break
        gc.collect()
        async with asyncio.timeout(0.5):
            while not source.closed:  # noqa: ASYNC110 - the source is what is polled
                await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - the loop's own tasks are what is polled
                await asyncio.sleep(0.001)


async def test_a_stream_that_was_never_read_closes_its_source() -> None:
    source = Source("a")
    async with rechunk(source, words=1):
        pass
    assert source.closed


async def test_only_what_the_customer_reads_is_passed_on() -> None:
    async def deltas() -> AsyncIterator[Delta]:
        yield Delta(reasoning="private")
        yield Delta(text="Hello")
        yield Delta(finish_reason="stop", pieces=0)

    assert [piece async for piece in rechunk(deltas(), words=1)] == ["Hello"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"characters": 0},
        {"words": 0},
        {"sentences": -1},
        {"characters": 65_537},
        {"characters": 3, "words": 3},
        {"max_delay": None},
        {"max_delay": 0.0},
        {"words": 1, "max_delay": -1.0},
        {"words": 1, "max_delay": float("nan")},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        rechunk(Source(), **wrong)


async def test_a_stream_of_something_else_is_refused_in_words() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    stream: AnyStream = numbers()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="stream of int"):
        await anext(rechunk(stream, words=1))

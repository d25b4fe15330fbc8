"""Watching and collecting a stream: every item passes once, counts are true, and failures are nobody's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guidance_agent import Completed, Failed, Judged, TextDelta
from guidance_agent.advisor.events import Event, TurnTiming
from guidance_agent.core.clock import SystemClock
from guidance_agent.errors import GuidanceAgentError, MidStreamError
from guidance_agent.llm.messages import Delta, ToolCallDelta, Usage
from guidance_agent.llm.streaming import Progress, collect, rechunk, with_callbacks
from guidance_agent.llm.tokens import estimate_tokens


class StepClock(SystemClock):
    """Moves on by one second whenever it is looked at."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        self.time += 1.0
        return self.time


class Items:
    """Yields what it is given, and remembers that it was closed."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.closed = False

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        if not self.items:
            raise StopAsyncIteration
        item = self.items.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item

    async def aclose(self) -> None:
        self.closed = True


async def drained(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


async def test_every_item_is_told_once_before_the_reader_has_it() -> None:
    told: list[str] = []
    seen: list[list[str]] = []
    async for item in with_callbacks(Items("a", "b"), on_chunk=told.append):
        assert told[-1] == item
        seen.append(list(told))
    assert seen == [["a"], ["a", "b"]]


async def test_async_functions_are_awaited() -> None:
    told: list[object] = []

    async def on_chunk(item: str) -> None:
        await asyncio.sleep(0)
        told.append(item)

    async def on_progress(progress: Progress) -> None:
        await asyncio.sleep(0)
        told.append(progress.finished)

    await drained(with_callbacks(Items("a"), on_chunk=on_chunk, on_progress=on_progress))
    assert told == ["a", False, True]


@pytest.mark.parametrize("name", ["on_chunk", "on_progress"])
async def test_a_function_that_fails_closes_the_stream_and_its_error_is_raised(name: str) -> None:
    def fails(_: object) -> None:
        raise LookupError("no window to draw in")

    async def fails_later(_: object) -> None:
        await asyncio.sleep(0)
        fails(_)

    for function in (fails, fails_later):
        items = Items("a", "b")
        callbacks: dict[str, Any] = {name: function}
        with pytest.raises(LookupError):
            await drained(with_callbacks(items, **callbacks))
        assert items.closed
        assert items.items == ["b"]


async def test_progress_counts_what_passed() -> None:
    told: list[Progress] = []
    text = "From 55, and from 2028 from 57. "
    await drained(with_callbacks(Items(text, text), on_progress=told.append, interval=0, clock=StepClock()))
    assert [(progress.chunks, progress.characters, progress.finished) for progress in told] == [
        (1, len(text), False),
        (2, 2 * len(text), False),
        (2, 2 * len(text), True),
    ]
    assert [progress.tokens for progress in told] == [estimate_tokens(text), *[estimate_tokens(2 * text)] * 2]
    assert all(progress.estimated for progress in told)
    assert [progress.elapsed for progress in told] == [1.0, 2.0, 3.0]
    assert [progress.first_token for progress in told] == [1.0, 1.0, 1.0]
    assert [progress.tokens_per_second for progress in told] == [None, told[1].tokens / 1.0, told[2].tokens / 2.0]


@settings(deadline=None)
@given(text=st.text(min_size=1, max_size=5))
@example(text=" ")
def test_content_is_never_no_tokens(text: str) -> None:
    told: list[Progress] = []
    asyncio.run(_watch(text, told))
    assert all(progress.tokens >= 1 for progress in told)
    assert len(told) == 2


async def _watch(text: str, told: list[Progress]) -> None:
    await drained(with_callbacks(Items(text), on_progress=told.append, interval=0))


async def test_the_providers_count_takes_the_place_of_the_estimate_when_it_is_final() -> None:
    told: list[Progress] = []
    deltas = Items(
        Delta(usage=Usage(input_tokens=9, output_tokens=1, estimated=True), pieces=0),
        Delta(text="From 55, normally.", pieces=3),
        Delta(finish_reason="stop", usage=Usage(input_tokens=9, output_tokens=42), pieces=0),
    )
    await drained(with_callbacks(deltas, on_progress=told.append, interval=0))
    assert [(progress.tokens, progress.estimated, progress.chunks) for progress in told] == [
        (estimate_tokens("From 55, normally."), True, 3),
        (42, False, 3),
        (42, False, 3),
    ]


async def test_a_provider_that_counts_nothing_is_not_believed() -> None:
    told: list[Progress] = []
    deltas = Items(Delta(text="From 55."), Delta(usage=Usage(input_tokens=9), finish_reason="stop", pieces=0))
    await drained(with_callbacks(deltas, on_progress=told.append))
    assert (told[-1].tokens, told[-1].estimated) == (estimate_tokens("From 55."), True)


async def test_reasoning_and_tool_calls_are_output_but_no_text_for_the_customer() -> None:
    told: list[Progress] = []
    deltas = Items(
        Delta(reasoning="Age first."), Delta(tool_call=ToolCallDelta(0, "1", "figures", "{}")), Delta(text="55.")
    )
    await drained(with_callbacks(deltas, on_progress=told.append))
    assert (told[-1].characters, told[-1].chunks) == (3, 3)
    assert told[-1].tokens >= estimate_tokens("Age first.") + estimate_tokens("55.")
    assert told[0].first_token is not None


async def test_progress_is_told_at_most_once_in_an_interval_and_always_at_the_end() -> None:
    told: list[Progress] = []
    items = Items(*"abcdefghij")
    await drained(with_callbacks(items, on_progress=told.append, interval=4.0, clock=StepClock()))
    assert [progress.chunks for progress in told] == [1, 5, 9, 10]


async def test_an_empty_stream_is_no_tokens() -> None:
    told: list[Progress] = []
    await drained(with_callbacks(Items(), on_progress=told.append))
    assert [(progress.tokens, progress.first_token, progress.finished) for progress in told] == [(0, None, True)]


async def test_no_end_is_told_of_a_stream_that_fails_or_is_left() -> None:
    told: list[Progress] = []
    with pytest.raises(MidStreamError):
        await drained(with_callbacks(Items("a", MidStreamError("broken")), on_progress=told.append))
    async with with_callbacks(Items("a", "b"), on_progress=told.append) as stream:
        await anext(stream)
    assert [progress.finished for progress in told] == [False, False]


# Collecting


@settings(deadline=None)
@given(chunks=st.lists(st.text(max_size=9), max_size=20))
def test_a_collected_stream_is_its_whole_text(chunks: list[str]) -> None:
    async def read() -> str:
        return await collect(Items(*chunks))

    assert asyncio.run(read()) == "".join(chunks)


async def test_collecting_closes_the_stream_also_when_it_fails() -> None:
    for items in (Items("a"), Items("a", MidStreamError("broken"))):
        try:
            await collect(items)
        except MidStreamError:
            assert not items.items
        assert items.closed


STARTED: dict[str, Any] = {"turn_id": "turn_1", "sequence": 1}
TEXT = TextDelta(**STARTED, text="From 55.", start=0, end=8)
DONE = Completed(
    **STARTED,
    text="From 55.",
    finish_reason="stop",
    usage=Usage(output_tokens=7),
    timing=TurnTiming(),
    cost_usd=None,
    cache_outcome="hit",
    simulated=True,
)
BROKEN = Failed(**STARTED, error="ModelTimeoutError", message="The provider was silent for 20 s.")

TOOLS: dict[str, Callable[[Any], Any]] = {
    "collect": collect,
    "rechunk": lambda stream: drained(rechunk(stream, words=1)),
    "rechunk without a task": lambda stream: drained(rechunk(stream, words=1, max_delay=None)),
    "watched": lambda stream: collect(with_callbacks(stream)),
}


@pytest.mark.parametrize("tool", TOOLS)
async def test_events_are_the_text_of_their_turn(tool: str) -> None:
    judged = Judged(**STARTED, verdict_id="v", verdict={})
    for events in ([TEXT, DONE], [TEXT, DONE, judged]):
        assert "".join(await TOOLS[tool](Items(*events))) == "From 55."


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("events", "said"),
    [([TEXT, BROKEN], "ModelTimeoutError"), ([TEXT], "closed before"), ([BROKEN], "silent for 20 s")],
)
async def test_a_turn_that_did_not_complete_is_not_taken_for_an_answer(
    tool: str, events: list[Event], said: str
) -> None:
    with pytest.raises(MidStreamError, match=said):
        await TOOLS[tool](Items(*events))


@pytest.mark.parametrize("tool", TOOLS)
async def test_the_turns_own_exception_is_raised_where_it_keeps_one(tool: str) -> None:
    @dataclass
    class Turn(Items):
        def __init__(self, *items: Any) -> None:
            super().__init__(*items)
            self.exception = GuidanceAgentError("what happened")

    with pytest.raises(GuidanceAgentError, match="what happened"):
        await TOOLS[tool](Turn(TEXT, BROKEN))


async def test_the_tokens_of_a_turn_are_reported_at_its_end() -> None:
    told: list[Progress] = []
    await drained(with_callbacks(Items(TEXT, DONE), on_progress=told.append))
    assert (told[-1].tokens, told[-1].estimated, told[-1].characters) == (7, False, 8)

"""The stream tools on the advisor's text and events, and the synchronous calls against the asynchronous ones."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import AdvisorAgent, CustomerProfile, Event, Runtime, Settings
from guidance_agent.core.schema import turns
from guidance_agent.errors import ModelError
from guidance_agent.llm import Progress, collect, iterate_sync, partial_text, rechunk, to_file, with_callbacks
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.advisor.wiring import author_fails, author_requests, closed_by_client, endless, wired_settings


def customers(janet: CustomerProfile) -> Any:
    """Yield customers who differ in nothing but their id, so that all get the same answer."""
    return (janet.model_copy(update={"customer_id": f"same-{number}"}) for number in range(1_000))


@pytest.fixture
async def watched() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


async def state_of(runtime: Runtime) -> tuple[str, int]:
    query = sa.select(turns.c.state, turns.c.delivered_length).order_by(turns.c.started_at.desc()).limit(1)
    row = await runtime.database.run(lambda connection: connection.execute(query).one())
    return row.state, row.delivered_length


async def test_every_tool_gives_the_text_of_the_answer(
    advisor: AdvisorAgent, janet: CustomerProfile, tmp_path: Path
) -> None:
    same = customers(janet)
    text = await advisor.provide_guidance(next(same))
    assert await collect(advisor.provide_guidance_stream(next(same))) == text
    assert await collect(rechunk(advisor.provide_guidance_stream(next(same)), sentences=1)) == text
    assert await collect(with_callbacks(advisor.provide_guidance_stream(next(same)))) == text
    written = await to_file(advisor.provide_guidance_stream(next(same)), tmp_path / "a.txt")
    assert written.path.read_text() == text
    async with advisor.consult(next(same)) as turn:
        assert await collect(turn) == text
    async with advisor.consult(next(same)) as turn:
        assert "".join([piece async for piece in rechunk(turn, words=3)]) == text
    async with advisor.consult(next(same)) as turn:
        seen: list[Event] = []
        assert await collect(with_callbacks(turn, on_chunk=seen.append)) == text
        assert type(seen[-1]).__name__ == "Completed"
    assert await collect(advisor.events(turn.turn_id)) == text


async def test_the_progress_of_a_turn_ends_with_the_reported_tokens(
    advisor: AdvisorAgent, janet: CustomerProfile
) -> None:
    told: list[Progress] = []
    async with advisor.consult(janet) as turn:
        text = await collect(with_callbacks(turn, on_progress=told.append))
    assert (told[-1].characters, told[-1].estimated) == (len(text), False)
    assert told[-1].tokens > 0


FAILING: Mapping[str, Callable[[AdvisorAgent, CustomerProfile], Any]] = {
    "text": lambda advisor, customer: advisor.provide_guidance_stream(customer),
    "words": lambda advisor, customer: rechunk(advisor.provide_guidance_stream(customer), words=2),
    "watched": lambda advisor, customer: with_callbacks(advisor.provide_guidance_stream(customer)),
}


@pytest.mark.parametrize("stream", FAILING)
async def test_a_turn_that_breaks_off_is_an_error_and_its_text_is_kept(
    stream: str, watched: ProviderSimulator, janet: CustomerProfile, tmp_path: Path
) -> None:
    author_fails(watched, "anthropic", kind="truncate", after_chunks=20, times=None)
    settings = wired_settings(watched, "anthropic", tmp_path / "data")
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        with pytest.raises(ModelError):
            await to_file(FAILING[stream](advisor, janet), tmp_path / "a.txt")
        assert len(await partial_text(tmp_path / "a.txt")) == (await state_of(runtime))[1] > 0
        async with advisor.consult(janet) as turn:
            with pytest.raises(ModelError) as caught:
                await collect(turn)
        assert caught.value is turn.exception
        with pytest.raises(ModelError, match=type(turn.exception).__name__):
            await collect(advisor.events(turn.turn_id))


@pytest.mark.parametrize("stream", FAILING)
async def test_leaving_a_tool_early_ends_the_turn_and_closes_the_socket(
    stream: str, watched: ProviderSimulator, janet: CustomerProfile, tmp_path: Path
) -> None:
    endless(watched, "anthropic")
    settings = wired_settings(watched, "anthropic", tmp_path / "data")
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        delivered = ""
        async for piece in FAILING[stream](advisor, janet):
            delivered += piece
            if len(delivered) > 100:
                break
        gc.collect()
        await closed_by_client(author_requests(watched, "anthropic")[-1], within=0.5)
        async with asyncio.timeout(5):
            while (await state_of(runtime))[0] == "streaming":  # noqa: ASYNC110 - the records are what is polled
                await asyncio.sleep(0.01)
        state, length = await state_of(runtime)
    assert state == "closed_early"
    # A piece that was held counts as delivered: the turn cannot know what becomes of it.
    assert length >= len(delivered)
    if stream != "words":
        assert length == len(delivered)


def test_the_synchronous_calls_give_what_the_asynchronous_ones_give(tmp_path: Path, janet: CustomerProfile) -> None:
    same = customers(janet)
    settings = Settings.load(data_dir=tmp_path / "data", simulator="instant", background=False)

    async def asked() -> tuple[str, list[str]]:
        async with AdvisorAgent(settings=settings) as advisor:
            text = await advisor.provide_guidance(next(same), [], False)
            async with advisor.consult(next(same), [], False) as turn:
                return text, [type(event).__name__ async for event in turn if type(event).__name__ != "TextDelta"]

    text, events = asyncio.run(asked())
    assert len(text) > 100
    for reasoning in (False, True):
        assert AdvisorAgent(settings=settings).provide_guidance_sync(next(same), [], reasoning) == text
        assert "".join(AdvisorAgent(settings=settings).stream_sync(next(same), [], reasoning)) == text
    advisor = AdvisorAgent(settings=settings)
    pieces = iterate_sync(lambda: advisor.provide_guidance_stream(next(same), [], False), owner=advisor)
    assert "".join(pieces) == text
    turn = iterate_sync(lambda: opened(advisor, next(same)), owner=advisor)
    assert [type(event).__name__ for event in turn if type(event).__name__ != "TextDelta"] == events
    words = iterate_sync(
        lambda: rechunk(advisor.provide_guidance_stream(next(same), [], False), words=3), owner=advisor
    )
    assert "".join(words) == text
    assert asyncio.run(states(settings)) == {"completed"}


async def opened(advisor: AdvisorAgent, customer: CustomerProfile) -> AsyncIterator[Event]:
    async with advisor.consult(customer, [], False) as turn:
        async for event in turn:
            yield event


async def states(settings: Settings) -> set[str]:
    async with Runtime(settings, environ={}) as runtime:
        query = sa.select(turns.c.state)
        return set(await runtime.database.run(lambda connection: connection.execute(query).scalars().all()))

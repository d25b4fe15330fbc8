"""The example backend over real HTTP: ask, stream, leave in mid-answer, come back, stop, sign off."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest_asyncio

from guidance_agent import Runtime, Settings
from guidance_agent.provider_simulator import Fault, Script
from tests.integration.advisor.wiring import author_requests, author_says, closed_by_client, endless
from tests.integration.examples.conftest import ROOT, Backend

WIRE = "anthropic"


class SentEvent(NamedTuple):
    """A server-sent event as a browser reads it."""

    type: str
    id: int | None
    data: dict[str, Any]


class Browser:
    """A client with a cookie that asks and follows as the page does."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def ask(self, text: str, **more: str) -> str:
        async with self.session.post(f"{self.url}/turns", json={"text": text, **more}) as response:
            assert response.status == 200, await response.text()
            turn_id: str = (await response.json())["turn_id"]
            return turn_id

    async def follow(self, turn_id: str, last: int | None = None) -> AsyncIterator[SentEvent]:
        headers = {} if last is None else {"last-event-id": str(last)}
        async with self.session.get(f"{self.url}/turns/{turn_id}", headers=headers) as response:
            assert response.content_type == "text/event-stream"
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif fields.get("event"):
                    number = int(fields["id"]) if "id" in fields else None
                    yield SentEvent(fields["event"], number, json.loads(fields["data"]))
                    fields = {}


@pytest_asyncio.fixture
async def browser(backend: Backend) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(backend.url) as response:
            assert "Pension guidance" in await response.text()
        yield Browser(backend.url, session)


def text_of(events: list[SentEvent]) -> str:
    return "".join(event.data["text"] for event in events if event.type == "text_delta")


async def test_an_answer_streams_to_its_end(backend: Backend, browser: Browser) -> None:
    author_says(backend.simulator, WIRE, Script(chunks=40, interval_ms=5))
    events = [event async for event in browser.follow(await browser.ask("What is drawdown?"))]
    assert [event.type for event in (events[0], *events[-2:])] == ["turn_started", "completed", "end"]
    assert [event.id for event in events[:-1]] == list(range(len(events) - 1))
    assert sum(event.type == "text_delta" for event in events) > 5
    assert text_of(events)


async def test_a_client_that_left_in_mid_answer_comes_back_for_the_rest(backend: Backend, browser: Browser) -> None:
    author_says(backend.simulator, WIRE, Script(chunks=100, interval_ms=10))
    turn_id = await browser.ask("What is drawdown?")
    first: list[SentEvent] = []
    async for event in (stream := browser.follow(turn_id)):
        first.append(event)
        if len(first) == 6:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    rest = [event async for event in browser.follow(turn_id, last=first[-1].id)]
    whole = [event async for event in browser.follow(turn_id)]
    assert first + rest == whole
    assert rest[-2].type == "completed"
    assert len(author_requests(backend.simulator, WIRE)) == 1


async def test_the_next_question_continues_the_conversation(backend: Backend, browser: Browser) -> None:
    first = [event async for event in browser.follow(await browser.ask("What is drawdown?"))]
    consultation = first[0].data["consultation_id"]
    second = [event async for event in browser.follow(await browser.ask("And tax?", consultation_id=consultation))]
    assert second[0].data["consultation_id"] == consultation
    body = author_requests(backend.simulator, WIRE)[-1].body
    assert body is not None
    assert text_of(first) in json.dumps(body, ensure_ascii=False).replace("\\n", "\n")


async def test_stopping_closes_the_providers_socket(backend: Backend, browser: Browser) -> None:
    endless(backend.simulator, WIRE)
    turn_id = await browser.ask("What is drawdown?")
    stream = browser.follow(turn_id)
    seen = [await anext(stream), await anext(stream)]
    async with browser.session.delete(f"{backend.url}/turns/{turn_id}") as response:
        assert await response.json() == {"stopped": True}
    await closed_by_client(author_requests(backend.simulator, WIRE)[0], within=0.5)
    seen += [event async for event in stream]
    assert seen[-1].type == "end"
    assert "completed" not in {event.type for event in seen}


async def test_nobody_follows_or_stops_the_turn_of_another(backend: Backend, browser: Browser) -> None:
    endless(backend.simulator, WIRE)
    turn_id = await browser.ask("What is drawdown?")
    async with aiohttp.ClientSession(cookies={"customer": "somebody-else"}) as session:
        stranger = Browser(backend.url, session)
        assert [event.type async for event in stranger.follow(turn_id)] == ["end"]
        async with session.delete(f"{backend.url}/turns/{turn_id}") as response:
            assert await response.json() == {"stopped": False}
    async with browser.session.delete(f"{backend.url}/turns/{turn_id}") as response:
        assert await response.json() == {"stopped": True}


async def test_a_question_that_is_none_is_refused(backend: Backend, browser: Browser) -> None:
    bodies: list[dict[str, object]] = [{}, {"text": ""}, {"text": 7}, {"text": "  "}, {"text": "a\x00b"}]
    for body in bodies:
        async with browser.session.post(f"{backend.url}/turns", json=body) as response:
            assert response.status == 422, body
    assert not author_requests(backend.simulator, WIRE)


async def test_a_failed_answer_tells_the_customer_nothing_of_its_cause(backend: Backend, browser: Browser) -> None:
    backend.simulator.faults.add(Fault(kind="truncate", after_chunks=3, times=None))
    events = [event async for event in browser.follow(await browser.ask("What is drawdown?"))]
    assert [event.type for event in events[-2:]] == ["failed", "end"]
    assert events[-2].data == {}


async def test_a_server_that_is_told_to_stop_records_what_could_be_read(backend: Backend, browser: Browser) -> None:
    endless(backend.simulator, WIRE)
    turn_id = await browser.ask("What is drawdown?")
    seen: list[SentEvent] = []
    async for event in (stream := browser.follow(turn_id)):
        seen.append(event)
        if event.type == "text_delta":
            break
    await stream.aclose()  # type: ignore[attr-defined]
    backend.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        await backend.process.wait()
    settings = Settings.load(data_dir=backend.data_dir, simulator="instant", background=False)
    async with Runtime(settings) as runtime:
        row = await runtime.records.turn(turn_id)
        text = await runtime.records.text(turn_id)
    assert row is not None
    assert row["state"] == "closed_early"
    assert row["judgement"] == "pending"
    assert row["delivered_length"] == len(text)
    assert text.startswith(text_of(seen))


def test_the_example_fits_on_a_page() -> None:
    lines = Path(ROOT, "examples", "fastapi_chat.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80

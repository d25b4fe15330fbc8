"""A simulator in this process, one in a process of its own, and a client that shows every byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from guidance_agent.provider_simulator import (
    ManualClock,
    ProviderSimulator,
    ProviderSimulatorProcess,
    SimulatorSettings,
)
from tests.integration.simulator.batching import BatchClient

ANTHROPIC_PATH = "/v1/messages"
OPENAI_PATH = "/v1/chat/completions"


@dataclass(slots=True)
class Reply:
    """A response with its server-sent events taken apart: name (empty on OpenAI) and data."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    events: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def text(self) -> str:
        """The answer's text, from either wire, streamed or not."""
        if not self.events:
            body = self.json
            if "choices" in body:
                return str(body["choices"][0]["message"]["content"])
            return "".join(block.get("text", "") for block in body["content"])
        pieces = []
        for _, data in self.events:
            if data == "[DONE]":
                continue
            if data.get("type") == "content_block_delta":
                pieces.append(data["delta"].get("text", ""))
            elif data.get("choices"):
                pieces.append(data["choices"][0]["delta"].get("content") or "")
        return "".join(pieces)

    @property
    def usage(self) -> dict[str, Any]:
        """The last usage object that the answer carries, joined with the first on the Anthropic wire."""
        if not self.events:
            return dict(self.json["usage"])
        found: dict[str, Any] = {}
        for _, data in self.events:
            if data == "[DONE]":
                continue
            found |= (data.get("message") or {}).get("usage") or {}
            found |= data.get("usage") or {}
        return found


def events_of(raw: bytes) -> list[tuple[str, Any]]:
    events = []
    for block in raw.decode().replace("\r\n", "\n").split("\n\n"):
        name, data = "", None
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
        if data is not None:
            events.append((name, data if data == "[DONE]" or not data.startswith("{") else json.loads(data)))
    return events


async def eventually(check: Callable[[], bool], *, within: float = 5.0) -> float:
    """Wait until `check` holds; returns the seconds it took, and fails when they are more than `within`."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        if check():
            return loop.time() - started
        if loop.time() - started > within:
            raise AssertionError(f"not so within {within} s")
        await asyncio.sleep(0.001)


class Client:
    """Plain HTTP against a simulator."""

    def __init__(self, session: aiohttp.ClientSession, simulator: ProviderSimulator) -> None:
        self.session = session
        self.simulator = simulator

    async def post(
        self, path: str, body: Mapping[str, Any], *, key: str = "key-1", headers: Mapping[str, str] | None = None
    ) -> Reply:
        sent = {"x-api-key": key} if path == ANTHROPIC_PATH else {"authorization": f"Bearer {key}"}
        url = self.simulator.base_url + path
        async with self.session.post(url, json=body, headers={**sent, **(headers or {})}) as response:
            raw = await response.read()
        streamed = response.content_type == "text/event-stream"
        return Reply(response.status, response.headers, raw, events_of(raw) if streamed else [])

    async def anthropic(self, *, headers: Mapping[str, str] | None = None, key: str = "key-1", **body: Any) -> Reply:
        defaults = {
            "model": "claude-sonnet-5-5",
            "max_tokens": 1_000,
            "messages": [{"role": "user", "content": "Can I take my pension as a lump sum?"}],
        }
        return await self.post(ANTHROPIC_PATH, defaults | body, key=key, headers=headers)

    async def openai(self, *, headers: Mapping[str, str] | None = None, key: str = "key-1", **body: Any) -> Reply:
        defaults = {
            "model": "gpt-6-sol",
            "messages": [{"role": "user", "content": "Can I take my pension as a lump sum?"}],
        }
        return await self.post(OPENAI_PATH, defaults | body, key=key, headers=headers)


@pytest.fixture
def simulator_settings() -> SimulatorSettings:
    return SimulatorSettings.instant(seed=7)


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def simulator(simulator_settings: SimulatorSettings) -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(simulator_settings) as running:
        yield running


@pytest_asyncio.fixture
async def client(simulator: ProviderSimulator) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, simulator)


@pytest_asyncio.fixture
async def timed(simulator_settings: SimulatorSettings, manual_clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a simulator whose clock the test moves."""
    async with (
        ProviderSimulator(simulator_settings, clock=manual_clock) as running,
        aiohttp.ClientSession() as session,
    ):
        yield Client(session, running)


@pytest.fixture(scope="module")
def process() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--instant", "--seed", "7"]) as running:
        yield running


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Real responses of providers; they are read, never copied."""
    folder = Path(__file__).parents[4] / "shared" / "recordings"
    if not folder.is_dir():
        pytest.skip("the recorded provider responses are not beside this checkout")
    return folder


@pytest_asyncio.fixture
async def batches(simulator: ProviderSimulator) -> AsyncIterator[BatchClient]:
    """Files and batches of a simulator that works everything off at once."""
    async with aiohttp.ClientSession() as session:
        yield BatchClient(session, simulator)


@pytest_asyncio.fixture
async def timed_batches(manual_clock: ManualClock) -> AsyncIterator[BatchClient]:
    """A day is a day: batches take 640 seconds, ten for each wave, on a clock that the test moves."""
    settings = SimulatorSettings.instant(seed=7).but(batch_window=86_400.0, batch_duration=640.0)
    async with (
        ProviderSimulator(settings, clock=manual_clock) as running,
        aiohttp.ClientSession() as session,
    ):
        yield BatchClient(session, running, settles=True)

"""What the simulator notices when a client leaves, and what it holds open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

from guidance_agent.provider_simulator import Fault, ProviderSimulator, ProviderSimulatorProcess, SimulatorSettings
from tests.integration.simulator.conftest import Client, eventually

PACED = {"x-simulator-script": '{"chunks": 500, "interval_ms": 20}'}


async def closed_within(client: Client, seconds: float) -> float:
    """Seconds until the log says that the client of the last request left."""
    return await eventually(lambda: client.simulator.requests[-1].client_closed_at is not None, within=seconds)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("state", ["paced", "stalled", "before_headers"])
async def test_a_client_that_leaves_is_noticed_within_half_a_second(client: Client, path: str, state: str) -> None:
    if state == "stalled":
        client.simulator.faults.add(Fault(kind="stall", after_chunks=2))
    if state == "before_headers":
        client.simulator.faults.add(Fault(kind="slow_headers"))
    model = "claude-sonnet-5-5" if path == "/v1/messages" else "gpt-6-sol"
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 900,
        "stream": True,
        "messages": [{"role": "user", "content": "Lump sum?"}],
    }
    headers = {"x-api-key": "k", "authorization": "Bearer k", **(PACED if state == "paced" else {})}

    async def read() -> None:
        async with client.session.post(client.simulator.base_url + path, json=body, headers=headers) as response:
            await response.content.readany()
            started.set()
            while await response.content.readany():
                pass

    started = asyncio.Event()
    task = asyncio.create_task(read())
    if state == "before_headers":
        log = client.simulator.requests
        await eventually(lambda: len(log) > 0 and log[-1].fault is not None)
    else:
        await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await closed_within(client, 0.5) < 0.5
    assert client.simulator.requests[-1].finished is False


async def test_a_whole_answer_that_is_not_waited_for_is_noticed(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="stall"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.anthropic()
    assert await closed_within(client, 0.5) < 0.5


async def test_a_finished_stream_is_no_early_close(client: Client) -> None:
    await client.anthropic(stream=True)
    await client.session.close()
    await asyncio.sleep(0)
    record = client.simulator.requests[-1]
    assert record.finished is True
    assert record.client_closed_at is None


async def test_a_slow_reader_is_waited_for(client: Client) -> None:
    url = f"{client.simulator.base_url}/v1/messages"
    body: dict[str, Any] = {
        "model": "script-bytes-8000000",
        "max_tokens": 5,
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
    }
    async with client.session.post(url, json=body, headers={"x-api-key": "k"}) as response:
        await response.content.readany()
        sent = -1
        while sent != client.simulator.requests[-1].bytes_sent:
            sent = client.simulator.requests[-1].bytes_sent
            await asyncio.sleep(0.05)
        assert sent < 7_000_000
        received = 0
        while data := await response.content.readany():
            received += len(data)
    assert received > 7_000_000
    assert client.simulator.requests[-1].finished is True


async def test_leaving_the_block_ends_streams_and_frees_the_port() -> None:
    async with aiohttp.ClientSession() as session:
        async with ProviderSimulator(SimulatorSettings.instant()) as simulator:
            simulator.faults.add(Fault(kind="stall", after_chunks=1))
            client = Client(session, simulator)
            pending = asyncio.create_task(client.anthropic(stream=True))
            log = simulator.requests
            await eventually(lambda: len(log) > 0 and log[-1].first_byte_at is not None)
            port = int(simulator.base_url.rsplit(":", 1)[1])
        with pytest.raises(aiohttp.ClientError):
            await pending
        assert simulator.requests[-1].client_closed_at is None
        async with ProviderSimulator(SimulatorSettings.instant().but(port=port)) as again:
            assert again.base_url == simulator.base_url
            assert (await Client(session, again).anthropic()).status == 200


def test_it_listens_on_the_loopback_address_only(process: ProviderSimulatorProcess) -> None:
    listeners = [c for c in psutil.Process(process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [listener.laddr.ip for listener in listeners] == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "192.168.1.1"])  # noqa: S104
def test_any_other_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 only"):
        SimulatorSettings(host=host)


@pytest_asyncio.fixture
async def busy() -> AsyncIterator[Client]:
    async with (
        ProviderSimulator(SimulatorSettings.instant()) as running,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Client(session, running)


async def test_nothing_in_it_blocks_the_event_loop(tmp_path: Path) -> None:
    settings = SimulatorSettings.instant().but(state_path=tmp_path / "state.json")
    async with aiohttp.ClientSession() as session:
        with blockbuster_ctx("guidance_agent.provider_simulator"):
            async with ProviderSimulator(settings) as running:
                client = Client(session, running)
                assert (await client.anthropic(stream=True)).text
                assert (await client.openai(stream=True)).text
                embedded = await client.post("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"})
                assert embedded.status == 200


async def test_many_paced_streams_keep_their_schedule(busy: Client) -> None:
    replies = await asyncio.gather(*(busy.anthropic(stream=True, model="script-20x10") for _ in range(50)))
    assert all(len(reply.events) >= 24 for reply in replies)
    for record in busy.simulator.requests:
        assert record.ended_at is not None
        # The last chunk is due 200 ms after the request, however many streams there are; nothing comes before.
        assert record.ended_at - record.received_at >= 0.199

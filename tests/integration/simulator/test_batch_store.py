"""Files and batches outlive their process: ended, killed, or one of two."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from guidance_agent.provider_simulator import (
    ManualClock,
    ProviderSimulator,
    ProviderSimulatorProcess,
    SimulatorSettings,
)
from tests.integration.simulator.batching import BatchClient, chat_body, jsonl, lines, requests

WIRES = ("anthropic", "openai")


@asynccontextmanager
async def opened(path: Path, clock: ManualClock | None = None, **changes: object) -> AsyncIterator[BatchClient]:
    settings = SimulatorSettings.instant(seed=7).but(state_path=path / "state.json", **changes)
    async with ProviderSimulator(settings, clock=clock) as running, aiohttp.ClientSession() as session:
        yield BatchClient(session, running, settles=clock is not None)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_batch_goes_on_where_an_earlier_simulator_stopped(
    tmp_path: Path, manual_clock: ManualClock, wire: str
) -> None:
    times = {"batch_duration": 640.0, "batch_window": 86_400.0}
    async with opened(tmp_path, manual_clock, **times) as client:
        batch = await (client.submit_messages(requests(40)) if wire == "anthropic" else client.submit(lines(40)))
        manual_clock.advance(320)
        await client.look(batch)
    manual_clock.advance(400)
    async with opened(tmp_path, manual_clock, **times) as client:
        ended = await client.until(batch)
        rows = await client.rows(ended)
        assert sorted(row["custom_id"] for row in rows) == sorted(f"item-{number}" for number in range(40))
        costs = (await client.control("GET", "costs"))["batch"]
        assert (costs["answered"], costs["batches"]) == (40, 1)
        if wire == "anthropic":
            assert ended["results_url"].startswith(client.simulator.base_url)


async def test_a_batch_is_answered_although_no_simulator_ran_in_its_window(
    tmp_path: Path, manual_clock: ManualClock
) -> None:
    async with opened(tmp_path, manual_clock, batch_duration=60.0) as client:
        batch = await client.submit(lines(5))
    manual_clock.advance(43_200)
    async with opened(tmp_path, manual_clock, batch_duration=60.0) as client:
        ended = await client.until(batch)
        assert (ended["status"], ended["request_counts"]["completed"]) == ("completed", 5)
        assert ended["completed_at"] <= ended["expires_at"]


async def test_cache_entries_of_batches_outlive_the_simulator(tmp_path: Path) -> None:
    long = "Guidance explains the options and their risks without a steer. " * 90
    marked = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    reads = []
    for _ in range(2):
        async with opened(tmp_path, batch_cache_miss_rate=0.0) as client:
            batch = await client.submit_messages(requests(1, system=marked))
            await client.until(batch)
            (row,) = await client.rows(batch)
            reads.append(row["result"]["message"]["usage"]["cache_read_input_tokens"])
    assert reads[0] == 0 < 900 < reads[1]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_killed_process_leaves_its_batch_to_the_next_one(tmp_path: Path, wire: str) -> None:
    arguments = ["--instant", "--state", str(tmp_path / "state.json"), "--batch-duration", "1.5"]
    count = 300
    async with aiohttp.ClientSession() as session:
        with ProviderSimulatorProcess(arguments) as first:
            client = BatchClient(session, first)
            batch = await (
                client.submit_messages(requests(count)) if wire == "anthropic" else client.submit(lines(count))
            )
            os.kill(first.pid, signal.SIGKILL)
        with ProviderSimulatorProcess(arguments) as second:
            client = BatchClient(session, second)
            rows = await client.rows(await client.until(batch))
    assert sorted(row["custom_id"] for row in rows) == sorted(f"item-{number}" for number in range(count))


async def test_two_processes_with_one_folder_share_their_batches(tmp_path: Path) -> None:
    arguments = ["--instant", "--state", str(tmp_path / "state.json"), "--batch-duration", "0.5"]
    with ProviderSimulatorProcess(arguments) as one, ProviderSimulatorProcess(arguments) as two:
        async with aiohttp.ClientSession() as session:
            clients = [BatchClient(session, process) for process in (one, two)]
            made = await asyncio.gather(*(client.submit(lines(100)) for client in clients for _ in range(3)))
            made += await asyncio.gather(*(client.submit_messages(requests(100)) for client in clients))
            for position, batch in enumerate(made):
                client = clients[position % 2]
                rows = await client.rows(await client.until(batch))
                assert len({row["custom_id"] for row in rows}) == len(rows) == 100
            costs = [(await client.control("GET", "costs"))["batch"] for client in clients]
    assert costs[0] == costs[1]
    assert (costs[0]["answered"], costs[0]["batches"]) == (800, 8)
    with sqlite3.connect(tmp_path / "state.batches.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_without_a_state_file_nothing_is_kept(tmp_path: Path, batches: BatchClient) -> None:
    await batches.until(await batches.submit(lines(2)))
    assert os.listdir(tmp_path) == []


async def test_a_simulator_without_batches_makes_no_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        await client.call("openai", "POST", "/v1/chat/completions", json=chat_body())
    assert os.listdir(tmp_path) == ["state.json"]


async def test_a_damaged_database_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.batches.sqlite3"
    path.write_bytes(b"no database, " * 100)
    async with opened(tmp_path) as client:
        assert (await client.until(await client.submit(lines(1))))["status"] == "completed"
    assert (tmp_path / "state.batches.sqlite3.damaged").read_bytes().startswith(b"no database")
    assert "is no database of batches" in caplog.text


async def test_an_upload_that_was_never_finished_is_not_seen_and_forgotten(
    tmp_path: Path, manual_clock: ManualClock
) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        yield jsonl(lines(4_000))
        raise ConnectionResetError("the client is gone")

    headers = {"content-type": "multipart/form-data; boundary=x"}
    async with opened(tmp_path, manual_clock) as client:
        with pytest.raises(aiohttp.ClientError):
            await client.session.post(
                f"{client.simulator.base_url}/v1/files",
                data=half(),
                headers={**headers, "authorization": "Bearer key-1"},
            )
        assert (await client.call("openai", "GET", "/v1/files"))[1]["data"] == []
    manual_clock.advance(3_700)
    async with opened(tmp_path, manual_clock) as client:
        await client.upload(lines(1))
    with sqlite3.connect(tmp_path / "state.batches.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (1,)
    connection.close()


async def test_files_whose_time_is_over_are_forgotten(tmp_path: Path, manual_clock: ManualClock) -> None:
    async with opened(tmp_path, manual_clock) as client:
        await client.until(await client.submit(lines(2)))
        await client.until(await client.submit_messages(requests(2)))
    manual_clock.advance(31 * 86_400)
    async with opened(tmp_path, manual_clock) as client:
        assert (await client.call("openai", "GET", "/v1/files"))[1]["data"] == []
        assert len((await client.control("GET", "batches"))["batches"]) == 2
    with sqlite3.connect(tmp_path / "state.batches.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    connection.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("wire", WIRES)
async def test_twenty_thousand_requests_take_bounded_memory(tmp_path: Path, wire: str) -> None:
    count = 20_000
    arguments = ["--instant", "--no-bodies", "--state", str(tmp_path / "state.json"), "--batch-duration", "0"]
    body = chat_body("What does this mean for my pension? " * 60, model="script-bytes-400")
    asked = jsonl([body]).strip()

    def row(number: int) -> bytes:
        if wire == "openai":
            return b'{"custom_id": "item-%d", "method": "POST", "url": "/v1/chat/completions", "body": %b}\n' % (
                number,
                asked,
            )
        return b'%b{"custom_id": "item-%d", "params": %b}' % (b"," if number else b"", number, asked)

    async def sent() -> AsyncIterator[bytes]:
        for start in range(0, count, 500):
            yield b"".join(row(number) for number in range(start, start + 500))

    async def envelope() -> AsyncIterator[bytes]:
        yield b'{"requests": ['
        async for piece in sent():
            yield piece
        yield b"]}"

    with ProviderSimulatorProcess(arguments) as service:
        process = psutil.Process(service.pid)
        async with aiohttp.ClientSession() as session:
            client = BatchClient(session, service)
            await client.until(await client.submit(lines(20, model="script-bytes-400")))
            before = process.memory_info().rss
            if wire == "anthropic":
                _, batch = await client.call("anthropic", "POST", "/v1/messages/batches", data=envelope())
            else:
                batch = await client.submit(b"".join([piece async for piece in sent()]))
            ended = await client.until(batch, within=200, every=0.2)
            found = {row["custom_id"] for row in await client.rows(ended)}
            grown = process.memory_info().rss - before
    assert len(found) == count
    # The requests alone are 45 MB, the results 15 MB.
    assert grown < 30_000_000, f"{grown / 1e6:.0f} MB"

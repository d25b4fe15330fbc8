"""Dictated answers and the ways in which the bytes of a stream are cut."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from tests.integration.simulator.conftest import Client

WIRES = ["anthropic", "openai"]
TRICKY = ["A £1,000 cut — ", "naïve café ", "日本語 🎉", " end.\n\nNext."]


def text_events(events: list[tuple[str, Any]]) -> list[str]:
    found = []
    for _, data in events:
        if isinstance(data, dict):
            piece = (data.get("delta") or {}).get("text") or next(
                (c["delta"].get("content") for c in data.get("choices") or ()), None
            )
            if piece:
                found.append(piece)
    return found


@pytest.mark.parametrize("wire", WIRES)
async def test_a_model_name_can_stand_for_so_many_chunks(client: Client, wire: str) -> None:
    ask = client.anthropic if wire == "anthropic" else client.openai
    reply = await ask(model="script-50x1", stream=True)
    assert len(text_events(reply.events)) == 50
    assert client.simulator.requests[-1].text_chunks == 50


@pytest.mark.parametrize("wire", WIRES)
async def test_ten_megabytes_can_be_asked_for(client: Client, wire: str) -> None:
    ask = client.anthropic if wire == "anthropic" else client.openai
    script = json.dumps({"bytes": 10_485_760, "chunk_bytes": 16_384})
    reply = await ask(stream=True, headers={"x-simulator-script": script})
    assert len(reply.text) == 10_485_760


async def test_a_header_dictates_text_thinking_and_the_reason_to_stop(client: Client) -> None:
    script = json.dumps({"pieces": ["One, ", "two."], "reasoning": "Private thoughts.", "stop": "length"})
    reply = await client.anthropic(stream=True, headers={"x-simulator-script": script})
    deltas = [d["delta"] for name, d in reply.events if name == "content_block_delta"]
    assert "".join(d.get("thinking", "") for d in deltas) == "Private thoughts."
    assert text_events(reply.events) == ["One, ", "two."]
    assert next(d for name, d in reply.events if name == "message_delta")["delta"]["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("script", ["{", '{"chunks": -1}', '{"unknown": 1}'])
async def test_what_is_no_script_is_refused(client: Client, script: str) -> None:
    assert (await client.anthropic(headers={"x-simulator-script": script})).status == 400


async def test_a_script_keeps_to_max_tokens_and_stop_sequences(client: Client) -> None:
    client.simulator.faults.script("one two three four five", times=2)
    short = (await client.anthropic(max_tokens=2)).json
    assert (short["content"][0]["text"], short["stop_reason"]) == ("one two", "max_tokens")
    assert short["usage"]["output_tokens"] == 2
    stopped = (await client.anthropic(stop_sequences=["four", "three"])).json
    assert stopped["content"][0]["text"] == "one two "
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "three")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("mode", ["event", "random", "byte"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
async def test_the_cut_of_the_bytes_changes_nothing_else(wire: str, mode: Any, ending: Any) -> None:
    settings = SimulatorSettings.instant(seed=5).but(chunk_mode=mode, line_ending=ending)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        client = Client(session, running)
        running.faults.script(pieces=TRICKY)
        ask = client.anthropic if wire == "anthropic" else client.openai
        reply = await ask(stream=True)
    assert text_events(reply.events) == TRICKY
    assert (b"\r\n" in reply.raw) == (ending == "\r\n")


@pytest.mark.parametrize(("mode", "largest"), [("random", 64), ("byte", 1)])
async def test_pieces_reach_the_client_cut_inside_characters_and_lines(mode: Any, largest: int) -> None:
    settings = SimulatorSettings.instant(seed=5).but(chunk_mode=mode)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        running.faults.script(pieces=TRICKY)
        body = {
            "model": "claude-opus-5",
            "max_tokens": 99,
            "stream": True,
            "messages": [{"role": "user", "content": "x"}],
        }
        url = f"{running.base_url}/v1/messages"
        pieces = []
        async with session.post(url, json=body, headers={"x-api-key": "k"}) as response:
            async for data, _ in response.content.iter_chunks():
                pieces.append(data)
    sizes = [len(piece) for piece in pieces if piece]
    assert max(sizes) <= 4 * largest
    ends = set()
    seen = b""
    for piece in pieces:
        seen += piece
        ends.add("character" if seen[-1] & 0x80 and not _whole(seen) else "line" if seen[-4:] == b"dat" else "")
    assert "character" in ends


def _whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def test_the_same_seed_gives_the_same_bytes() -> None:
    async def raw(seed: int) -> bytes:
        async with (
            ProviderSimulator(SimulatorSettings.instant(seed=seed)) as running,
            aiohttp.ClientSession() as session,
        ):
            return (await Client(session, running).anthropic(stream=True)).raw

    assert await raw(1) == await raw(1)
    assert await raw(1) != await raw(2)


async def test_extra_pings_stand_between_text_events() -> None:
    settings = SimulatorSettings.instant().but(extra_ping_rate=0.5)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        reply = await Client(session, running).anthropic(stream=True)
    names = [name for name, _ in reply.events]
    assert names.count("ping") > 5
    assert reply.text


async def test_openai_sends_usage_only_when_asked_and_null_until_the_end(client: Client) -> None:
    plain = await client.openai(stream=True)
    asked = await client.openai(stream=True, stream_options={"include_usage": True})
    assert all("usage" not in data for _, data in plain.events if data != "[DONE]")
    *chunks, last, done = [data for _, data in asked.events]
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]


async def test_openai_counts_hidden_reasoning_as_output(client: Client) -> None:
    usage = (await client.openai(reasoning_effort="high")).usage
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < reasoning < usage["completion_tokens"]

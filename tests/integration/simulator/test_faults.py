"""Each fault on request, as a client meets it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from guidance_agent.provider_simulator import Fault, Script
from tests.integration.simulator.conftest import Client, Reply, eventually

WIRES = ["anthropic", "openai"]


async def ask(client: Client, wire: str, **body: Any) -> Reply:
    return await (client.anthropic(**body) if wire == "anthropic" else client.openai(**body))


def text_chunks(reply: Reply) -> int:
    return sum(
        1
        for _, data in reply.events
        if isinstance(data, dict)
        and (
            (data.get("delta") or {}).get("type") == "text_delta"
            or any(choice["delta"].get("content") for choice in data.get("choices") or ())
        )
    )


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
async def test_a_status_comes_with_the_providers_body(client: Client, wire: str, status: int) -> None:
    client.simulator.faults.add(Fault(kind="status", status=status, retry_after=2 if status == 429 else None))
    reply = await ask(client, wire)
    assert reply.status == status
    assert reply.headers.get("retry-after") == ("2" if status == 429 else None)
    if wire == "anthropic":
        assert set(reply.json) == {"type", "error", "request_id"}
        assert reply.json["request_id"] == reply.headers["request-id"]
    else:
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    assert (await ask(client, wire)).status == 200


async def test_a_fault_meets_as_many_requests_as_it_says(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="status", times=2))
    assert [(await client.anthropic()).status for _ in range(3)] == [529, 529, 200]


async def test_a_fault_without_a_number_meets_all_until_it_is_cleared(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="status", times=None))
    assert [(await client.anthropic()).status for _ in range(3)] == [529] * 3
    client.simulator.faults.clear()
    assert (await client.anthropic()).status == 200


async def test_a_fault_passes_by_what_it_does_not_match(client: Client) -> None:
    client.simulator.faults.add(
        Fault(kind="status", model="haiku", operation="messages.stream", contains="rare word", skip=1)
    )
    matching: dict[str, Any] = {
        "model": "claude-haiku-5-5",
        "stream": True,
        "messages": [{"role": "user", "content": "a rare word"}],
    }
    assert (await client.anthropic(**matching | {"model": "claude-opus-5-5"})).status == 200
    assert (await client.anthropic(**matching | {"stream": False})).status == 200
    assert (await client.anthropic(**matching | {"messages": [{"role": "user", "content": "other"}]})).status == 200
    assert (await client.anthropic(**matching)).status == 200
    assert (await client.anthropic(**matching)).status == 529


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("abrupt", [True, False])
@pytest.mark.parametrize("after", [0, 5])
async def test_a_drop_breaks_the_connection_after_the_given_chunks(
    client: Client, wire: str, abrupt: bool, after: int
) -> None:
    client.simulator.faults.add(Fault(kind="drop", after_chunks=after, abrupt=abrupt))
    with pytest.raises(aiohttp.ClientError):
        await ask(client, wire, stream=True)
    record = client.simulator.requests[-1]
    assert (record.text_chunks, record.finished, record.client_closed_at) == (after, False, None)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", ["drop", "error_event", "truncate", "garbage", "splice"])
async def test_what_breaks_a_stream_may_come_a_pause_after_its_last_chunk(client: Client, wire: str, kind: Any) -> None:
    client.simulator.faults.add(Fault(kind=kind, after_chunks=3, pause=0.2))
    with suppress(aiohttp.ClientError):
        await ask(client, wire, stream=True)
    record = client.simulator.requests[-1]
    assert record.ended_at is not None
    assert record.first_byte_at is not None
    assert record.ended_at - record.first_byte_at >= 0.19


@pytest.mark.parametrize("wire", WIRES)
async def test_a_truncation_ends_the_body_cleanly_without_the_terminal_event(client: Client, wire: str) -> None:
    client.simulator.faults.add(Fault(kind="truncate", after_chunks=4))
    reply = await ask(client, wire, stream=True)
    assert text_chunks(reply) == 4
    assert reply.events[-1][1] != "[DONE]"
    assert all(name != "message_stop" for name, _ in reply.events)
    assert client.simulator.requests[-1].finished is False


@pytest.mark.parametrize("wire", WIRES)
async def test_a_stall_lasts_until_the_client_leaves(client: Client, wire: str) -> None:
    client.simulator.faults.add(Fault(kind="stall", after_chunks=3))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await ask(client, wire, stream=True)
    record = client.simulator.requests[-1]
    await eventually(lambda: record.client_closed_at is not None, within=0.5)
    assert (record.text_chunks, record.finished) == (3, False)


async def test_a_stall_of_some_seconds_goes_on_afterwards(client: Client) -> None:
    whole = await client.anthropic(stream=True)
    client.simulator.faults.add(Fault(kind="stall", after_chunks=3, seconds=0.2))
    reply = await client.anthropic(stream=True)
    record = client.simulator.requests[-1]
    assert reply.text == whole.text
    assert record.ended_at is not None
    assert record.ended_at - record.received_at >= 0.2


async def test_slow_headers_hold_back_the_whole_answer(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="slow_headers", seconds=0.2))
    reply = await client.openai(stream=True)
    record = client.simulator.requests[-1]
    assert reply.status == 200
    assert record.first_byte_at is not None
    assert record.first_byte_at - record.received_at >= 0.2


@pytest.mark.parametrize("wire", WIRES)
async def test_an_error_event_ends_the_stream_without_its_terminal_event(client: Client, wire: str) -> None:
    client.simulator.faults.add(Fault(kind="error_event", after_chunks=2))
    reply = await ask(client, wire, stream=True)
    name, data = reply.events[-1]
    assert reply.status == 200
    assert text_chunks(reply) == 2
    assert "error" in data
    if wire == "anthropic":
        assert name == "error"
        assert data["error"] == {"details": None, "type": "overloaded_error", "message": "Overloaded"}


@pytest.mark.parametrize("wire", WIRES)
async def test_garbage_stands_between_good_events(client: Client, wire: str) -> None:
    client.simulator.faults.add(Fault(kind="garbage", after_chunks=2))
    reply = await ask(client, wire, stream=True)
    assert [data for _, data in reply.events if isinstance(data, str) and data != "[DONE]"] == [
        "<html>502 Bad Gateway</html>"
    ]


@pytest.mark.parametrize(("kind", "reason"), [("refusal", "refusal"), ("max_tokens", "max_tokens")])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_can_end_for_another_reason(client: Client, kind: Any, reason: str, stream: bool) -> None:
    client.simulator.faults.add(Fault(kind=kind, after_chunks=5))
    reply = await client.anthropic(stream=stream)
    if stream:
        assert text_chunks(reply) == 5
        end = next(data for name, data in reply.events if name == "message_delta")["delta"]
    else:
        end = reply.json
    assert end["stop_reason"] == reason
    assert ("stop_details" in end) == (kind == "refusal")


async def test_a_refusal_before_any_text_has_no_text_block(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="refusal"))
    reply = await client.anthropic(stream=True)
    assert [name for name, _ in reply.events if name != "ping"] == ["message_start", "message_delta", "message_stop"]


async def test_openai_ends_a_refusal_by_content_filter(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="refusal"))
    reply = await client.openai(stream=True)
    finished = [data["choices"][0]["finish_reason"] for _, data in reply.events if data != "[DONE]"]
    assert finished[-1] == "content_filter"


async def test_the_opening_event_can_come_twice(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="duplicate_start"))
    reply = await client.anthropic(stream=True)
    assert [name for name, _ in reply.events[:2]] == ["message_start", "message_start"]
    assert reply.events[0][1]["message"]["id"] == reply.events[1][1]["message"]["id"]


async def test_two_streams_can_be_spliced(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="splice", after_chunks=2))
    reply = await client.anthropic(stream=True)
    ids = [data["message"]["id"] for name, data in reply.events if name == "message_start"]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(("abrupt", "seen"), [(True, aiohttp.ClientOSError), (False, aiohttp.ServerDisconnectedError)])
async def test_a_request_can_be_accepted_and_dropped(client: Client, abrupt: bool, seen: type[Exception]) -> None:
    client.simulator.faults.add(Fault(kind="accept_then_drop", abrupt=abrupt))
    with pytest.raises(aiohttp.ClientError) as caught:
        await client.anthropic()
    assert type(caught.value) is seen
    record = client.simulator.requests[-1]
    assert record.body["model"] == "claude-sonnet-5-5"
    assert (record.status, record.fault, record.dropped) == (None, "accept_then_drop", True)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("abrupt", [True, False])
async def test_a_whole_answer_can_break_off_in_its_middle(client: Client, wire: str, abrupt: bool) -> None:
    client.simulator.faults.add(Fault(kind="drop", abrupt=abrupt, pause=0.05))
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(client, wire)
    record = client.simulator.requests[-1]
    assert (record.status, record.dropped, record.finished) == (200, True, False)


@pytest.mark.parametrize("kind", ["accept_then_drop", "drop"])
async def test_a_connection_that_is_cut_on_request_is_not_logged_as_an_error(
    client: Client, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.simulator.faults.add(Fault(kind=kind))
    with pytest.raises(aiohttp.ClientError):
        await client.anthropic()
    await eventually(lambda: client.simulator.requests[-1].ended_at is not None)
    assert caplog.text == ""


async def test_a_redirect_and_a_web_page_can_come_instead(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="redirect", location="/elsewhere"), Fault(kind="wrong_content_type"))
    url = f"{client.simulator.base_url}/v1/messages"
    body: dict[str, Any] = {
        "model": "claude-sonnet-5-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
    }
    async with client.session.post(url, json=body, headers={"x-api-key": "k"}, allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (307, "/elsewhere")
    async with client.session.post(url, json=body, headers={"x-api-key": "k"}) as response:
        assert (response.status, response.content_type) == (200, "text/html")


@pytest.mark.parametrize("kind", ["drop", "error_event", "garbage", "truncate", "stall", "slow_headers"])
async def test_stream_faults_also_meet_whole_answers(client: Client, kind: Any) -> None:
    client.simulator.faults.add(Fault(kind=kind, seconds=0.05))
    if kind == "drop":
        with pytest.raises(aiohttp.ClientError):
            await client.openai()
        return
    reply = await client.openai()
    if kind == "error_event":
        assert reply.status == 529
    elif kind in ("garbage", "truncate"):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra"):
            _ = reply.json
    else:
        assert reply.text


@pytest.mark.parametrize("wire", WIRES)
async def test_the_model_says_exactly_what_a_test_dictates(client: Client, wire: str) -> None:
    pieces = ["You sho", "uld not ", "see this £", "1,000 — naïve."]
    client.simulator.faults.script(pieces=pieces)
    reply = await ask(client, wire, stream=True)
    assert reply.text == "".join(pieces)
    assert text_chunks(reply) == len(pieces)
    client.simulator.faults.script("Exactly so.", times=2)
    assert [(await ask(client, wire)).text for _ in range(2)] == ["Exactly so."] * 2


async def test_a_script_can_call_a_tool(client: Client) -> None:
    script = Script(text="One moment.", tool="look_up", arguments={"id": "TX-05"})
    client.simulator.faults.add(Fault(kind="script", script=script))
    body = (await client.anthropic()).json
    assert body["stop_reason"] == "tool_use"
    assert body["content"][1]["input"] == {"id": "TX-05"}
    assert body["content"][0]["text"] == "One moment."


async def test_embeddings_fail_on_request_too(client: Client) -> None:
    client.simulator.faults.add(Fault(kind="status", status=429, retry_after=1, operation="embeddings"))
    body: dict[str, Any] = {"model": "text-embedding-3-small", "input": "text"}
    refused = await client.post("/v1/embeddings", body)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert (await client.post("/v1/embeddings", body)).status == 200

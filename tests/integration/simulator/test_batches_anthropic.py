"""Anthropic's message batches: states, what refuses the whole request, and what fails one item."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from guidance_agent.provider_simulator import ManualClock, ProviderSimulator, SimulatorSettings
from tests.integration.simulator.batching import BatchClient, message_body, requests

PATH = "/v1/messages/batches"
ONE = requests(1)[0]


async def test_a_batch_goes_through_its_states_with_the_clock(
    timed_batches: BatchClient, manual_clock: ManualClock
) -> None:
    batch = await timed_batches.submit_messages(requests(40))
    seen = [await timed_batches.look(batch)]
    assert timed_batches.headers["retry-after"] == "10"
    for seconds in (320, 320):
        manual_clock.advance(seconds)
        seen.append(await timed_batches.look(batch))
    assert [each["processing_status"] for each in seen] == ["in_progress", "in_progress", "ended"]
    nothing = {"processing": 40, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert [each["request_counts"] for each in seen] == [nothing, nothing, nothing | {"processing": 0, "succeeded": 40}]
    assert "retry-after" not in timed_batches.headers
    assert seen[0]["created_at"].endswith("+00:00")
    assert seen[2]["results_url"].startswith(timed_batches.simulator.base_url)


async def test_results_are_there_at_the_end_and_for_29_days(
    timed_batches: BatchClient, manual_clock: ManualClock
) -> None:
    batch = await timed_batches.submit_messages(requests(2))
    path = f"{PATH}/{batch['id']}/results"
    status, body = await timed_batches.call("anthropic", "GET", path)
    assert (status, body["error"]["message"]) == (404, f"Message Batch {batch['id']} has no available results.")
    manual_clock.advance(640)
    await timed_batches.until(batch)
    assert len(await timed_batches.rows(batch)) == 2
    assert timed_batches.headers["content-type"] == "application/x-jsonl"
    manual_clock.advance(29 * 86_400)
    archived = await timed_batches.look(batch)
    assert (archived["results_url"], archived["archived_at"] is not None) == (None, True)
    assert (await timed_batches.call("anthropic", "GET", path))[0] == 404


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "The request body is not valid JSON"),
        (b'{"requests": [{]}', "The request body is not valid JSON"),
        (b'{"requests": [' + b"[" * 100_000, "The request body is not valid JSON"),
        (b'{"requests": []} {}', "The request body is not valid JSON"),
        (b"\xff", "The request body is not valid JSON"),
        (b"{}", "requests: Field required"),
        (b'{"requests": {}}', "requests: Input should be a valid array"),
        (b'{"requests": []}', "requests: List should have at least 1 item after validation, not 0"),
        ([5], "requests.0: Input should be an object"),
        ([{"params": {}}], "requests.0.custom_id: Field required"),
        ([ONE, {"custom_id": 7, "params": {}}], "requests.1.custom_id: Input should be a valid string"),
        ([{"custom_id": "a" * 65, "params": {}}], "requests.0.custom_id: String should have at most 64 characters"),
        ([{"custom_id": "a b", "params": {}}], "requests.0.custom_id: String should match pattern"),
        ([{"custom_id": "", "params": {}}], "requests.0.custom_id: String should match pattern"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ([{"custom_id": "a", "params": []}], "requests.0.params: Input should be an object"),
        ([ONE, ONE], "custom_id's must be unique within a batch. Duplicate custom_id found: item-0"),
        (requests(6), "requests: List should have at most 5 items after validation, not 6"),
    ],
)
async def test_a_bad_envelope_refuses_the_whole_request(body: Any, text: str) -> None:
    settings = SimulatorSettings.instant().but(batch_most_requests=5)
    data = body if isinstance(body, bytes) else json.dumps({"requests": body}).encode()
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        client = BatchClient(session, running)
        status, answer = await client.call("anthropic", "POST", PATH, data=data)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert text in answer["error"]["message"]
        assert (await client.control("GET", "batches"))["batches"] == []
        assert (await client.control("GET", "seen"))["requests"] == 0


async def test_too_large_a_body_is_refused() -> None:
    settings = SimulatorSettings.instant().but(batch_most_bytes=2_000)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        client = BatchClient(session, running)
        status, answer = await client.call("anthropic", "POST", PATH, json={"requests": requests(40)})
        assert (status, answer["error"]["type"]) == (413, "request_too_large")
        await client.submit_messages(requests(2))


async def test_a_body_may_arrive_in_any_pieces(batches: BatchClient) -> None:
    text = json.dumps(
        {"note": [1, {"a": "]}"}], "requests": requests(9, question="Was heißt „Rente“?"), "after": -1.5e3},
        ensure_ascii=False,
        indent=1,
    )

    async def pieces() -> AsyncIterator[bytes]:
        raw = text.encode()
        for start in range(0, len(raw), 7):
            yield raw[start : start + 7]
            if start % 700 == 0:
                await asyncio.sleep(0)

    status, batch = await batches.call("anthropic", "POST", PATH, data=pieces())
    assert (status, batch["request_counts"]["processing"]) == (200, 9)
    await batches.until(batch)
    assert {row["custom_id"] for row in await batches.rows(batch)} == {f"item-{number}" for number in range(9)}


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"model": "claude-none"}, "not_found_error", "model: claude-none"),
        ({"messages": None}, "invalid_request_error", "messages: Field required"),
        ({"max_tokens": 10_000_000}, "invalid_request_error", "which is the maximum allowed number of output tokens"),
        ({"max_tokens": 0}, "invalid_request_error", "max_tokens: must be greater than or equal to 1"),
        ({"stream": True}, "invalid_request_error", '"stream=True" is not supported in the Message Batches API'),
        ({"speed": "fast"}, "invalid_request_error", "speed"),
    ],
)
async def test_wrong_parameters_fail_their_item_only(
    batches: BatchClient, change: dict[str, Any], kind: str, text: str
) -> None:
    params = {key: value for key, value in (message_body() | change).items() if value is not None}
    batch = await batches.submit_messages([*requests(2), {"custom_id": "wrong", "params": params}])
    ended = await batches.until(batch)
    assert ended["request_counts"] == {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0}
    results = {row["custom_id"]: row["result"] for row in await batches.rows(batch)}
    assert {results[f"item-{number}"]["type"] for number in range(2)} == {"succeeded"}
    error = results["wrong"]["error"]
    assert (error["type"], error["error"]["type"], error["request_id"]) == ("error", kind, None)
    assert text in error["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"tools": 5},
        {"tools": [5]},
        {"thinking": "much"},
        {"output_config": [1]},
        {"stop_sequences": 5},
        {"tool_choice": "any"},
        {"messages": {"role": "user"}},
        {"system": 5},
        {"metadata": "\ud800"},
    ],
)
async def test_no_parameter_stops_the_batch(batches: BatchClient, change: dict[str, Any]) -> None:
    batch = await batches.submit_messages([{"custom_id": "odd", "params": message_body() | change}, *requests(2)])
    ended = await batches.until(batch)
    assert ended["request_counts"]["succeeded"] >= 2
    assert len(await batches.rows(batch)) == 3


async def test_models_may_be_mixed(batches: BatchClient) -> None:
    asked = [*requests(1), {"custom_id": "other", "params": message_body(model="claude-haiku-4-5")}]
    batch = await batches.submit_messages(asked)
    await batches.until(batch)
    models = {row["custom_id"]: row["result"]["message"]["model"] for row in await batches.rows(batch)}
    assert models == {"item-0": "claude-sonnet-5-5", "other": "claude-haiku-4-5"}


async def test_a_cancelled_batch_keeps_what_was_answered(timed_batches: BatchClient, manual_clock: ManualClock) -> None:
    batch = await timed_batches.submit_messages(requests(40))
    manual_clock.advance(320)
    status, canceling = await timed_batches.cancel(batch)
    assert (status, canceling["processing_status"]) == (200, "canceling")
    assert canceling["request_counts"]["processing"] == 40
    manual_clock.advance(41)
    ended = await timed_batches.look(batch)
    counts = ended["request_counts"]
    assert ended["processing_status"] == "ended"
    assert 0 < counts["succeeded"] < 40
    assert counts["succeeded"] + counts["canceled"] == 40
    kinds = [row["result"]["type"] for row in await timed_batches.rows(batch)]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (counts["succeeded"], counts["canceled"])
    assert (await timed_batches.cancel(batch))[0] == 400


async def test_waiting_requests_are_limited_per_key(manual_clock: ManualClock) -> None:
    settings = SimulatorSettings.instant().but(batch_queued_requests=10, batch_duration=640.0, batch_window=86_400.0)
    async with ProviderSimulator(settings, clock=manual_clock) as running, aiohttp.ClientSession() as session:
        client = BatchClient(session, running, settles=True)
        await client.submit_messages(requests(8))
        status, refused = await client.call("anthropic", "POST", PATH, json={"requests": requests(3)})
        assert (status, refused["error"]["type"]) == (429, "rate_limit_error")
        await BatchClient(session, running, key="key-2").submit_messages(requests(3))
        manual_clock.advance(640)
        await client.submit_messages(requests(10))


async def test_batches_belong_to_their_key_and_wire(batches: BatchClient) -> None:
    batch = await batches.submit_messages(requests(1))
    other = BatchClient(batches.session, batches.simulator, key="key-2")
    assert (await other.call("anthropic", "GET", f"{PATH}/{batch['id']}"))[0] == 404
    assert (await other.call("anthropic", "GET", PATH))[1] == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
    assert (await batches.call("openai", "GET", f"/v1/batches/{batch['id']}"))[0] == 404


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=0", "greater than or equal to 1"),
        ("limit=1001", "less than or equal to 1000"),
        ("limit=x", "valid integer"),
        ("after_id=msgbatch_none", "after_id"),
        ("before_id=msgbatch_none", "before_id"),
        ("before_id=a&after_id=b", "Only one of"),
    ],
)
async def test_a_wrong_list_request_is_refused(batches: BatchClient, query: str, text: str) -> None:
    status, body = await batches.call("anthropic", "GET", f"{PATH}?{query}")
    assert status == 400
    assert text in body["error"]["message"]


async def test_answers_carry_the_headers_of_the_batch_limits(batches: BatchClient) -> None:
    await batches.call("anthropic", "GET", PATH)
    assert int(batches.headers["anthropic-ratelimit-requests-limit"]) > 0
    assert batches.headers["request-id"].startswith("req_")

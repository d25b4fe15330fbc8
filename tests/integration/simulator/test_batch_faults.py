"""What goes wrong with files and batches on request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from guidance_agent.provider_simulator import Fault, ManualClock, Script
from tests.integration.simulator.batching import BatchClient, jsonl, lines, message_body, requests

WIRES = ("anthropic", "openai")


async def submit(client: BatchClient, wire: str, count: int) -> Any:
    return await (client.submit_messages(requests(count)) if wire == "anthropic" else client.submit(lines(count)))


def outcome(row: dict[str, Any]) -> str:
    """What became of an item, in the words of Anthropic."""
    if "result" in row:
        return str(row["result"]["type"])
    if row["response"] is None:
        return {"batch_expired": "expired", "batch_cancelled": "canceled"}[row["error"]["code"]]
    return "succeeded" if row["response"]["status_code"] == 200 else "errored"


async def outcomes(client: BatchClient, batch: dict[str, Any]) -> dict[str, str]:
    """What became of each item, from all files of results."""
    rows = []
    for kind in ("output", "error"):
        if kind == "output" and "results_url" in batch:
            rows += await client.rows(batch)
        elif batch.get(f"{kind}_file_id") is not None:
            rows += await client.rows(batch, kind)
    return {row["custom_id"]: outcome(row) for row in rows}


@pytest.mark.parametrize("wire", WIRES)
async def test_a_share_of_the_items_fails(batches: BatchClient, wire: str) -> None:
    batches.faults.add(Fault(kind="status", status=500, operation="batches.item", times=None, share=0.25))
    ended = await batches.until(await submit(batches, wire, 200))
    found = list((await outcomes(batches, ended)).values())
    assert 25 < found.count("errored") < 75
    assert found.count("errored") + found.count("succeeded") == 200


@pytest.mark.parametrize("wire", WIRES)
async def test_the_same_items_fail_again_with_the_same_seed(batches: BatchClient, wire: str) -> None:
    batches.faults.add(Fault(kind="status", operation="item", times=None, share=0.5))
    first, second = [await batches.until(await submit(batches, wire, 20)) for _ in range(2)]
    found = await outcomes(batches, first)
    assert found == await outcomes(batches, second)
    assert set(found.values()) == {"errored", "succeeded"}


@pytest.mark.parametrize("wire", WIRES)
async def test_items_that_are_not_reached_expire_with_the_window(
    timed_batches: BatchClient, manual_clock: ManualClock, wire: str
) -> None:
    timed_batches.faults.add(Fault(kind="expire", times=None, share=0.5))
    batch = await submit(timed_batches, wire, 40)
    manual_clock.advance(86_399)
    assert (await timed_batches.look(batch)).get("ended_at") is None
    manual_clock.advance(1)
    ended = await timed_batches.until(batch)
    found = list((await outcomes(timed_batches, ended)).values())
    assert 0 < found.count("expired") < 40
    assert found.count("expired") + found.count("succeeded") == 40
    if wire == "openai":
        assert (ended["status"], ended["expired_at"]) == ("expired", ended["expires_at"])
        assert ended["request_counts"]["completed"] == found.count("succeeded")
    else:
        assert ended["request_counts"]["expired"] == found.count("expired")


@pytest.mark.parametrize("wire", WIRES)
async def test_a_slow_batch_ends_with_its_window(
    timed_batches: BatchClient, manual_clock: ManualClock, wire: str
) -> None:
    timed_batches.faults.add(Fault(kind="slow_batch"))
    batch = await submit(timed_batches, wire, 40)
    manual_clock.advance(86_400)
    found = list((await outcomes(timed_batches, await timed_batches.until(batch))).values())
    assert 0 < found.count("succeeded") < 40
    assert found.count("expired") == 40 - found.count("succeeded")


async def test_lost_items_have_no_row_and_count_as_answered(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="lose", times=2))
    ended = await batches.until(await submit(batches, "anthropic", 6))
    assert ended["request_counts"]["succeeded"] == 6
    assert len(await outcomes(batches, ended)) == 4


async def test_a_batch_fails_as_a_whole(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="fail_batch", times=2, message="Not today."))
    openai, anthropic = [await batches.until(await submit(batches, wire, 3)) for wire in ("openai", "anthropic")]
    assert (openai["status"], openai["errors"]["data"][0]["message"]) == ("failed", "Not today.")
    assert set((await outcomes(batches, anthropic)).values()) == {"errored"}
    assert (await batches.until(await submit(batches, "openai", 3)))["status"] == "completed"


@pytest.mark.parametrize("wire", WIRES)
async def test_a_submission_may_be_carried_out_and_its_answer_lost(batches: BatchClient, wire: str) -> None:
    await batches.control("POST", "faults", json={"kind": "answer_lost", "operation": "batches.create"})
    with pytest.raises(aiohttp.ClientError):
        await submit(batches, wire, 3)
    path = "/v1/batches" if wire == "openai" else "/v1/messages/batches"
    _, listed = await batches.call(wire, "GET", path)
    (batch,) = listed["data"]
    assert set((await outcomes(batches, await batches.until(batch))).values()) == {"succeeded"}
    requested = (await batches.control("GET", "requests"))["requests"]
    record = next(each for each in requested if each["operation"] == f"{wire}.batches.create")
    assert (record["fault"], record["dropped"], record["client_closed_at"]) == ("answer_lost", True, None)


async def test_a_submission_may_be_dropped_before_it_is_carried_out(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="accept_then_drop", operation="batches.create"))
    with pytest.raises(aiohttp.ClientError):
        await submit(batches, "anthropic", 3)
    assert (await batches.control("GET", "batches"))["batches"] == []


@pytest.mark.parametrize("wire", WIRES)
async def test_a_submission_meets_a_rate_limit(batches: BatchClient, wire: str) -> None:
    batches.faults.add(Fault(kind="status", status=429, retry_after=7, operation="batches.create"))
    with pytest.raises(AssertionError, match="rate"):
        await submit(batches, wire, 2)
    assert batches.headers["retry-after"] == "7"
    await submit(batches, wire, 2)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_list_may_lag(timed_batches: BatchClient, manual_clock: ManualClock, wire: str) -> None:
    path = "/v1/batches" if wire == "openai" else "/v1/messages/batches"

    async def listed() -> list[str]:
        return [batch["id"] for batch in (await timed_batches.call(wire, "GET", path))[1]["data"]]

    old = await submit(timed_batches, wire, 1)
    manual_clock.advance(60)
    new = await submit(timed_batches, wire, 1)
    timed_batches.faults.add(Fault(kind="stale_list", seconds=30, times=None))
    assert await listed() == [old["id"]]
    manual_clock.advance(31)
    assert await listed() == [new["id"], old["id"]]
    timed_batches.faults.clear()
    timed_batches.faults.add(Fault(kind="stale_list"))
    assert [await listed(), await listed()] == [[], [new["id"], old["id"]]]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_batch_may_be_gone(batches: BatchClient, wire: str) -> None:
    batch = await batches.until(await submit(batches, wire, 2))
    batches.faults.add(Fault(kind="gone", operation="batches.retrieve"))
    path = f"/v1/batches/{batch['id']}" if wire == "openai" else f"/v1/messages/batches/{batch['id']}"
    assert [(await batches.call(wire, "GET", path))[0] for _ in range(2)] == [404, 404]
    assert (await batches.control("GET", "seen?custom_id=item-0"))["count"] == 1


async def test_a_file_of_results_may_be_gone(batches: BatchClient) -> None:
    batch = await batches.until(await submit(batches, "openai", 2))
    batches.faults.add(Fault(kind="gone", operation="files.content"))
    path = f"/v1/files/{batch['output_file_id']}"
    assert (await batches.call("openai", "GET", f"{path}/content"))[0] == 404
    assert (await batches.call("openai", "GET", path))[0] == 404
    assert (await batches.look(batch))["output_file_id"] is None


async def test_an_input_file_that_is_gone_fails_its_batch(
    timed_batches: BatchClient, manual_clock: ManualClock
) -> None:
    batch = await submit(timed_batches, "openai", 2)
    assert await timed_batches.control("DELETE", f"files/{batch['input_file_id']}") == {"removed": True}
    manual_clock.advance(30)
    assert (await timed_batches.until(batch))["status"] == "failed"
    assert await timed_batches.control("DELETE", f"batches/{batch['id']}") == {"removed": True}
    assert await timed_batches.control("DELETE", "batches/batch_none") == {"removed": False}


async def download(client: BatchClient, wire: str, fault: Fault) -> tuple[bytes, bytes]:
    """The results as they are, and as they come with a fault."""
    batch = await client.until(await submit(client, wire, 6))
    path = (
        f"/v1/messages/batches/{batch['id']}/results"
        if wire == "anthropic"
        else f"/v1/files/{batch['output_file_id']}/content"
    )
    whole = (await client.call(wire, "GET", path))[1]
    client.faults.add(fault)
    return whole, (await client.call(wire, "GET", path))[1]


@pytest.mark.parametrize("wire", WIRES)
async def test_results_may_be_truncated(batches: BatchClient, wire: str) -> None:
    whole, cut = await download(batches, wire, Fault(kind="truncate", after_chunks=3))
    assert whole.startswith(cut)
    assert cut.count(b"\n") == 3
    assert not cut.endswith(b"\n")


@pytest.mark.parametrize("wire", WIRES)
async def test_a_row_of_the_results_may_be_no_json(batches: BatchClient, wire: str) -> None:
    whole, broken = await download(batches, wire, Fault(kind="garbage", after_chunks=2))
    good, bad = whole.splitlines(), broken.splitlines()
    assert [index for index, row in enumerate(bad) if row != good[index]] == [2]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(bad[2])


@pytest.mark.parametrize("wire", WIRES)
async def test_a_row_may_come_twice_or_be_nobodys(batches: BatchClient, wire: str) -> None:
    whole, doubled = await download(batches, wire, Fault(kind="repeat_row", after_chunks=1))
    assert doubled.splitlines()[:3] == [whole.splitlines()[index] for index in (0, 1, 1)]
    _, foreign = await download(batches, wire, Fault(kind="unknown_row", after_chunks=5))
    assert json.loads(foreign.splitlines()[-1])["custom_id"] == "unknown-request"


@pytest.mark.parametrize("wire", WIRES)
async def test_a_download_may_be_dropped(batches: BatchClient, wire: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await download(batches, wire, Fault(kind="drop", after_chunks=2))


async def test_a_download_may_stall_until_the_client_leaves(batches: BatchClient) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await download(batches, "openai", Fault(kind="stall", operation="files.content", after_chunks=1))


async def test_an_upload_may_be_kept_and_its_answer_lost(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="answer_lost", operation="files.create"))
    with pytest.raises(aiohttp.ClientError):
        await batches.upload(lines(1), name="kept.jsonl")
    _, listed = await batches.call("openai", "GET", "/v1/files")
    assert [(file["filename"], file["bytes"]) for file in listed["data"]] == [("kept.jsonl", len(jsonl(lines(1))))]


async def test_answers_about_batches_may_be_broken(batches: BatchClient) -> None:
    batch = await submit(batches, "openai", 1)
    path = f"/v1/batches/{batch['id']}"
    batches.faults.add(
        Fault(kind="garbage"), Fault(kind="truncate"), Fault(kind="redirect"), Fault(kind="wrong_content_type")
    )
    with pytest.raises(ValueError, match="Expecting"):
        await batches.call("openai", "GET", path)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        await batches.call("openai", "GET", path)
    assert (await batches.call("openai", "GET", path, allow_redirects=False))[0] == 307
    assert b"Sign in" in (await batches.call("openai", "GET", path))[1]


async def test_items_say_what_is_dictated(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="script", contains="item-1", script=Script(text='{"verdict": ')))
    batches.faults.add(Fault(kind="refusal", contains="item-2"))
    ended = await batches.until(await batches.submit(lines(3, max_tokens=900)))
    choices = {row["custom_id"]: row["response"]["body"]["choices"][0] for row in await batches.rows(ended)}
    assert choices["item-1"]["message"]["content"] == '{"verdict": '
    assert (choices["item-0"]["finish_reason"], choices["item-2"]["finish_reason"]) == ("stop", "content_filter")


async def test_failures_of_interactive_calls_leave_items_alone(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="status", status=529, model="claude"))
    batch = await batches.submit_messages(requests(3))
    assert (await batches.until(batch))["request_counts"]["succeeded"] == 3
    assert (await batches.call("anthropic", "POST", "/v1/messages", json=message_body()))[0] == 529


async def test_a_fault_finds_an_item_by_its_custom_id(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="status", status=529, operation="item", contains='"item-2"'))
    ended = await batches.until(await batches.submit_messages(requests(4)))
    (wrong,) = [row for row in await batches.rows(ended) if row["result"]["type"] == "errored"]
    assert (wrong["custom_id"], wrong["result"]["error"]["error"]["type"]) == ("item-2", "overloaded_error")


async def test_interactive_calls_do_not_use_up_faults_of_batches(batches: BatchClient) -> None:
    batches.faults.add(*(Fault(kind=kind) for kind in ("expire", "lose", "fail_batch", "answer_lost", "gone")))
    body = {"model": "claude-sonnet-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
    assert (await batches.call("anthropic", "POST", "/v1/messages", json=body))[0] == 200
    assert len(batches.faults) == 5

"""OpenAI's files and batches: states, limits, and what a bad input file is told, line by line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from guidance_agent.provider_simulator import ManualClock, ProviderSimulator, SimulatorSettings
from tests.integration.simulator.batching import BatchClient, chat_body, jsonl, line, lines

MISSING = [("missing_required_parameter", 1, name) for name in ("url", "body")]
CREATE: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def test_a_batch_goes_through_its_states_with_the_clock(
    timed_batches: BatchClient, manual_clock: ManualClock
) -> None:
    began = manual_clock.now()
    batch = await timed_batches.submit(lines(40))
    seen = [await timed_batches.look(batch)]
    for seconds in (21, 320, 310, 25):
        manual_clock.advance(seconds)
        seen.append(await timed_batches.look(batch))
    assert [each["status"] for each in seen] == [
        "validating",
        "in_progress",
        "in_progress",
        "finalizing",
        "completed",
    ]
    assert seen[0]["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    completed = [each["request_counts"]["completed"] for each in seen]
    assert completed == sorted(completed)
    assert 0 < completed[2] < completed[3] == 40
    assert seen[1]["request_counts"]["total"] == 40
    assert (seen[0]["model"], seen[1]["model"]) == (None, "gpt-6-sol")
    last = seen[-1]
    assert [last[f"{name}_at"] - int(began) for name in ("created", "in_progress", "finalizing", "completed")] == [
        0,
        20,
        650,
        670,
    ]
    assert last["expires_at"] - last["created_at"] == 86_400
    assert seen[3]["usage"]["total_tokens"] == 0 < last["usage"]["total_tokens"]
    assert seen[3]["output_file_id"] is None


async def test_results_never_come_in_the_order_of_the_requests(batches: BatchClient) -> None:
    for count in (2, 3, 5):
        ended = await batches.until(await batches.submit(lines(count)))
        assert [row["custom_id"] for row in await batches.rows(ended)] != [f"item-{n}" for n in range(count)]


async def test_requests_that_fail_are_in_the_error_file_and_the_others_in_the_output_file(
    batches: BatchClient,
) -> None:
    asked = [*lines(3), line("long", chat_body(max_tokens=10_000_000)), line("empty", chat_body(messages=[]))]
    ended = await batches.until(await batches.submit(asked))
    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    good, bad = await batches.rows(ended), await batches.rows(ended, "error")
    assert {row["custom_id"] for row in good} == {"item-0", "item-1", "item-2"}
    errors = {row["custom_id"]: row["response"] for row in bad}
    assert {name: response["status_code"] for name, response in errors.items()} == {"long": 400, "empty": 400}
    assert errors["empty"]["body"]["error"]["code"] == "empty_array"
    assert all(row["error"] is None for row in [*good, *bad])


async def test_a_batch_of_which_nothing_succeeds_is_completed_without_an_output_file(batches: BatchClient) -> None:
    ended = await batches.until(await batches.submit([line("empty", chat_body(messages=[]))]))
    assert (ended["status"], ended["output_file_id"]) == ("completed", None)
    assert ended["error_file_id"].startswith("file-")


@pytest.mark.parametrize(
    ("rows", "errors"),
    [
        ([*lines(1), b"{no json"], [("invalid_json_line", 2, None)]),
        ([b"\xef\xbb\xbf" + jsonl(lines(1)).strip()], [("invalid_json_line", 1, None)]),
        ([b"\xff{}"], [("invalid_json_line", 1, None)]),
        ([b"[" * 100_000], [("invalid_json_line", 1, None)]),
        ([b'{"custom_id": "\\ud800", "method": "POST"}'], [("invalid_type", 1, "custom_id"), *MISSING]),
        ([*lines(1), b"[1, 2]"], [("invalid_json_line", 2, None)]),
        ([*lines(1), b"", *lines(1)], [("invalid_json_line", 2, None), ("duplicate_custom_id", 3, "custom_id")]),
        (
            [
                {key: value for key, value in line(f"lacks-{name}").items() if key != name}
                for name in ("custom_id", "method", "url", "body")
            ],
            [
                ("missing_required_parameter", number, name)
                for number, name in enumerate(("custom_id", "method", "url", "body"), start=1)
            ],
        ),
        ([line("a"), line("b"), line("a")], [("duplicate_custom_id", 3, "custom_id")]),
        ([line("a", method="GET")], [("invalid_method", 1, "method")]),
        ([line("a", url="/v1/embeddings")], [("invalid_url", 1, "url")]),
        ([line("a") | {"body": "text"}], [("invalid_type", 1, "body")]),
        ([line("a"), line("b", chat_body(model="gpt-4o"))], [("mismatched_model", 2, "body.model")]),
        ([line("a", chat_body(model="gpt-none"))], [("model_not_found", 1, "body.model")]),
        ([line("a", chat_body(model=None))], [("missing_required_parameter", 1, "body.model")]),
        ([line("a", chat_body(stream=True))], [("streaming_unsupported", 1, "body.stream")]),
        ([], [("empty_file", None, None)]),
    ],
    ids=lambda value: value[0][0] if isinstance(value, list) and value and isinstance(value[0], tuple) else None,
)
async def test_a_bad_input_file_fails_the_batch_line_by_line(
    batches: BatchClient, rows: list[Any], errors: list[tuple[str, int | None, str | None]]
) -> None:
    ended = await batches.until(await batches.submit(rows))
    assert (ended["status"], ended["output_file_id"], ended["error_file_id"]) == ("failed", None, None)
    assert [(each["code"], each["line"], each["param"]) for each in ended["errors"]["data"]] == errors
    assert all(each["message"] for each in ended["errors"]["data"])
    assert (ended["errors"]["object"], ended["request_counts"]["total"]) == ("list", 0)
    assert ended["failed_at"] >= ended["created_at"]
    assert (await batches.control("GET", "seen"))["requests"] == 0


@pytest_asyncio.fixture
async def narrow() -> AsyncIterator[BatchClient]:
    settings = SimulatorSettings.instant().but(batch_most_requests=3, batch_most_bytes=1_500, batch_enqueued_tokens=300)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        yield BatchClient(session, running)


async def test_too_many_lines_and_too_large_a_file_fail_the_batch(narrow: BatchClient) -> None:
    assert (await narrow.until(await narrow.submit(lines(3))))["status"] == "completed"
    many = await narrow.until(await narrow.submit(lines(4)))
    assert many["errors"]["data"][0]["code"] == "too_many_tasks"
    large = await narrow.until(await narrow.submit([line("a", chat_body("long " * 400))]))
    assert "larger than the 1500 maximum" in large["errors"]["data"][0]["message"]


async def test_more_waiting_tokens_than_allowed_fail_the_batch_not_the_request(narrow: BatchClient) -> None:
    ended = await narrow.until(await narrow.submit([line("a", chat_body("long " * 230))]))
    assert ended["errors"]["data"][0]["code"] == "token_limit_exceeded"
    assert "Limit: 300 enqueued tokens" in ended["errors"]["data"][0]["message"]


async def test_requests_about_batches_have_a_limit_of_their_own(manual_clock: ManualClock) -> None:
    settings = SimulatorSettings.instant().but(batch_requests_per_minute=2)
    async with ProviderSimulator(settings, clock=manual_clock) as running, aiohttp.ClientSession() as session:
        client = BatchClient(session, running)
        for wire, path in (("openai", "/v1/batches"), ("anthropic", "/v1/messages/batches")):
            assert [(await client.call(wire, "GET", path))[0] for _ in range(3)] == [200, 200, 429]
            assert int(client.headers["retry-after"]) == 30
        assert (await client.call("openai", "POST", "/v1/chat/completions", json=chat_body()))[0] == 200
        manual_clock.advance(30)
        assert (await client.call("openai", "GET", "/v1/files"))[0] == 200


@pytest.mark.parametrize(
    ("change", "status", "code", "text"),
    [
        ({"input_file_id": None}, 400, "missing_required_parameter", "'input_file_id'"),
        ({"endpoint": None}, 400, "missing_required_parameter", "'endpoint'"),
        ({"completion_window": None}, 400, "missing_required_parameter", "'completion_window'"),
        ({"endpoint": "/v1/none"}, 400, "invalid_value", "Supported values are: '/v1/chat/completions'"),
        ({"completion_window": "48h"}, 400, "invalid_value", "Supported values are: '24h'"),
        ({"input_file_id": "file-none"}, 404, None, "No such File object: file-none"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "object_above_max_properties", "at most 16"),
        ({"metadata": {"key": "x" * 513}}, 400, "string_above_max_length", "512"),
        ({"metadata": {"k" * 65: "x"}}, 400, "string_above_max_length", "64"),
        ({"metadata": {"key": 5}}, 400, "invalid_type", "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, 400, None, "between 3600 and 2592000"),
    ],
)
async def test_a_request_for_a_batch_is_refused(
    batches: BatchClient, change: dict[str, Any], status: int, code: str | None, text: str
) -> None:
    file = await batches.upload(lines(1))
    asked = {key: value for key, value in ({**CREATE, "input_file_id": file["id"]} | change).items() if value}
    got, body = await batches.call("openai", "POST", "/v1/batches", json=asked)
    assert (got, body["error"]["code"]) == (status, code)
    assert text in body["error"]["message"]
    assert (await batches.control("GET", "batches"))["batches"] == []


async def test_only_a_file_for_batches_makes_a_batch(batches: BatchClient) -> None:
    file = await batches.upload(b"some text", name="notes.txt", purpose="user_data")
    status, body = await batches.call("openai", "POST", "/v1/batches", json={**CREATE, "input_file_id": file["id"]})
    assert (status, body["error"]["param"]) == (400, "input_file_id")


async def test_an_upload_is_refused_for_its_form(batches: BatchClient) -> None:
    async def upload(**fields: Any) -> tuple[int, str]:
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            form.add_field(name, value, filename="a.txt" if name == "file" else None)
        status, body = await batches.call("openai", "POST", "/v1/files", data=form)
        return status, body["error"]["message"]

    assert await upload(file=b"{}", purpose="batch") == (400, "Invalid file format for Batch API. Must be .jsonl")
    assert await upload(purpose="batch", other="x") == (400, "Missing required parameter: 'file'.")
    assert await upload(file=b"{}") == (400, "Missing required parameter: 'purpose'.")
    assert (await upload(file=b"{}", purpose="none"))[0] == 400
    status, body = await batches.call("openai", "POST", "/v1/files", json={})
    assert (status, "multipart" in body["error"]["message"]) == (400, True)
    assert (await batches.call("openai", "GET", "/v1/files"))[1]["data"] == []


async def test_a_file_comes_back_as_it_was_sent_and_belongs_to_its_key(batches: BatchClient) -> None:
    raw = jsonl(lines(40)) + "Ä line without an end ".encode() * 40_000
    file = await batches.upload(raw)
    assert file["bytes"] == len(raw)
    assert (await batches.call("openai", "GET", f"/v1/files/{file['id']}/content"))[1] == raw
    assert file["expires_at"] - file["created_at"] == 30 * 86_400
    other = BatchClient(batches.session, batches.simulator, key="key-2")
    assert (await other.call("openai", "GET", f"/v1/files/{file['id']}"))[0] == 404
    assert (await other.call("openai", "GET", "/v1/files"))[1]["data"] == []


async def test_files_of_results_live_as_long_as_was_asked(
    timed_batches: BatchClient, manual_clock: ManualClock
) -> None:
    policy = {"anchor": "created_at", "seconds": 3_600}
    batch = await timed_batches.submit(lines(1), output_expires_after=policy)
    manual_clock.advance(700)
    ended = await timed_batches.until(batch)
    path = f"/v1/files/{ended['output_file_id']}"
    assert (await timed_batches.call("openai", "GET", path))[0] == 200
    manual_clock.advance(3_600)
    assert (await timed_batches.call("openai", "GET", path))[0] == 404


async def test_what_was_answered_before_a_cancel_is_kept(timed_batches: BatchClient, manual_clock: ManualClock) -> None:
    batch = await timed_batches.submit(lines(40))
    manual_clock.advance(340)
    status, cancelling = await timed_batches.cancel(batch)
    assert (status, cancelling["status"], cancelling["cancelling_at"]) == (200, "cancelling", int(manual_clock.now()))
    assert (await timed_batches.cancel(batch))[1]["status"] == "cancelling"
    manual_clock.advance(41)
    ended = await timed_batches.look(batch)
    assert ended["status"] == "cancelled"
    good, bad = await timed_batches.rows(ended), await timed_batches.rows(ended, "error")
    assert 0 < len(good) < 40
    assert len(good) + len(bad) == 40
    assert {row["error"]["code"] for row in bad} == {"batch_cancelled"}
    assert ended["request_counts"] == {"total": 40, "completed": len(good), "failed": len(bad)}


async def test_a_batch_can_be_cancelled_before_it_is_checked_and_not_after_its_end(
    timed_batches: BatchClient, manual_clock: ManualClock
) -> None:
    early, whole, bad = [await timed_batches.submit(rows) for rows in (lines(2), lines(2), [b"{"])]
    assert (await timed_batches.cancel(early))[1]["status"] == "cancelling"
    manual_clock.advance(700)
    assert (await timed_batches.look(early))["status"] == "cancelled"
    for batch, state in ((whole, "completed"), (bad, "failed")):
        await timed_batches.until(batch, state)
        status, body = await timed_batches.cancel(batch)
        assert (status, body["error"]["message"]) == (409, f"Cannot cancel a batch with status '{state}'.")


async def test_what_is_not_there_is_not_found(batches: BatchClient) -> None:
    for method, path, text in (
        ("GET", "/v1/batches/batch_none", "No batch found with id 'batch_none'."),
        ("POST", "/v1/batches/batch_none/cancel", "No batch found with id 'batch_none'."),
        ("GET", "/v1/files/file-none/content", "No such File object: file-none"),
        ("DELETE", "/v1/files/file-none", "No such File object: file-none"),
    ):
        status, body = await batches.call("openai", method, path)
        assert (status, body["error"]["message"]) == (404, text)
    for path in ("/v1/batches?after=batch_none", "/v1/batches?limit=101", "/v1/files?limit=0", "/v1/files?order=up"):
        assert (await batches.call("openai", "GET", path))[0] == 400


async def test_no_key_no_files(batches: BatchClient) -> None:
    for path in ("/v1/files", "/v1/batches", "/v1/messages/batches"):
        status, body = await batches.call("control", "GET", path)
        assert (status, "error" in body) == (401, True)


async def test_the_body_of_a_row_is_that_of_an_interactive_answer(batches: BatchClient) -> None:
    ended = await batches.until(await batches.submit([line("one", chat_body(max_tokens=400))]))
    (row,) = await batches.rows(ended)
    _, now = await batches.call("openai", "POST", "/v1/chat/completions", json=chat_body(max_tokens=400))
    batched = row["response"]["body"]
    assert batched["choices"] == now["choices"]
    assert batched["usage"] == now["usage"] | {
        "prompt_tokens_details": batched["usage"]["prompt_tokens_details"],
    }
    assert list(batched) == list(now)
    assert json.dumps(row).count("gpt-6-sol") == 1

"""The official clients complete a batch each, and find in every object the published fields and no others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import anthropic
import openai
import pytest
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from openai.types import Batch, FileDeleted, FileObject
from pydantic import BaseModel

from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess
from tests.integration.simulator.batching import jsonl, line, lines, message_body, requests

_T = TypeVar("_T")


@pytest.fixture(scope="module")
def service() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--seed", "7", "--instant", "--batch-duration", "0.2"]) as running:
        yield running


@pytest.fixture
def claude(service: ProviderSimulatorProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="key-1", base_url=service.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(service: ProviderSimulatorProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="key-1", base_url=f"{service.base_url}/v1", max_retries=0) as client:
        yield client


def until(look: Callable[[], _T], done: Callable[[_T], bool], *, within: float = 20.0) -> list[_T]:
    """Everything seen up to the first thing that is `done`."""
    deadline = time.monotonic() + within
    seen = [look()]
    while not done(seen[-1]):
        assert time.monotonic() < deadline, seen[-1]
        time.sleep(0.01)
        seen.append(look())
    return seen


def unpublished(value: Any, where: str = "") -> list[str]:
    """Fields of an object, and of the objects in it, that its published type does not have; and those it lacks."""
    if isinstance(value, list | tuple):
        return [name for item in value for name in unpublished(item, where)]
    if not isinstance(value, BaseModel):
        return []
    here = f"{where}{type(value).__name__}."
    found = [here + name for name in value.model_extra or {}]
    # Sent values that do not fit their type are kept as they are: validating again finds them.
    type(value).model_validate(value.model_dump(by_alias=True), strict=False)
    return found + [name for field in type(value).model_fields for name in unpublished(getattr(value, field), here)]


def complete(value: BaseModel) -> bool:
    return set(type(value).model_fields) == value.model_fields_set


def test_the_openai_client_completes_a_batch(gpt: openai.OpenAI) -> None:
    file = gpt.files.create(file=("night.jsonl", jsonl(lines(12))), purpose="batch")
    created = gpt.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"job": "night-1"},
    )
    seen = until(lambda: gpt.batches.retrieve(created.id), lambda batch: batch.status == "completed")
    ended = seen[-1]
    assert created.status == "validating"
    assert (created.model, created.request_counts and created.request_counts.total) == (None, 0)
    assert ended.request_counts is not None
    assert ended.request_counts.model_dump() == {"total": 12, "completed": 12, "failed": 0}
    assert (ended.metadata, ended.model, ended.error_file_id) == ({"job": "night-1"}, "gpt-6-sol", None)
    assert ended.output_file_id is not None
    rows = [json.loads(row) for row in gpt.files.content(ended.output_file_id).iter_lines()]
    assert {row["custom_id"] for row in rows} == {f"item-{number}" for number in range(12)}
    assert [row["custom_id"] for row in rows] != [f"item-{number}" for number in range(12)]
    assert {row["response"]["status_code"] for row in rows} == {200}
    assert ended.usage is not None
    assert ended.usage.output_tokens == sum(row["response"]["body"]["usage"]["completion_tokens"] for row in rows)
    assert next(iter(gpt.batches.list(limit=1))).id == created.id
    objects: list[BaseModel] = [file, *seen, gpt.files.retrieve(file.id), gpt.files.retrieve(ended.output_file_id)]
    assert unpublished(objects) == []
    assert all(complete(item) for item in objects)
    assert {type(item) for item in objects} == {Batch, FileObject}


def test_the_openai_client_completes_a_batch_of_embeddings(gpt: openai.OpenAI) -> None:
    asked = [
        line(f"e-{n}", {"model": "text-embedding-3-small", "input": f"text {n}", "dimensions": 8}, url="/v1/embeddings")
        for n in range(3)
    ]
    file = gpt.files.create(file=("embeddings.jsonl", jsonl(asked)), purpose="batch")
    created = gpt.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    ended = until(lambda: gpt.batches.retrieve(created.id), lambda batch: batch.status == "completed")[-1]
    assert ended.output_file_id is not None
    rows = [json.loads(row) for row in gpt.files.content(ended.output_file_id).text.splitlines()]
    now = gpt.embeddings.create(model="text-embedding-3-small", input="text 1", dimensions=8, encoding_format="float")
    assert next(row for row in rows if row["custom_id"] == "e-1")["response"]["body"]["data"][0]["embedding"] == (
        now.data[0].embedding
    )


def test_the_openai_client_cancels_a_batch_and_deletes_its_file(
    gpt: openai.OpenAI, service: ProviderSimulatorProcess
) -> None:
    service.add_faults(Fault(kind="slow_batch", seconds=30))
    file = gpt.files.create(file=("cancelled.jsonl", jsonl(lines(3))), purpose="batch")
    created = gpt.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert gpt.batches.cancel(created.id).status == "cancelling"
    ended = until(lambda: gpt.batches.retrieve(created.id), lambda batch: batch.status == "cancelled")[-1]
    assert ended.cancelled_at is not None
    assert gpt.batches.cancel(created.id).status == "cancelled"
    deleted = gpt.files.delete(file.id)
    assert isinstance(deleted, FileDeleted)
    assert (deleted.id, deleted.deleted, unpublished(deleted)) == (file.id, True, [])
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        gpt.files.retrieve(file.id)


def test_the_openai_client_pages_through_files_and_batches(gpt: openai.OpenAI) -> None:
    made = [gpt.files.create(file=(f"page-{n}.jsonl", jsonl(lines(1))), purpose="batch").id for n in range(5)]
    listed = [file.id for file in gpt.files.list(limit=2, purpose="batch")]
    assert listed[:5] == made[::-1]
    assert [file.id for file in gpt.files.list(limit=2, purpose="batch", order="asc")] == listed[::-1]
    batches = [
        gpt.batches.create(input_file_id=name, endpoint="/v1/chat/completions", completion_window="24h").id
        for name in made
    ]
    assert [batch.id for batch in gpt.batches.list(limit=2)][:5] == batches[::-1]


def test_the_anthropic_client_completes_a_batch(claude: anthropic.Anthropic) -> None:
    created = claude.messages.batches.create(requests=requests(12))  # type: ignore[arg-type]
    seen = until(lambda: claude.messages.batches.retrieve(created.id), lambda batch: batch.processing_status == "ended")
    ended = seen[-1]
    assert created.processing_status == "in_progress"
    assert created.request_counts.processing == 12
    assert created.results_url is None
    assert all(batch.request_counts.processing == 12 for batch in seen[:-1])
    assert ended.request_counts.model_dump() == {
        "processing": 0,
        "succeeded": 12,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    assert ended.ended_at is not None
    assert ended.results_url == f"{str(claude.base_url).rstrip('/')}/v1/messages/batches/{created.id}/results"
    results = list(claude.messages.batches.results(created.id))
    assert {row.custom_id for row in results} == {f"item-{number}" for number in range(12)}
    assert [row.custom_id for row in results] != [f"item-{number}" for number in range(12)]
    for row in results:
        assert row.result.type == "succeeded"
        assert row.result.message.usage.service_tier == "batch"
    assert next(iter(claude.messages.batches.list(limit=1))).id == created.id
    objects: list[BaseModel] = [*seen, *results]
    assert unpublished(objects) == []
    assert all(complete(batch) for batch in seen)
    assert {type(item) for item in objects} == {MessageBatch, MessageBatchIndividualResponse}


def test_the_anthropic_client_sees_each_kind_of_result(
    claude: anthropic.Anthropic, service: ProviderSimulatorProcess
) -> None:
    asked = [*requests(3), {"custom_id": "wrong", "params": {"model": "claude-none", "max_tokens": 5, "messages": []}}]
    created = claude.messages.batches.create(requests=asked)  # type: ignore[arg-type]
    until(lambda: claude.messages.batches.retrieve(created.id), lambda batch: batch.processing_status == "ended")
    results = {row.custom_id: row for row in claude.messages.batches.results(created.id)}
    wrong = results["wrong"].result
    assert wrong.type == "errored"
    assert (wrong.error.error.type, wrong.error.error.message) == ("not_found_error", "model: claude-none")
    assert unpublished(list(results.values())) == []


def test_the_anthropic_client_cancels_and_deletes_a_batch(
    claude: anthropic.Anthropic, service: ProviderSimulatorProcess
) -> None:
    service.add_faults(Fault(kind="slow_batch", seconds=30))
    created = claude.messages.batches.create(requests=requests(64))  # type: ignore[arg-type]
    with pytest.raises(anthropic.BadRequestError, match="In progress batches cannot be deleted"):
        claude.messages.batches.delete(created.id)
    canceling = claude.messages.batches.cancel(created.id)
    assert (canceling.processing_status, canceling.cancel_initiated_at is not None) == ("canceling", True)
    ended = until(
        lambda: claude.messages.batches.retrieve(created.id), lambda batch: batch.processing_status == "ended"
    )[-1]
    counts = ended.request_counts
    assert counts.canceled > 0
    assert counts.canceled + counts.succeeded == 64
    kinds = [row.result.type for row in claude.messages.batches.results(created.id)]
    assert kinds.count("canceled") == counts.canceled
    deleted = claude.messages.batches.delete(created.id)
    assert isinstance(deleted, DeletedMessageBatch)
    assert (deleted.id, deleted.type, unpublished(deleted)) == (created.id, "message_batch_deleted", [])
    with pytest.raises(anthropic.NotFoundError, match=r"Message Batch msgbatch_\w+ not found"):
        claude.messages.batches.retrieve(created.id)


def test_the_anthropic_client_pages_through_batches_both_ways(claude: anthropic.Anthropic) -> None:
    made = [claude.messages.batches.create(requests=requests(1)).id for _ in range(5)]  # type: ignore[arg-type]
    assert [batch.id for batch in claude.messages.batches.list(limit=2)][:5] == made[::-1]
    page = claude.messages.batches.list(limit=2, before_id=made[0])
    assert ([batch.id for batch in page.data], page.has_more) == ([made[2], made[1]], True)
    assert [batch.id for batch in page][-2:] == [made[4], made[3]]
    last = claude.messages.batches.list(limit=2, before_id=made[3])
    assert (last.first_id, last.last_id, last.has_more) == (made[4], made[4], False)


def test_the_same_body_gives_the_same_words_in_a_batch_and_at_once(claude: anthropic.Anthropic) -> None:
    body = message_body(max_tokens=400)
    created = claude.messages.batches.create(requests=[{"custom_id": "one", "params": body}])  # type: ignore[typeddict-item]
    until(lambda: claude.messages.batches.retrieve(created.id), lambda batch: batch.processing_status == "ended")
    (row,) = claude.messages.batches.results(created.id)
    now = claude.messages.create(**body)
    assert row.result.type == "succeeded"
    assert row.result.message.content == now.content
    assert row.result.message.usage.output_tokens == now.usage.output_tokens

"""What LiteLLM is asked about batches of providers that nobody can try here, and what its answers are taken for."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from guidance_agent.errors import MidStreamError, ModelError
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.providers.base import CachePlan, Endpoint, ModelTraits
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batch import load_object
from guidance_agent.llm.transports.batches import litellm as way
from guidance_agent.llm.transports.batches.base import BatchPlace, surely_not_accepted
from guidance_agent.llm.transports.batches.litellm import LiteLLMBatches
from guidance_agent.settings import TimeoutSettings

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class APIError(Exception):
    """Stands for LiteLLM's own."""


class Fake:
    """A LiteLLM that answers as it is told, and remembers what it was asked."""

    APIError = APIError

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        async def answer(**arguments: Any) -> Any:
            self.asked.append((name, arguments))
            return self.answers[name](arguments)

        return answer


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()

    async def loaded() -> Any:
        return SimpleNamespace(litellm=fake, tap=None)

    monkeypatch.setattr(way, "_loaded", loaded)
    return fake


def place(provider: str, model: str = "anthropic.claude-haiku-5-5", **headers: str) -> BatchPlace:
    endpoint = Endpoint(provider=provider, base_url=None, wire=None, api_key="sk-secret", headers=headers)
    return BatchPlace(endpoint=endpoint, timeouts=TimeoutSettings(), model=model)


def shown(name: str, status: str = "in_progress", **fields: Any) -> dict[str, Any]:
    return {"id": name, "status": status, "created_at": 1_790_000_000, **fields}


def refused(status: int) -> Callable[[dict[str, Any]], Any]:
    def answer(_: dict[str, Any]) -> Any:
        request = httpx.Request("POST", "http://127.0.0.1/v1/batches")
        response = httpx.Response(status, json={"error": {"message": "sk-secret is no key"}}, request=request)
        raise APIError from httpx.HTTPStatusError("refused", request=request, response=response)

    return answer


def raising(error: Exception) -> Callable[[dict[str, Any]], Any]:
    def answer(_: dict[str, Any]) -> Any:
        raise error

    return answer


@pytest.mark.parametrize("provider", ["bedrock", "mistral"])
async def test_where_litellm_has_to_know_the_model_it_is_told(litellm: Fake, provider: str) -> None:
    litellm.answers = {name: lambda _: shown("batch_1") for name in ("acreate_batch", "aretrieve_batch")}
    wire = LiteLLMBatches(provider)
    await wire.create(place(provider, region="eu"), "key-1", "file-1")
    await wire.find(place(provider), "batch_1")
    (_, created), (_, looked) = litellm.asked
    assert created["model"] == looked["model"] == f"{provider}/anthropic.claude-haiku-5-5"
    assert (created["metadata"], created["extra_headers"]) == ({"guidance_agent_batch": "key-1"}, {"region": "eu"})
    assert not wire.lists


@pytest.mark.parametrize("provider", ["azure", "vertex_ai", "xai", "hosted_vllm", "somebody"])
async def test_litellm_neither_retries_nor_downloads_results_nor_tells_callbacks(litellm: Fake, provider: str) -> None:
    litellm.answers = {"aretrieve_batch": lambda _: shown("batch_1", "completed", output_file_id="file-2")}
    found = await LiteLLMBatches(provider).find(place(provider), "batch_1")
    (_, asked) = litellm.asked[0]
    assert (asked["max_retries"], asked["no-log"]) == (0, True)
    assert asked["litellm_metadata"] == {"batch_ignore_default_logging": True}
    assert asked["custom_llm_provider"] == ("openai" if provider == "somebody" else provider)
    assert "model" not in asked
    assert found is not None
    assert (found.state, found.results) == ("ended", ("file-2",))


async def test_a_refusal_with_a_status_made_no_batch_and_tells_no_key(litellm: Fake) -> None:
    litellm.answers = {"acreate_batch": refused(400)}
    with pytest.raises(ModelError) as caught:
        await LiteLLMBatches("azure").create(place("azure"), "key-1", "file-1")
    assert surely_not_accepted(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "error", [APIError("Connection error."), ConnectionError("gone"), TimeoutError(), httpx.ConnectError("no route")]
)
async def test_whatever_is_no_refusal_leaves_it_open_whether_there_is_a_batch(litellm: Fake, error: Exception) -> None:
    litellm.answers = {"acreate_batch": raising(error)}
    with pytest.raises(ModelError) as caught:
        await LiteLLMBatches("azure").create(place("azure"), "key-1", "file-1")
    assert not surely_not_accepted(caught.value)


async def test_a_batch_that_is_not_there_is_none(litellm: Fake) -> None:
    litellm.answers = {"aretrieve_batch": refused(404)}
    assert await LiteLLMBatches("azure").find(place("azure"), "batch_1") is None


async def test_what_cannot_be_cancelled_goes_on(litellm: Fake) -> None:
    await LiteLLMBatches("mistral").cancel(place("mistral"), "batch_1")
    assert litellm.asked == []


async def test_a_list_is_read_to_its_end_and_not_in_circles(litellm: Fake) -> None:
    pages = {
        None: {"data": [shown("batch_3"), shown("batch_2")], "has_more": True},
        "batch_2": {"data": [shown("batch_1")], "has_more": True},
        "batch_1": {"data": [shown("batch_1")], "has_more": True},
    }
    litellm.answers = {"alist_batches": lambda asked: pages[asked["after"]]}
    found = [batch.id async for batch in LiteLLMBatches("vertex_ai").listed(place("vertex_ai"), LONG_AGO)]
    assert found[:3] == ["batch_3", "batch_2", "batch_1"]
    assert len(litellm.asked) == 3


async def test_results_that_come_as_a_whole_are_read_by_lines(litellm: Fake) -> None:
    rows = b'{"custom_id": "a-1", "error": {"code": "batch_expired", "message": "late"}}\n\nno row\n'
    litellm.answers = {"afile_content": lambda _: SimpleNamespace(content=rows, headers={})}
    wire = LiteLLMBatches("vertex_ai")
    batch = wire._batch(place("vertex_ai"), shown("batch_1", "completed", output_file_id="file-2"))
    found = [row async for row in wire.rows(place("vertex_ai"), batch)]
    assert [(row.wire_id, row.outcome) for row in found] == [("a-1", "expired"), (None, "succeeded")]
    assert litellm.asked[0][1]["stream"] is False


async def test_results_that_break_off_are_told_as_such(litellm: Fake) -> None:
    async def pieces() -> Any:
        yield b'{"custom_id": "a-1"'
        raise httpx.ReadError("gone")

    litellm.answers = {"afile_content": lambda _: SimpleNamespace(stream_iterator=pieces(), headers={})}
    wire = LiteLLMBatches("hosted_vllm")
    batch = wire._batch(place("hosted_vllm"), shown("batch_1", "completed", output_file_id="file-2"))
    with pytest.raises(MidStreamError):
        _ = [row async for row in wire.rows(place("hosted_vllm"), batch)]


async def test_an_upload_has_the_name_of_its_batch(litellm: Fake) -> None:
    litellm.answers = {"acreate_file": lambda _: SimpleNamespace(id="file-1")}
    assert await LiteLLMBatches("azure").upload(place("azure"), "key-1", io.BytesIO(b"rows")) == "file-1"
    (_, asked) = litellm.asked[0]
    assert (asked["file"][0], asked["purpose"]) == ("key-1.jsonl", "batch")


def test_a_row_is_one_of_openai_without_marks_of_a_cache() -> None:
    call = PreparedCall(
        request=ModelRequest(model="azure/my-deployment", messages=(Message("user", "Hello."),), max_tokens=20),
        endpoint=place("azure").endpoint,
        traits=ModelTraits(),
        plan=CachePlan(caching="none"),
        timeouts=TimeoutSettings(),
    )
    row = load_object(LiteLLMBatches("azure").row("a-1", call))
    assert (row["custom_id"], row["url"], row["body"]["model"]) == ("a-1", "/v1/chat/completions", "my-deployment")

"""Typed answers over HTTP: how the schema reaches a model, and how much room an answer has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from guidance_agent.errors import StructuredOutputError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.structured import answer_schema, complete
from guidance_agent.provider_simulator import ProviderSimulator
from tests.integration.llm.cache_marks import blocks_of


class Opinion(BaseModel):
    verdict: Literal["permitted", "breach"]
    confidence: float = Field(ge=0, le=1)


def sent_schema(body: Mapping[str, Any]) -> Any:
    if "output_config" in body:
        return body["output_config"]["format"]["schema"]
    return body.get("response_format", {}).get("json_schema", {}).get("schema")


def words(body: Mapping[str, Any]) -> list[str]:
    return [block.text for block in blocks_of(body) if block.role == "system" and "<json_schema>" in block.text]


async def test_a_model_that_takes_schemas_is_sent_one_that_every_provider_takes(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Callable[..., ModelRequest]
) -> None:
    answered = await complete(gateway, ask(model), output=Opinion)
    assert answered.value.verdict == "permitted"
    assert answered.completion.call.operation == "completion"
    [record] = simulator.requests
    assert sent_schema(record.body) == answer_schema(Opinion)
    assert not words(record.body)


async def test_where_another_model_may_answer_the_schema_is_told_in_words_too(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Callable[..., ModelRequest]
) -> None:
    await complete(gateway, ask(model, fallbacks=("anthropic/claude-opus-5",)), output=Opinion)
    [record] = simulator.requests
    assert sent_schema(record.body) == answer_schema(Opinion)
    [told] = words(record.body)
    assert json.loads(told.partition("<json_schema>")[2].partition("</json_schema>")[0]) == answer_schema(Opinion)


async def test_the_words_stand_between_the_system_s_messages_and_the_conversation(
    open_gateway: Callable[..., ModelGateway], simulator: ProviderSimulator
) -> None:
    local = {"base_url": f"{simulator.base_url}/v1", "api_key": "k"}
    gateway = open_gateway(simulator.base_url, providers={"groq": local})
    messages = (Message("system", "One."), Message("system", "Two."), Message("user", "Three."))
    await complete(gateway, ModelRequest(model="groq/gpt-6-sol", messages=messages), output=Opinion)
    [record] = simulator.requests
    assert sent_schema(record.body) is None
    texts = [block.text for block in blocks_of(record.body) if block.text]
    assert (texts[:2], texts[3:]) == (["One.", "Two."], ["Three."])
    assert texts[2] == words(record.body)[0]


@pytest.mark.parametrize(("name", "limit"), [("claude-opus-5-5", 600), ("claude-haiku-5-5", 100)])
async def test_only_a_model_that_cannot_but_think_gets_room_for_it(
    gateway: ModelGateway, simulator: ProviderSimulator, name: str, limit: int, ask: Callable[..., ModelRequest]
) -> None:
    request = ask(f"anthropic/{name}", max_tokens=100)
    await complete(gateway, request, output=Opinion, thinking_tokens=500)
    assert simulator.requests[-1].body["max_tokens"] == limit


async def test_an_answer_that_cannot_be_read_is_on_record_with_its_cost(
    gateway: ModelGateway,
    simulator: ProviderSimulator,
    model: str,
    ask: Callable[..., ModelRequest],
    calls: list[Any],
) -> None:
    simulator.faults.script("Surely not.")
    with pytest.raises(StructuredOutputError) as raised:
        await complete(gateway, ask(model), output=Opinion)
    [call] = calls
    assert call.outcome == "completed"
    assert raised.value.cost_usd == call.cost.usd
    assert raised.value.request_id == call.request_id

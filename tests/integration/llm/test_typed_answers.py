"""Typed answers asked for again over HTTP: corrections, temperatures, repairs, and the simulator's faults survived."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from guidance_agent.errors import StructuredOutputError
from guidance_agent.llm.concurrent import BatchConfig, BatchRequest, batch_complete
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import ModelCall, ModelRequest
from guidance_agent.llm.structured import complete, schema_of
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script

Ask = Callable[..., ModelRequest]


class Opinion(BaseModel):
    verdict: Literal["permitted", "breach"]
    reason: str
    share: float = Field(ge=0, le=1)


GOOD = '{"verdict": "breach", "reason": "It tells her what to do.", "share": 0.5}'
BAD = {
    "trailing_comma": GOOD[:-1] + ",}",
    "unterminated": '{"verdict": "breach", "reason": "It tells her, ',
    "missing_value": '{"verdict": , "reason": "It tells her.", "share": 0.5}',
    "wrong_structure": "{'verdict': 'breach'}",
    "extra_data": f"Here it is: {GOOD} I hope it helps.",
    "schema_violation": '{"verdict": "unclear", "reason": "It tells her.", "share": 2}',
}


def last_text(simulator: ProviderSimulator) -> str:
    content = simulator.requests[-1].body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


@pytest.mark.parametrize("kind", BAD)
async def test_an_answer_that_cannot_be_read_is_asked_for_again_with_words_for_its_fault(
    kind: str, gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.script(BAD[kind])
    simulator.faults.script(GOOD)
    answered = await complete(gateway, ask(model), output=Opinion, attempts=3)
    assert (answered.value.verdict, answered.attempts, answered.repairs) == ("breach", 2, ())
    first, second = simulator.requests
    assert len(second.body["messages"]) == len(first.body["messages"]) + 2
    told = {
        "trailing_comma": "a comma stands before a closing bracket",
        "unterminated": "still open",
        "missing_value": "a value is missing, at character 13",
        "wrong_structure": "double quotes",
        "extra_data": "no words before or after it",
        "schema_violation": "- verdict: Input should be 'permitted' or 'breach'",
    }
    assert told[kind] in last_text(simulator)


async def test_the_temperature_falls_with_the_attempts_and_never_rises(
    gateway: ModelGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.script(BAD["schema_violation"], times=None)
    for given, sent in ((1.0, [1.0, 0.4, 0.2, 0.0]), (0.3, [0.3, 0.3, 0.2, 0.0])):
        with pytest.raises(StructuredOutputError) as raised:
            await complete(gateway, ask("openai/gpt-4.1-mini", temperature=given), output=Opinion, attempts=4)
        assert raised.value.attempts == 4
        assert [record.body["temperature"] for record in list(simulator.requests)[-4:]] == sent


async def test_the_error_of_the_last_attempt_has_the_cost_of_all(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask, calls: list[ModelCall]
) -> None:
    simulator.faults.script(BAD["missing_value"], times=None)
    with pytest.raises(StructuredOutputError) as raised:
        await complete(gateway, ask(model), output=Opinion, attempts=3)
    assert raised.value.cost_usd == pytest.approx(sum(call.cost.usd for call in calls if call.cost))
    assert len(calls) == 3
    assert raised.value.fault.kind == "missing_value"


async def test_an_answer_that_was_cut_off_gets_more_room_up_to_a_bound(
    gateway: ModelGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="max_tokens", times=None, after_chunks=1))
    with pytest.raises(StructuredOutputError):
        await complete(gateway, ask("openai/gpt-4.1-mini", max_tokens=50), output=Opinion, attempts=5, repair=True)
    asked = [record.body.get("max_tokens") or record.body["max_completion_tokens"] for record in simulator.requests]
    assert asked == [50, 100, 200, 200, 200]


async def test_a_refusal_is_not_asked_again(gateway: ModelGateway, simulator: ProviderSimulator, ask: Ask) -> None:
    simulator.faults.add(Fault(kind="refusal", times=None))
    with pytest.raises(StructuredOutputError) as raised:
        await complete(gateway, ask("anthropic/claude-haiku-5-5"), output=Opinion, attempts=3)
    assert (raised.value.kind, raised.value.attempts, len(simulator.requests)) == ("refusal", 1, 1)


async def test_judges_ask_once_and_repair_nothing(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.script(BAD["trailing_comma"])
    with pytest.raises(StructuredOutputError):
        await complete(gateway, ask(model), output=Opinion)
    assert len(simulator.requests) == 1


@pytest.mark.parametrize(
    ("said", "repairs"),
    [
        (BAD["trailing_comma"], ("trailing_comma",)),
        (f"```json\n{GOOD}\n```", ("code_fence",)),
        ('{"share": 0.5, "verdict": "breach", "reason": "It tells her."', ("closed_brackets",)),
    ],
)
async def test_what_is_safe_is_repaired_and_said(
    said: str, repairs: tuple[str, ...], gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.script(said)
    answered = await complete(gateway, ask(model), output=Opinion, repair=True)
    assert (answered.value.share, answered.repairs, answered.attempts) == (0.5, repairs, 1)


async def test_a_json_schema_does_in_the_place_of_a_model(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    schema = dict(schema_of(Opinion))
    simulator.faults.script('{"verdict": "unclear", "reason": "x", "share": 0.5}')
    simulator.faults.script(GOOD)
    answered = await complete(gateway, ask(model), output=schema, attempts=2)
    assert answered.value == {"verdict": "breach", "reason": "It tells her what to do.", "share": 0.5}
    assert "- verdict: " in last_text(simulator)


async def test_a_schema_that_cannot_be_satisfied_ends_with_the_attempts(
    gateway: ModelGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {}}}, "required": ["a"], "additionalProperties": False}
    with pytest.raises(StructuredOutputError) as raised:
        await complete(gateway, ask("openai/gpt-6-luna"), output=schema, attempts=3)
    assert (raised.value.attempts, len(simulator.requests)) == (3, 3)


async def test_each_request_of_a_batch_may_have_a_schema(gateway: ModelGateway, simulator: ProviderSimulator) -> None:
    simulator.faults.script(BAD["trailing_comma"])
    simulator.faults.script(BAD["missing_value"], times=None)
    requests: list[Any] = [
        BatchRequest(user_message="a", response_schema=Opinion),
        BatchRequest(user_message="b", response_schema=Opinion),
    ]
    config = BatchConfig(max_concurrent=1, schema_attempts=2)
    response = await batch_complete(requests, "openai/gpt-6-luna", gateway=gateway, config=config)
    read, unread = response.results
    assert isinstance(read.parsed, Opinion)
    assert read.repaired == ("trailing_comma",)
    assert (unread.parsed, unread.success, unread.outcome) == (None, False, "invalid")
    assert unread.error_type == "StructuredOutputError"
    assert len(simulator.requests) == 3


@pytest.mark.parametrize("repair", [True, False])
async def test_at_least_99_of_100_typed_answers_come_within_three_attempts_whatever_the_faults(
    repair: bool, gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    for text in BAD.values():
        simulator.faults.add(Fault(kind="script", times=None, share=0.03, script=Script(text=text)))
    requests = [BatchRequest(user_message=f"Judge reply {number}.", response_schema=Opinion) for number in range(300)]
    config = BatchConfig(max_concurrent=30, schema_attempts=3, repair=repair)
    response = await batch_complete(requests, "openai/gpt-6-luna", gateway=gateway, config=config)
    asked = len(simulator.requests)
    assert response.succeeded >= 0.99 * 300
    assert asked <= 3 * 300
    assert asked >= 300 + (10 if repair else 25)

"""Retries and fallbacks happen before the first token and never after it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MidStreamError,
    ModelError,
    ModelTimeoutError,
    ProviderUnavailableError,
    QuotaExhaustedError,
    RateLimitedError,
)
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import ModelCall, ModelRequest
from guidance_agent.provider_simulator import Fault, ProviderSimulator

Ask = Callable[..., ModelRequest]
OpenGateway = Callable[..., ModelGateway]

FAST = {"max_attempts": 3, "backoff_factor": 0.01}
ANTHROPIC, OPENAI = "anthropic/claude-haiku-5-5", "openai/gpt-6-luna"


@pytest.fixture
def patient(open_gateway: OpenGateway, simulator: ProviderSimulator) -> ModelGateway:
    return open_gateway(simulator.base_url, retry=FAST, rng=random.Random(1))


async def text_of(gateway: ModelGateway, request: ModelRequest) -> str:
    return "".join([delta.text async for delta in gateway.stream(request)])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=529, times=2),
        Fault(kind="status", status=500, times=2),
        Fault(kind="status", status=429, times=2),
        Fault(kind="accept_then_drop", times=2),
        Fault(kind="error_event", times=2),
        Fault(kind="truncate", times=2),
        Fault(kind="drop", times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_a_failure_before_the_first_token_is_tried_again(
    fault: Fault, patient: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    simulator.faults.add(fault)
    assert len(await text_of(patient, ask(model))) > 100
    assert len(simulator.requests) == 3
    assert [(call.outcome, call.attempts) for call in calls] == [("completed", 3)]


async def test_whole_answers_are_tried_again_too(
    patient: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=503, times=2))
    assert (await patient.complete(ask(model))).call.attempts == 3


async def test_the_last_error_is_raised_when_the_attempts_are_used_up(
    patient: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=529, times=None))
    with pytest.raises(ProviderUnavailableError) as caught:
        await text_of(patient, ask(model))
    assert caught.value.status == 529
    assert len(simulator.requests) == 3
    assert [(call.outcome, call.usage, call.cost) for call in calls] == [("error:ProviderUnavailableError", None, None)]
    assert calls[0].request_id


@pytest.mark.parametrize("kind", ["error_event", "truncate", "drop"])
async def test_nothing_is_tried_again_after_the_first_token(
    kind: str, patient: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault.model_validate({"kind": kind, "after_chunks": 3}))
    other = OPENAI if model == ANTHROPIC else ANTHROPIC
    stream = patient.stream(ask(model, fallbacks=(other,)))
    with pytest.raises(ModelError):
        async for _ in stream:
            pass
    assert len(simulator.requests) == 1
    if kind != "drop":
        assert stream.text_length > 0


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_a_retry_does_not_cure_is_asked_once(
    status: int, patient: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=status, times=None))
    with pytest.raises(ModelError):
        await text_of(patient, ask(model))
    assert len(simulator.requests) == 1


async def test_an_exhausted_quota_is_asked_once(patient: ModelGateway, simulator: ProviderSimulator, ask: Ask) -> None:
    simulator.faults.add(Fault(kind="status", status=429, insufficient_quota=True, times=None))
    with pytest.raises(QuotaExhaustedError):
        await text_of(patient, ask(OPENAI))
    assert len(simulator.requests) == 1


async def test_retry_after_is_waited_for(
    patient: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=429, retry_after=0.3))
    began = time.monotonic()
    await text_of(patient, ask(model))
    assert time.monotonic() - began >= 0.3


async def test_a_wish_beyond_the_longest_wait_fails_at_once(
    open_gateway: OpenGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=429, retry_after=600, times=None))
    gateway = open_gateway(simulator.base_url, retry=FAST | {"max_wait": 30})
    with pytest.raises(RateLimitedError) as caught:
        await text_of(gateway, ask(model))
    assert caught.value.retry_after == 600
    assert len(simulator.requests) == 1


async def test_retry_after_on_a_success_is_not_waited_for(
    open_gateway: OpenGateway, byte_server: object, ask: Ask
) -> None:
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    byte_server.answer(200, body, "text/event-stream", retry_after="600")  # type: ignore[attr-defined]
    assert await text_of(open_gateway(byte_server.base_url), ask(OPENAI)) == "Hi"  # type: ignore[attr-defined]


async def test_a_provider_may_have_retry_settings_of_its_own(
    open_gateway: OpenGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=500, times=None))
    gateway = open_gateway(
        simulator.base_url, retry=FAST, providers={"openai": {"retry": {"max_attempts": 5, "backoff_factor": 0.01}}}
    )
    for model in (ANTHROPIC, OPENAI):
        with pytest.raises(ProviderUnavailableError):
            await text_of(gateway, ask(model))
    assert [record.model for record in simulator.requests] == ["claude-haiku-5-5"] * 3 + ["gpt-6-luna"] * 5


async def test_an_operation_may_have_retry_settings_of_its_own_whichever_way_it_is_asked(
    open_gateway: OpenGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=500, times=None))
    gateway = open_gateway(
        simulator.base_url,
        retry=FAST,
        providers={"openai": {"retry": {"max_attempts": 4}}},
        operations={
            "reasoning": {"retry": {"max_attempts": 1}},
            "importance": {"retry": {"backoff_factor": 0.02}},
            "embedding": {"retry": {"max_attempts": 2}},
        },
    )
    asked = {}
    for operation in ("guidance", "reasoning", "importance"):
        with pytest.raises(ProviderUnavailableError):
            await text_of(gateway, ask(OPENAI, operation=operation))
        streamed = len(simulator.requests)
        with pytest.raises(ProviderUnavailableError):
            await gateway.complete(ask(OPENAI, operation=operation))
        asked[operation] = (streamed, len(simulator.requests) - streamed)
        simulator.requests.clear()
    with pytest.raises(ProviderUnavailableError):
        await gateway.embed("openai/text-embedding-3-small", ["text"])
    assert asked == {"guidance": (4, 4), "reasoning": (1, 1), "importance": (4, 4)}
    assert len(simulator.requests) == 2


async def test_a_fallback_is_tried_by_the_settings_of_its_own_provider_and_of_the_operation(
    open_gateway: OpenGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=500, times=None))
    gateway = open_gateway(
        simulator.base_url,
        retry=FAST,
        providers={"anthropic": {"retry": {"max_attempts": 1}}, "openai": {"retry": {"max_attempts": 4}}},
        operations={"guidance": {"retry": {"backoff_factor": 0.0}}},
    )
    with pytest.raises(ProviderUnavailableError):
        await text_of(gateway, ask(ANTHROPIC, operation="guidance", fallbacks=(OPENAI,)))
    assert [record.model for record in simulator.requests] == ["claude-haiku-5-5"] + ["gpt-6-luna"] * 4


async def test_the_deadline_ends_an_attempt_that_stalls(
    open_gateway: OpenGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="slow_headers", times=None))
    gateway = open_gateway(simulator.base_url, retry=FAST | {"deadline": 0.3})
    with pytest.raises(ModelTimeoutError, match="deadline"):
        await text_of(gateway, ask(model))
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500, 529])
async def test_a_model_that_fails_is_replaced_by_the_first_fallback_that_works(
    status: int, patient: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=status, model="claude-haiku-5-5", times=None))
    simulator.faults.add(Fault(kind="status", status=status, model="claude-sonnet-5-5", times=None))
    stream = patient.stream(ask(ANTHROPIC, fallbacks=("anthropic/claude-sonnet-5-5", OPENAI)))
    async for _ in stream:
        pass
    assert stream.model == OPENAI
    [call] = calls
    assert (call.model, call.requested_model, call.outcome) == (OPENAI, ANTHROPIC, "completed")
    assert call.provider == "openai"


async def test_when_all_fail_the_first_models_error_is_raised_and_the_others_noted(
    patient: ModelGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="status", status=401, model="claude", times=None))
    simulator.faults.add(Fault(kind="status", status=500, model="gpt", times=None))
    with pytest.raises(AuthenticationError) as caught:
        await text_of(patient, ask(ANTHROPIC, fallbacks=("mistral/mistral-large", OPENAI)))
    notes = " ".join(caught.value.__notes__)
    assert "mistral/mistral-large" in notes
    assert OPENAI in notes
    assert "500" in notes


async def test_a_refused_request_is_not_taken_to_another_model(
    patient: ModelGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(
        Fault(kind="status", status=400, message="prompt is too long: 9 tokens > 8 maximum", times=None)
    )
    with pytest.raises(ContextWindowExceededError):
        await text_of(patient, ask(ANTHROPIC, fallbacks=(OPENAI,)))
    assert len(simulator.requests) == 1


async def test_an_error_event_before_the_first_token_names_its_status(
    open_gateway: OpenGateway, simulator: ProviderSimulator, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind="error_event", status=529))
    with pytest.raises(MidStreamError) as caught:
        await text_of(open_gateway(simulator.base_url), ask(ANTHROPIC))
    assert caught.value.status == 529

"""No word of a provider's message decides what an error is: status and code alone do, on every transport."""

from __future__ import annotations

import pytest

from guidance_agent.errors import MidStreamError, ModelError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script, SimulatorSettings
from tests.conformance.subjects import SUBJECTS, Subject, open_gateway
from tests.fault_matrix.runner import warm

STATUSES = (400, 401, 429, 503)
WORDS = (
    "Incorrect API key provided: the access token has expired, authentication failed",
    "rate_limit_exceeded: too many requests, insufficient_quota, your credit balance is too low, try again in 20s",
    "the prompt is too long: maximum context length exceeded, too many input tokens, context_length_exceeded",
    "Overloaded: overloaded_error, server_error, timeout, 529; the model does not exist, model_not_found",
    "No module named 'mcp': error parsing chunk, content_policy_violation",
)


async def error_of(gateway: ModelGateway, subject: Subject, *, streamed: bool) -> ModelError:
    request = ModelRequest(model=subject.model, messages=(Message("user", "What is drawdown?"),))
    with pytest.raises(ModelError) as caught:
        if streamed:
            async for _ in gateway.stream(request):
                pass
        else:
            await gateway.complete(request)
    return caught.value


def said(error: ModelError) -> tuple[object, ...]:
    return type(error), error.status, error.code, error.retryable, error.retry_after


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
async def test_an_error_status_means_the_same_whatever_the_message_says(subject: Subject, streamed: bool) -> None:
    await warm(subject)
    async with (
        ProviderSimulator(SimulatorSettings.instant()) as simulator,
        open_gateway(subject, simulator.base_url) as gateway,
    ):
        for status in STATUSES:
            simulator.faults.add(Fault(kind="status", status=status))
            plain = said(await error_of(gateway, subject, streamed=streamed))
            for words in WORDS:
                simulator.faults.add(Fault(kind="status", status=status, message=words))
                assert said(await error_of(gateway, subject, streamed=streamed)) == plain, (status, words)


async def test_a_provider_on_connections_of_litellms_own_is_understood_by_its_status_too() -> None:
    served = SimulatorSettings.instant().but(any_model=True)
    cerebras = Subject(wire="openai", transport="litellm", model="cerebras/llama-9")
    async with ProviderSimulator(served) as simulator:
        provider = {"cerebras": {"base_url": f"{simulator.base_url}/v1", "api_key": "sk-test-123456"}}
        async with open_gateway(cerebras, simulator.base_url, providers=provider) as gateway:
            for status in STATUSES:
                simulator.faults.add(Fault(kind="status", status=status))
                plain = said(await error_of(gateway, cerebras, streamed=False))
                for words in WORDS:
                    simulator.faults.add(Fault(kind="status", status=status, message=words))
                    assert said(await error_of(gateway, cerebras, streamed=False)) == plain, (status, words)


@pytest.mark.parametrize("after_chunks", [0, 2], ids=["before the first text", "after the first text"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
async def test_an_error_in_a_stream_means_the_same_whatever_the_message_says(
    subject: Subject, after_chunks: int
) -> None:
    await warm(subject)
    script = Script(pieces=("One. ", "Two. ", "Three."))
    async with (
        ProviderSimulator(SimulatorSettings.instant()) as simulator,
        open_gateway(subject, simulator.base_url) as gateway,
    ):
        for status in (400, 529):
            fault = Fault(kind="error_event", status=status, after_chunks=after_chunks, script=script)
            simulator.faults.add(fault)
            plain = await error_of(gateway, subject, streamed=True)
            assert type(plain) is MidStreamError
            assert plain.retryable is (status != 400)
            for words in WORDS:
                simulator.faults.add(fault.model_copy(update={"message": words}))
                assert said(await error_of(gateway, subject, streamed=True)) == said(plain), (status, words)

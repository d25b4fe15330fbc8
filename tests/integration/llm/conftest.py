"""A gateway before a simulator, or before a server that sends exactly the bytes it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings
from tests.conformance.byte_server import ByteServer

KEYS = {"ANTHROPIC_API_KEY": "sk-ant-test-123456", "OPENAI_API_KEY": "sk-test-123456"}


class CallList(list[ModelCall]):
    """A usage sink that keeps what it is given."""

    def record(self, call: ModelCall) -> None:
        self.append(call)


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


@pytest.fixture
async def byte_server() -> AsyncIterator[ByteServer]:
    async with ByteServer() as running:
        yield running


@pytest.fixture
def calls() -> CallList:
    return CallList()


@pytest.fixture(params=["anthropic/claude-haiku-5-5", "openai/gpt-6-luna"], ids=["anthropic", "openai"])
def model(request: pytest.FixtureRequest) -> str:
    """One model on each wire format."""
    name: str = request.param
    return name


@pytest.fixture
def ask() -> Callable[..., ModelRequest]:
    """Make a request with one short question."""

    def make(model: str, **fields: Any) -> ModelRequest:
        messages = (Message("system", "You explain pensions."), Message("user", "What is drawdown?"))
        return ModelRequest(**({"model": model, "messages": messages} | fields))

    return make


@pytest.fixture
async def open_gateway(calls: CallList) -> AsyncIterator[Callable[..., ModelGateway]]:
    """Open gateways whose providers all stand at one address; keywords are settings."""
    opened: list[ModelGateway] = []

    def make(base_url: str, *, rng: Any = None, transports: Any = None, **settings: Any) -> ModelGateway:
        environ = KEYS | {"ANTHROPIC_BASE_URL": base_url, "OPENAI_BASE_URL": f"{base_url}/v1"}
        settings.setdefault("retry", {"max_attempts": 1})
        gateway = ModelGateway(
            Settings.load(**settings), environ=environ, sinks=[calls], rng=rng, transports=transports
        )
        opened.append(gateway)
        return gateway

    yield make
    for gateway in opened:
        await gateway.aclose()


@pytest.fixture
def gateway(open_gateway: Callable[..., ModelGateway], simulator: ProviderSimulator) -> ModelGateway:
    return open_gateway(simulator.base_url)

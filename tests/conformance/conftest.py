"""One subject before one provider, for every test of the suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.transports.litellm_import import load
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings
from tests.conformance.byte_server import ByteServer
from tests.conformance.expecting import Expect
from tests.conformance.serving import Door, Served
from tests.conformance.subjects import SUBJECTS, Subject
from tests.conformance.wires import WIRES, WireFormat

LITELLM_WARNINGS = (
    "ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211",
    "ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning",
)


@pytest.fixture(scope="session")
def imported_litellm() -> None:
    """LiteLLM takes seconds to import, and more for each format's first call: no time-out of a test pays for it."""
    asyncio.run(first_calls())


async def first_calls() -> None:
    await load()
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as provider:
        for model, path in (("anthropic/claude-haiku-5-5", ""), ("openai/gpt-6-luna", "/v1")):
            own = {"base_url": f"{provider.base_url}{path}", "api_key": "test-key-of-the-simulator"}
            settings = Settings.load(transport="litellm", providers={model.partition("/")[0]: own})
            async with ModelGateway(settings, environ={}) as gateway:
                asked = ModelRequest(model=model, messages=(Message("user", "Hello?"),), max_tokens=16)
                async with gateway.stream(asked) as stream:
                    async for _ in stream:
                        pass


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    if found.transport == "litellm":
        request.getfixturevalue("imported_litellm")
    return found


@pytest.fixture
def wire(subject: Subject) -> WireFormat:
    return WIRES[subject.wire]


@pytest.fixture
def expect(request: pytest.FixtureRequest, subject: Subject) -> Iterator[Expect]:
    made = Expect(request, subject)
    yield made
    assert made.exception is None or made.asserted, "an exception is listed for a case that expects nothing"


@pytest.fixture
async def door(subject: Subject) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        yield Door(subject, stack)


@pytest.fixture
async def server() -> AsyncIterator[ByteServer]:
    async with ByteServer() as running:
        yield running


@pytest.fixture
def served(server: ByteServer, door: Door) -> Served:
    return Served(door, server)


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant()) as running:
        yield running


@pytest.fixture
async def gateway(door: Door, simulator: ProviderSimulator) -> ModelGateway:
    """A gateway before a simulator that answers at once."""
    return await door.open(simulator.base_url)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let be what pydantic says about LiteLLM's own models, when it builds and reads them."""
    for item in items:
        if "litellm-" in item.name and "tests/conformance" in item.nodeid:
            for warning in LITELLM_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))

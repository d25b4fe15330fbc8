"""A gateway before a simulator, and a server that sends exactly the bytes it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest
from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
from guidance_agent.settings import Settings

KEYS = {"ANTHROPIC_API_KEY": "sk-ant-test-123456", "OPENAI_API_KEY": "sk-test-123456"}


class CallList(list[ModelCall]):
    """A usage sink that keeps what it is given."""

    def record(self, call: ModelCall) -> None:
        self.append(call)


class ByteServer:
    """Answers each request with the next of its scripted answers: bytes to send, seconds to wait, or an end.

    A script is a sequence of `bytes` (sent as they are), numbers (seconds to wait) and the words `reset` and
    `keep`; the connection is closed after the last step unless that is `keep`. The last script
    answers all further requests.
    """

    def __init__(self) -> None:
        self.scripts: list[tuple[object, ...]] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.client_closed = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        if self._server is None:
            raise RuntimeError("the server is not running")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def serve(self, *script: object) -> None:
        self.scripts.append(script)

    def stream(self, body: bytes, content_type: str | None = "text/event-stream", cut: int | None = None) -> None:
        """Serve `body` in a 200 answer that ends with the connection, in pieces of `cut` bytes."""
        kind = f"content-type: {content_type}\r\n" if content_type else ""
        head = f"HTTP/1.1 200 OK\r\n{kind}connection: close\r\n\r\n".encode()
        size = cut or max(1, len(body))
        self.serve(head, *(body[start : start + size] for start in range(0, len(body), size)))

    def answer(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.serve("\r\n".join([*lines, "", ""]).encode() + body)

    async def __aenter__(self) -> ByteServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.client_closed.set()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        self.requests.append(head + await reader.readexactly(length))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, int | float):
                with suppress(TimeoutError):
                    async with asyncio.timeout(step):
                        await reader.read(1)
                        self.client_closed.set()
                        return False
            elif step == "reset":
                writer.transport.abort()
                return False
        return script[-1] == "keep"


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

"""One subject before one provider: the gateway, what is asked of it, and what the provider sends."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import Any

from guidance_agent.llm.gateway import ModelGateway, ModelStream
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest
from tests.conformance.byte_server import CHUNKED, LAST_CHUNK, ByteServer, chunk, head
from tests.conformance.observing import Observed, observe, observe_whole, within
from tests.conformance.subjects import Subject, open_gateway
from tests.conformance.wires import WIRES, WireFormat

__all__ = ["CallList", "Door", "Served"]


class CallList(list[ModelCall]):
    """A usage sink that keeps what it is given."""

    def record(self, call: ModelCall) -> None:
        self.append(call)


class Door:
    """One subject's gateways and requests."""

    def __init__(self, subject: Subject, stack: AsyncExitStack) -> None:
        self.subject = subject
        self.wire: WireFormat = WIRES[subject.wire]
        self.calls = CallList()
        self._stack = stack

    def ask(self, **fields: Any) -> ModelRequest:
        """Make a request with one short question."""
        messages = (Message("system", "You explain pensions."), Message("user", "What is drawdown?"))
        given: dict[str, Any] = {"model": self.subject.model, "messages": messages, "max_tokens": 900}
        return ModelRequest(**(given | fields))

    async def open(self, base_url: str, *, rng: random.Random | None = None, **settings: Any) -> ModelGateway:
        """Open a gateway whose provider stands at `base_url`; it is closed with the test."""
        return await self._stack.enter_async_context(
            open_gateway(self.subject, base_url, sinks=[self.calls], rng=rng, **settings)
        )


class Served:
    """One subject before a provider that sends what the test dictates."""

    def __init__(self, door: Door, server: ByteServer) -> None:
        self.door = door
        self.server = server
        self.wire = door.wire
        self._gateway: ModelGateway | None = None

    async def gateway(self, **settings: Any) -> ModelGateway:
        if settings:
            return await self.door.open(self.server.base_url, **settings)
        if self._gateway is None:
            self._gateway = await self.door.open(self.server.base_url)
        return self._gateway

    async def play(self, *script: object, settings: dict[str, Any] | None = None, **request: Any) -> ModelStream:
        """Return the stream of a request that is answered with `script`."""
        self.server.serve_only(*script)
        return (await self.gateway(**settings or {})).stream(self.door.ask(**request))

    async def streamed(self, *body: bytes, apart: bool = False, **request: Any) -> Observed:
        """Return what is seen of a stream with this body, in HTTP chunks of these pieces that may arrive apart."""
        steps: list[object] = [CHUNKED]
        for piece in body:
            steps += [chunk(piece), "turn"] if apart else [chunk(piece)]
        return await observe(await self.play(*steps, LAST_CHUNK, "keep", **request))

    async def whole(self, body: bytes, content_type: str = "application/json", **request: Any) -> Observed:
        """Return what is seen of an answer that is not streamed."""
        self.server.serve_only(head(200, content_type, content_length=len(body)) + body, "keep")
        return await observe_whole((await self.gateway()).complete(self.door.ask(**request)))

    async def client_leaves(self, seconds: float) -> None:
        """Return once the client has left in the middle of an answer, which must be within so many seconds."""
        await within(self.server.client_closed.wait(), seconds)

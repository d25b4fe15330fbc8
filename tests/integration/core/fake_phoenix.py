"""What Phoenix does about annotations, on a real socket: it takes, refuses, forgets or says nothing, as tests want."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from guidance_agent.core.phoenix_address import PhoenixAddress

__all__ = ["FakePhoenix", "fake_phoenix"]


class FakePhoenix:
    """Stores annotations of the spans that have arrived, by span, name and identifier, as the real one.

    Attributes:
        spans: The spans that have arrived; None is all of them.
        answers: Statuses for the next requests, before it behaves well; 0 is no answer at all.
        always: A status for every request.
        body: What is said with a status.
        headers: Headers that come with a status.
        key: What a request must have in its `authorization` header.
        rejects: Names of annotations that it does not take.
        requests: The annotations of every request, refused ones included.
    """

    def __init__(self) -> None:
        self.spans: set[str] | None = None
        self.answers: deque[int] = deque()
        self.always: int | None = None
        self.body = "no"
        self.headers: dict[str, str] = {}
        self.key: str | None = None
        self.rejects: set[str] = set()
        self.requests: list[list[dict[str, Any]]] = []
        self.stored: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.arrived = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.port = 0

    @property
    def address(self) -> PhoenixAddress:
        headers = {} if self.key is None else {"authorization": self.key}
        return PhoenixAddress(base_url=f"http://127.0.0.1:{self.port}", headers=headers)

    @property
    def times_stored(self) -> list[str]:
        return [each["span_id"] for request in self.requests for each in request]

    async def annotate(self, request: web.Request) -> web.Response:
        assert request.query["sync"] == "true"
        data: list[dict[str, Any]] = (await request.json())["data"]
        self.requests.append(data)
        self.arrived.set()
        status = self.always if self.always is not None else (self.answers.popleft() if self.answers else None)
        if status == 0:
            await self.goes_on.wait()
        elif status is not None:
            return web.Response(status=status, text=self.body, headers=self.headers)
        if self.key is not None and request.headers.get("authorization") != self.key:
            return web.Response(status=401, text="Invalid token")
        if any(each["name"] in self.rejects for each in data):
            return web.json_response({"detail": [{"loc": ["body", "data", 0, "name"], "msg": "no"}]}, status=422)
        missing = set() if self.spans is None else {each["span_id"] for each in data} - self.spans
        if missing:
            return web.Response(status=404, text=f"Spans with IDs {', '.join(sorted(missing))} do not exist.")
        for each in data:
            self.stored[each["span_id"], each["name"], each["identifier"]] = each
        return web.json_response({"data": [{"id": f"annotation-{number}"} for number in range(len(data))]})


@asynccontextmanager
async def fake_phoenix(port: int = 0) -> AsyncIterator[FakePhoenix]:
    """Run one on a loopback port."""
    fake = FakePhoenix()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_post("/v1/span_annotations", fake.annotate)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        fake.port = runner.addresses[0][1]
        yield fake
    finally:
        fake.goes_on.set()
        await runner.cleanup()

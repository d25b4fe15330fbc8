"""What the tests of files and batches share: bodies, lines, and a client that waits for an end."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from guidance_agent.provider_simulator import ProviderSimulator, ProviderSimulatorProcess
from guidance_agent.provider_simulator.faults import FaultQueue

QUESTION = "What is the difference between an annuity and drawdown?"
ENDED = frozenset({"ended", "completed", "failed", "expired", "cancelled"})


def chat_body(question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-6-sol", "max_tokens": 60, "messages": [{"role": "user", "content": question}]} | fields


def message_body(question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 60,
        "messages": [{"role": "user", "content": question}],
    } | fields


def line(custom_id: str, body: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """One line of an OpenAI input file."""
    asked = chat_body() if body is None else body
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked} | fields


def lines(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [line(f"item-{number}", chat_body(**fields)) for number in range(count)]


def requests(count: int, **fields: Any) -> list[dict[str, Any]]:
    """The requests of an Anthropic batch."""
    return [{"custom_id": f"item-{number}", "params": message_body(**fields)} for number in range(count)]


def jsonl(rows: Iterable[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


class BatchClient:
    """Plain HTTP about files and batches; `headers` are those of the last answer.

    With `settles` every request waits until the batches are where the clock is, which must be one moved by hand.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        simulator: ProviderSimulator | ProviderSimulatorProcess,
        *,
        key: str = "key-1",
        settles: bool = False,
    ) -> None:
        self.session = session
        self.simulator = simulator
        self._settles = settles
        self._headers = {
            "anthropic": {"x-api-key": key},
            "openai": {"authorization": f"Bearer {key}"},
            "control": {"x-nothing": ""},
        }
        self.headers: Mapping[str, str] = {}

    @property
    def faults(self) -> FaultQueue:
        """The faults of a simulator in this process."""
        assert isinstance(self.simulator, ProviderSimulator)
        return self.simulator.faults

    async def call(self, wire: str, method: str, path: str, **fields: Any) -> tuple[int, Any]:
        """Status and decoded body; bytes when it is no JSON."""
        url = f"{self.simulator.base_url}{path}"
        if self._settles and wire != "control":
            await self.control("POST", "clock", json={"advance": 0})
        async with self.session.request(method, url, headers=self._headers[wire], **fields) as response:
            raw = await response.read()
            self.headers = response.headers
        return response.status, json.loads(raw) if response.content_type == "application/json" else raw

    async def upload(self, rows: Iterable[Any] | bytes, *, name: str = "in.jsonl", purpose: str = "batch") -> Any:
        form = aiohttp.FormData()
        form.add_field("purpose", purpose)
        raw = rows if isinstance(rows, bytes) else jsonl(rows)
        form.add_field("file", io.BytesIO(raw), filename=name)
        status, body = await self.call("openai", "POST", "/v1/files", data=form)
        assert status == 200, body
        return body

    async def submit(
        self, rows: Iterable[Any] | bytes, *, endpoint: str = "/v1/chat/completions", **fields: Any
    ) -> Any:
        """Upload an input file and make a batch of it."""
        file = await self.upload(rows)
        asked = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"} | fields
        status, body = await self.call("openai", "POST", "/v1/batches", json=asked)
        assert status == 200, body
        return body

    async def submit_messages(self, rows: list[dict[str, Any]]) -> Any:
        data = io.BytesIO(json.dumps({"requests": rows}).encode())
        status, body = await self.call("anthropic", "POST", "/v1/messages/batches", data=data)
        assert status == 200, body
        return body

    async def look(self, batch: Mapping[str, Any]) -> Any:
        """The batch as it is now."""
        wire, place = self._place(batch)
        status, body = await self.call(wire, "GET", place)
        assert status == 200, body
        return body

    def _place(self, batch: Mapping[str, Any]) -> tuple[str, str]:
        if batch["id"].startswith("msgbatch_"):
            return "anthropic", f"/v1/messages/batches/{batch['id']}"
        return "openai", f"/v1/batches/{batch['id']}"

    async def until(self, batch: Mapping[str, Any], *states: str, within: float = 20.0, every: float = 0.005) -> Any:
        """The batch once it is in one of these states; without any, once it has ended."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while True:
            seen = await self.look(batch)
            state = seen.get("status") or seen["processing_status"]
            if state in (states or ENDED):
                return seen
            assert loop.time() < deadline, f"still {state} after {within} s: {seen}"
            await asyncio.sleep(every)

    async def cancel(self, batch: Mapping[str, Any]) -> tuple[int, Any]:
        wire, place = self._place(batch)
        return await self.call(wire, "POST", f"{place}/cancel")

    async def rows(self, batch: Mapping[str, Any], kind: str = "output") -> list[dict[str, Any]]:
        """The results of a batch that has ended, in the order in which they come."""
        if batch["id"].startswith("msgbatch_"):
            status, raw = await self.call("anthropic", "GET", f"/v1/messages/batches/{batch['id']}/results")
        else:
            status, raw = await self.call("openai", "GET", f"/v1/files/{batch[f'{kind}_file_id']}/content")
        assert status == 200, raw
        return [json.loads(row) for row in raw.decode().splitlines()]

    async def control(self, method: str, path: str, **fields: Any) -> Any:
        _, body = await self.call("control", method, f"/_simulator/{path}", **fields)
        return body

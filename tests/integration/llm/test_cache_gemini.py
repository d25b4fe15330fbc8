"""Gemini through LiteLLM, before a local server: what reaches the wire keeps its start, and reads are understood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest
from guidance_agent.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
MODEL = "gemini/gemini-2.5-flash"


@dataclass
class Gemini:
    """A server that answers as Gemini does and keeps what it was asked; `cached` is what it says it read."""

    base_url: str = ""
    cached: int = 0
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.bodies.append(await request.json())
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        part = {"content": {"role": "model", "parts": [{"text": "Yes."}]}, "index": 0, "finishReason": "STOP"}
        usage = {"promptTokenCount": 3_100, "candidatesTokenCount": 3, "totalTokenCount": 3_103}
        if self.cached:
            usage["cachedContentTokenCount"] = self.cached
        await response.write(f"data: {json.dumps({'candidates': [part], 'usageMetadata': usage})}\n\n".encode())
        return response


@pytest.fixture
async def gemini() -> AsyncIterator[Gemini]:
    server = Gemini()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def gateway(gemini: Gemini) -> AsyncIterator[ModelGateway]:
    settings = Settings.load(providers={"gemini": {"base_url": gemini.base_url}}, retry={"max_attempts": 1})
    async with ModelGateway(settings, environ={"GEMINI_API_KEY": "test-gemini-key"}) as opened:
        yield opened


def request(turns: int) -> ModelRequest:
    history = [
        message for turn in range(turns) for message in (Message("user", f"Ask {turn}?"), Message("assistant", "Yes."))
    ]
    if history:
        history[-1] = replace(history[-1], part="conversation")
    return ModelRequest(
        model=MODEL,
        messages=(
            Message("system", "conduct " * 1_200, part="conduct"),
            Message("system", "rule " * 1_500, part="requirements"),
            Message("system", "customer " * 200, part="customer"),
            *history,
            Message("user", f"Facts of turn {turns}. Ask {turns}?"),
        ),
        metadata={"consultation_id": "c-1"},
    )


async def ask(gateway: ModelGateway, turns: int) -> ModelCall:
    async with gateway.stream(request(turns)) as stream:
        while await stream.read() is not None:
            pass
    assert stream.call is not None
    return stream.call


def texts(body: dict[str, Any]) -> list[str]:
    """Everything that the model reads, in its order."""
    instruction = body.get("system_instruction") or body["systemInstruction"]
    return [part["text"] for content in (instruction, *body["contents"]) for part in content["parts"]]


async def test_a_turn_only_adds_to_what_the_one_before_sent(gateway: ModelGateway, gemini: Gemini) -> None:
    for turns in range(3):
        await ask(gateway, turns)
    assert all("generateContent" in path or "streamGenerateContent" in path for path in gemini.paths)
    first, second, third = map(texts, gemini.bodies)
    assert [len(sent) for sent in (first, second, third)] == [4, 6, 8]
    for before, after in ((first, second), (second, third)):
        assert after[: len(before) - 1] == before[:-1]
    sent = json.dumps(gemini.bodies)
    assert not any(word in sent for word in ("cache_control", "cachedContent", "prompt_cache"))


async def test_an_implicit_read_is_a_hit_and_its_saving_is_known(gateway: ModelGateway, gemini: Gemini) -> None:
    first = await ask(gateway, 0)
    assert (first.cache_outcome, set(first.cache_use.values())) == ("first_write", {"uncached"})
    gemini.cached = 2_900
    second = await ask(gateway, 1)
    assert second.cache_outcome == "hit"
    assert second.cache_use["requirements"] == "read"
    assert second.usage is not None and second.usage.cache_read_tokens == 2_900
    # 200 tokens at 0.30, 2,900 at 0.03 and 3 at 2.50 dollars per million.
    assert second.cost is not None
    assert second.cost.usd == pytest.approx((200 * 0.30 + 2_900 * 0.03 + 3 * 2.50) / 1e6)

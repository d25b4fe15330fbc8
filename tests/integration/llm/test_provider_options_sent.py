"""What LiteLLM makes of a provider's options: the body that a server of one's own receives."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.settings import Settings

# LiteLLM loads its tokeniser with the first call; what pydantic says about its models is its own.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "index": 0, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
}
OLLAMA = {
    "model": "llama9",
    "message": {"role": "assistant", "content": "Hello"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 9,
    "eval_count": 3,
}


async def received(model: str, options: dict[str, Any], answer: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Ask once; return the path and the body of the request."""
    requests: list[tuple[str, dict[str, Any]]] = []

    async def handle(request: web.Request) -> web.Response:
        requests.append((request.path, await request.json()))
        return web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider = model.partition("/")[0]
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = Settings.load(providers={provider: {"base_url": address, "api_key": "key-1234", "options": options}})
    try:
        async with ModelGateway(settings, environ={}) as gateway:
            answered = await gateway.complete(ModelRequest(model=model, messages=(Message("user", "Hello?"),)))
            assert answered.text == "Hello"
    finally:
        await runner.cleanup()
    # Nothing else was asked of the server: what LiteLLM asks by itself it asks on the event loop.
    (only,) = requests
    return only


async def test_safety_settings_and_seed_reach_gemini() -> None:
    safety = {"HARM_CATEGORY_HARASSMENT": "BLOCK_ONLY_HIGH"}
    path, body = await received("gemini/gemini-3.8-flash", {"safety": safety, "seed": 3}, GEMINI)
    assert path.endswith(":generateContent")
    assert body["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}]
    assert body["generationConfig"]["seed"] == 3


async def test_keep_alive_context_size_and_seed_reach_ollamas_own_interface() -> None:
    path, body = await received("ollama/llama9", {"keep_alive": 600, "num_ctx": 16_384, "seed": 3}, OLLAMA)
    assert path == "/api/chat"
    assert body["keep_alive"] == 600
    assert body["options"]["num_ctx"] == 16_384
    assert body["options"]["seed"] == 3

"""The control plane, the label on every answer, and what providers refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from guidance_agent.provider_simulator import (
    SIMULATOR_HEADER,
    SIMULATOR_VERSION,
    LatencyProfile,
    ManualClock,
    ProviderSimulator,
    SimulatorSettings,
)
from tests.integration.simulator.conftest import ANTHROPIC_PATH, OPENAI_PATH, Client, eventually

HELLO = [{"role": "user", "content": "Hello"}]


async def control(client: Client, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    url = f"{client.simulator.base_url}/_simulator/{path}"
    async with client.session.request(method, url, json=body) as response:
        return response.status, await response.json()


async def test_every_answer_carries_the_label(client: Client) -> None:
    labelled = [
        (await client.anthropic()).headers,
        (await client.openai(stream=True)).headers,
        (await client.anthropic(key="invalid")).headers,
    ]
    async with client.session.get(f"{client.simulator.base_url}/_simulator/health") as response:
        labelled.append(response.headers)
    assert [headers[SIMULATOR_HEADER] for headers in labelled] == [SIMULATOR_VERSION] * 4


async def test_requests_are_shown_and_cleared(client: Client) -> None:
    await client.anthropic(messages=HELLO)
    await client.openai(messages=HELLO, stream=True)
    _, shown = await control(client, "GET", "requests")
    assert [row["operation"] for row in shown["requests"]] == ["anthropic.messages", "openai.chat.completions.stream"]
    _, later = await control(client, "GET", "requests?after=1")
    assert [row["number"] for row in later["requests"]] == [2]
    await control(client, "DELETE", "requests")
    assert len(client.simulator.requests) == 0


async def test_faults_are_queued_shown_and_cleared(client: Client) -> None:
    status, shown = await control(client, "POST", "faults", {"kind": "status", "status": 503})
    assert (status, shown["faults"][0]["status"]) == (200, 503)
    assert (await client.anthropic()).status == 503
    await control(client, "POST", "faults", [{"kind": "drop"}, {"kind": "stall"}])
    assert (await control(client, "DELETE", "faults"))[1] == {"faults": []}
    assert (await client.anthropic()).status == 200


@pytest.mark.parametrize("body", [{"kind": "no such"}, {"kind": "drop", "extra": 1}, "text", [{"status": 500}]])
async def test_what_is_no_fault_is_refused(client: Client, body: Any) -> None:
    status, shown = await control(client, "POST", "faults", body)
    assert status == 400
    assert "fault" in shown["error"]


async def test_the_clock_is_moved_over_http(timed: Client, manual_clock: ManualClock) -> None:
    before = manual_clock.now()
    assert await control(timed, "POST", "clock", {"advance": 61.5}) == (200, {"now": before + 61.5})
    assert (await control(timed, "POST", "clock", {"advance": -1}))[0] == 400


async def test_the_systems_clock_cannot_be_moved(client: Client) -> None:
    assert (await control(client, "POST", "clock", {"advance": 1}))[0] == 400


async def test_the_log_keeps_only_the_latest(client: Client) -> None:
    settings = SimulatorSettings.instant().but(log_limit=3, log_bodies=False)
    async with ProviderSimulator(settings) as running:
        for _ in range(5):
            await Client(client.session, running).anthropic(messages=HELLO)
        assert [record.number for record in running.requests] == [3, 4, 5]
        assert running.requests[-1].body is None


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"max_tokens": None}, 400, "max_tokens: Field required"),
        ({"max_tokens": 10_000_000}, 400, "maximum allowed number of output tokens"),
        ({"model": None}, 400, "model: Field required"),
        ({"model": "claude-none"}, 404, "model: claude-none"),
        ({"model": "gpt-6-sol"}, 404, "model: gpt-6-sol"),
        ({"messages": []}, 400, "at least one message is required"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, 'first message must use the "user" role'),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "Unexpected role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "non-empty content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, 400, "must be non-empty"),
        ({"messages": ["x"]}, 400, "does not match the expected shape"),
        ({"tool_choice": {"type": "tool", "name": "none"}}, 400, "not found in provided tools"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "always"}}]}, 400, "cache_control"),
        ({"max_tokens": 0, "stream": True}, 400, "max_tokens"),
    ],
)
async def test_anthropic_refuses(client: Client, change: dict[str, Any], status: int, text: str) -> None:
    body = {"model": "claude-sonnet-5-5", "max_tokens": 5, "messages": HELLO} | change
    reply = await client.post(ANTHROPIC_PATH, {k: v for k, v in body.items() if v is not None})
    assert reply.status == status
    assert text in reply.json["error"]["message"]
    assert reply.json["request_id"].startswith("req_")
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": None}, 400, None),
        ({"model": "gpt-none"}, 404, "model_not_found"),
        ({"model": "text-embedding-3-small"}, 404, "model_not_found"),
        ({"messages": None}, 400, "missing_required_parameter"),
        ({"messages": []}, 400, "empty_array"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "invalid_type"),
        ({"max_tokens": 0}, 400, "integer_below_min_value"),
        ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter"),
        ({"response_format": {"type": "json_schema"}}, 400, "missing_required_parameter"),
    ],
)
async def test_openai_refuses(client: Client, change: dict[str, Any], status: int, code: str | None) -> None:
    body = {"model": "gpt-6-sol", "messages": HELLO} | change
    reply = await client.post(OPENAI_PATH, {k: v for k, v in body.items() if v is not None})
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert reply.json["error"]["type"] == "invalid_request_error"


@pytest_asyncio.fixture
async def narrow() -> AsyncIterator[Client]:
    settings = SimulatorSettings.instant().but(
        context_windows={"claude-sonnet-5-5": 500, "gpt-6-sol": 500}, extra_models={"my-model": "gpt-4o"}
    )
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        yield Client(session, running)


async def test_a_prompt_longer_than_the_window_is_refused_in_the_providers_words(narrow: Client) -> None:
    long = [{"role": "user", "content": "word " * 600}]
    anthropic, openai = await narrow.anthropic(messages=long), await narrow.openai(messages=long)
    assert anthropic.status == openai.status == 400
    assert anthropic.json["error"]["message"].startswith("prompt is too long: 6")
    assert anthropic.json["error"]["message"].endswith(" tokens > 500 maximum")
    assert openai.json["error"]["code"] == "context_length_exceeded"


async def test_further_models_can_be_allowed(narrow: Client) -> None:
    assert (await narrow.openai(model="my-model")).status == 200
    async with narrow.session.get(
        f"{narrow.simulator.base_url}/v1/models", headers={"authorization": "Bearer k"}
    ) as response:
        assert "my-model" in {row["id"] for row in (await response.json())["data"]}


async def test_a_missing_key_is_refused(client: Client) -> None:
    for path in (ANTHROPIC_PATH, OPENAI_PATH, "/v1/embeddings"):
        async with client.session.post(client.simulator.base_url + path, json={}) as response:
            assert response.status == 401


async def test_a_body_that_is_no_json_is_refused(client: Client) -> None:
    for path in (ANTHROPIC_PATH, OPENAI_PATH):
        headers = {"x-api-key": "k", "authorization": "Bearer k"}
        async with client.session.post(client.simulator.base_url + path, data=b"{", headers=headers) as response:
            assert response.status == 400
            assert "error" in await response.json()


async def test_rate_limit_headers_have_the_providers_names(client: Client) -> None:
    anthropic, openai = (await client.anthropic()).headers, (await client.openai()).headers
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        assert int(anthropic[f"anthropic-ratelimit-{name}-limit"]) > 0
        assert anthropic[f"anthropic-ratelimit-{name}-reset"].endswith("Z")
    assert int(anthropic["anthropic-ratelimit-input-tokens-remaining"]) % 1_000 == 0
    for name in ("requests", "tokens"):
        assert int(openai[f"x-ratelimit-remaining-{name}"]) <= int(openai[f"x-ratelimit-limit-{name}"])
        assert openai[f"x-ratelimit-reset-{name}"].endswith("s")


async def test_some_good_anthropic_answers_carry_retry_after(client: Client) -> None:
    carried = ["retry-after" in (await client.anthropic(messages=HELLO)).headers for _ in range(40)]
    assert 0 < sum(carried) < 40
    assert not any(["retry-after" in (await client.openai(messages=HELLO)).headers for _ in range(10)])


@pytest.mark.parametrize("wire", ["anthropic", "openai"])
async def test_requests_beyond_the_limit_wait_for_the_bucket(manual_clock: ManualClock, wire: str) -> None:
    settings = SimulatorSettings.instant().but(requests_per_minute=2)
    async with ProviderSimulator(settings, clock=manual_clock) as running, aiohttp.ClientSession() as session:
        client = Client(session, running)
        ask = client.anthropic if wire == "anthropic" else client.openai
        assert [(await ask()).status for _ in range(2)] == [200, 200]
        refused = await ask()
        assert refused.status == 429
        wait = int(refused.headers["retry-after"])
        assert 0 < wait <= 30
        name = "anthropic-ratelimit-requests-remaining" if wire == "anthropic" else "x-ratelimit-remaining-requests"
        assert refused.headers[name] == "0"
        manual_clock.advance(wait)
        assert (await ask()).status == 200


async def test_cached_tokens_count_towards_openais_limit_but_not_anthropics(manual_clock: ManualClock) -> None:
    settings = SimulatorSettings.instant().but(tokens_per_minute=4_000)
    text = "Guidance explains the options and their risks without a steer. " * 120
    marked = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    async with ProviderSimulator(settings, clock=manual_clock) as running, aiohttp.ClientSession() as session:
        client = Client(session, running)
        anthropic = [(await client.anthropic(system=marked)).status for _ in range(6)]
        openai = [
            (await client.openai(model="gpt-4o", messages=[{"role": "user", "content": text}])).status for _ in range(6)
        ]
    assert anthropic == [200] * 6
    assert openai[-1] == 429


async def test_latency_follows_the_table(manual_clock: ManualClock) -> None:
    profile = LatencyProfile(first_token=1.0, per_uncached_token=0.01, per_cached_token=0.0, tokens_per_second=100)
    settings = SimulatorSettings(latency={"author": profile, "fast": profile, "embedding": profile})
    async with ProviderSimulator(settings, clock=manual_clock) as running, aiohttp.ClientSession() as session:
        client = Client(session, running)
        asking = asyncio.create_task(client.anthropic(stream=True, messages=HELLO))
        await eventually(lambda: len(running.requests) == 1 and running.requests[0].usage is not None)
        record = running.requests[0]
        usage = record.usage
        assert usage is not None
        first = 1.0 + 0.01 * usage["input_tokens"]
        manual_clock.advance(first - 0.01)
        assert record.status is None
        manual_clock.advance(0.02)
        await eventually(lambda: record.first_byte_at is not None)
        manual_clock.advance(usage["output_tokens"] / 100)
        await asking
    assert record.first_byte_at is not None
    assert record.first_byte_at - record.received_at == pytest.approx(first, abs=0.02)

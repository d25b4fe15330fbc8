"""What batches cost: half the price, the cache rules of interactive calls, and figures that a test can ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.simulator.batching import BatchClient, chat_body, line, lines, message_body, requests

LONG = "Guidance explains the options and their risks without a steer. " * 120


def cached(count: int, *, prefix: str = "item", ttl: str = "1h", **fields: Any) -> list[dict[str, Any]]:
    """Requests with one long, marked prefix and a question of their own each."""
    marked = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
    return [
        {"custom_id": f"{prefix}-{n}", "params": message_body(f"Question number {n}?", system=marked, **fields)}
        for n in range(count)
    ]


@pytest_asyncio.fixture
async def sure() -> AsyncIterator[BatchClient]:
    """A simulator whose batches find in the cache what is there."""
    settings = SimulatorSettings.instant(seed=7).but(batch_cache_miss_rate=0.0, openai_batch_caching=True)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        yield BatchClient(session, running)


async def usages(client: BatchClient, batch: Any) -> dict[str, dict[str, Any]]:
    await client.until(batch)
    return {row["custom_id"]: row["result"]["message"]["usage"] for row in await client.rows(batch)}


async def test_a_batch_costs_half_of_what_the_same_calls_cost_interactively(batches: BatchClient) -> None:
    asked = [*requests(20), {"custom_id": "free", "params": message_body(model="claude-none")}]
    ended = await batches.until(await batches.submit_messages(asked))
    for _ in range(20):
        await batches.call("anthropic", "POST", "/v1/messages", json=message_body())
    costs = await batches.control("GET", "costs")
    assert costs["interactive"]["claude-sonnet-5-5"]["requests"] == costs["batch"]["answered"] == 20
    assert costs["batch"]["interactive_usd"] == pytest.approx(costs["interactive_usd"])
    assert costs["batch"]["usd"] == pytest.approx(costs["interactive_usd"] / 2)
    assert costs["batch"]["saved_usd"] == pytest.approx(costs["batch"]["usd"])
    assert costs["usd"] == pytest.approx(1.5 * costs["interactive_usd"])
    (shown,) = (await batches.control("GET", "batches"))["batches"]
    assert (shown["id"], shown["failed"], shown["usd"]) == (ended["id"], 1, pytest.approx(costs["batch"]["usd"]))


async def test_the_price_is_the_listed_one(batches: BatchClient) -> None:
    rows = await usages(batches, await batches.submit_messages(cached(3)))
    spent = sum(
        2 * usage["input_tokens"]
        + 0.10 * usage["cache_read_input_tokens"]
        + 4 * usage["cache_creation"]["ephemeral_1h_input_tokens"]
        + 10 * usage["output_tokens"]
        for usage in rows.values()
    )
    costs = await batches.control("GET", "costs")
    assert costs["batch"]["usd"] == pytest.approx(spent / 2 / 1_000_000)


async def test_models_without_a_listed_price_are_counted_and_not_free(batches: BatchClient) -> None:
    await batches.until(await batches.submit_messages(requests(2, model="claude-fable-5-2")))
    await batches.call("anthropic", "POST", "/v1/messages", json=message_body(model="claude-fable-5-2"))
    costs = await batches.control("GET", "costs")
    assert costs["batch"]["unpriced"] == 2
    assert costs["interactive"]["claude-fable-5-2"]["unpriced"] == 1


async def test_a_batch_of_one_primes_the_next(sure: BatchClient) -> None:
    first = await usages(sure, await sure.submit_messages(cached(1, prefix="prime")))
    written = first["prime-0"]["cache_creation"]["ephemeral_1h_input_tokens"]
    rest = await usages(sure, await sure.submit_messages(cached(200)))
    assert written > 900
    assert {usage["cache_read_input_tokens"] for usage in rest.values()} == {written}
    assert {usage["cache_creation_input_tokens"] for usage in rest.values()} == {0}


async def test_without_priming_the_requests_of_the_first_wave_all_write(sure: BatchClient) -> None:
    rows = await usages(sure, await sure.submit_messages(cached(400)))
    writers = [usage for usage in rows.values() if usage["cache_creation_input_tokens"]]
    readers = [usage for usage in rows.values() if usage["cache_read_input_tokens"]]
    assert 1 < len(writers) < 20
    assert len(writers) + len(readers) == 400


async def test_interactive_calls_and_batches_have_caches_of_their_own(sure: BatchClient) -> None:
    body = cached(1)[0]["params"]
    _, interactive = await sure.call("anthropic", "POST", "/v1/messages", json=body)
    first = await usages(sure, await sure.submit_messages(cached(1)))
    assert interactive["usage"]["cache_creation_input_tokens"] > 900
    assert first["item-0"]["cache_read_input_tokens"] == 0
    _, other = await sure.call("anthropic", "POST", "/v1/messages", json=body)
    assert other["usage"]["cache_read_input_tokens"] > 900


async def test_caches_of_batches_belong_to_a_key_and_a_model(sure: BatchClient) -> None:
    await usages(sure, await sure.submit_messages(cached(1)))
    other = BatchClient(sure.session, sure.simulator, key="key-2")
    (stranger,) = (await usages(other, await other.submit_messages(cached(1)))).values()
    (model,) = (await usages(sure, await sure.submit_messages(cached(1, model="claude-haiku-5-5")))).values()
    assert stranger["cache_read_input_tokens"] == model["cache_read_input_tokens"] == 0


async def test_some_requests_of_a_batch_miss(batches: BatchClient) -> None:
    await usages(batches, await batches.submit_messages(cached(1, prefix="prime")))
    rows = await usages(batches, await batches.submit_messages(cached(400)))
    misses = [usage for usage in rows.values() if not usage["cache_read_input_tokens"]]
    assert 0 < len(misses) < 24
    assert all(usage["cache_creation_input_tokens"] > 900 for usage in misses)


async def test_entries_of_batches_end_with_their_time(timed_batches: BatchClient, manual_clock: Any) -> None:
    reads = []
    for pause in (700, 200, 400):
        batch = await timed_batches.submit_messages(cached(1, ttl="5m"))
        manual_clock.advance(pause)
        reads.append((await usages(timed_batches, batch)) if pause == 700 else batch)
    assert reads[0]["item-0"]["cache_creation"]["ephemeral_5m_input_tokens"] > 900
    manual_clock.advance(700)
    # 630 s pass between the beginning of a batch and its single request: the entry of five minutes is gone.
    assert (await usages(timed_batches, reads[1]))["item-0"]["cache_read_input_tokens"] == 0
    assert (await usages(timed_batches, reads[2]))["item-0"]["cache_read_input_tokens"] > 900


@pytest.mark.parametrize(("caching", "model"), [(False, "gpt-6-sol"), (True, "gpt-6-sol"), (True, "gpt-4o")])
async def test_openai_batches_are_cached_on_request_only(caching: bool, model: str) -> None:
    settings = SimulatorSettings.instant(seed=7).but(openai_batch_caching=caching)
    body = chat_body(
        model=model,
        messages=[
            {"role": "system", "content": LONG},
            {"role": "user", "content": [{"type": "text", "text": "Which?"}]},
        ],
    )
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        client = BatchClient(session, running)
        await client.until(await client.submit([line("prime", body)]))
        ended = await client.until(await client.submit([line(f"item-{n}", body) for n in range(3)]))
        rows = [row["response"]["body"]["usage"]["prompt_tokens_details"] for row in await client.rows(ended)]
    assert {row["cached_tokens"] > 900 for row in rows} == {caching}
    assert (ended["usage"]["input_tokens_details"]["cached_tokens"] > 2_700) is caching


async def test_it_tells_how_often_a_custom_id_was_accepted(batches: BatchClient) -> None:
    first = await batches.until(await batches.submit_messages(requests(3)))
    second = await batches.until(await batches.submit(lines(2)))
    await batches.submit([b"{"])
    seen = await batches.control("GET", "seen")
    assert seen == {"requests": 5, "distinct": 3, "repeated": {"item-0": 2, "item-1": 2}}
    assert await batches.control("GET", "seen?custom_id=item-1") == {
        "custom_id": "item-1",
        "count": 2,
        "batches": [{"id": first["id"], "outcome": "completed"}, {"id": second["id"], "outcome": "completed"}],
    }
    assert (await batches.control("GET", "seen?custom_id=none"))["count"] == 0


async def test_a_refused_submission_is_not_counted(batches: BatchClient) -> None:
    batches.faults.add(Fault(kind="status", status=529, operation="batches.create"))
    status, _ = await batches.call("anthropic", "POST", "/v1/messages/batches", json={"requests": requests(3)})
    assert status == 529
    assert (await batches.control("GET", "seen"))["requests"] == 0

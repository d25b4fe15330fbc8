"""Cache accounting on the OpenAI wire, in both regimes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from guidance_agent.provider_simulator import ManualClock, ProviderSimulator, SimulatorSettings
from tests.integration.simulator.conftest import Client, Reply

LONG = "Guidance explains the options and their risks without a steer. " * 120
OTHER = "Every amount carries the tax year in which it holds good. " * 120
EXPLICIT = {"mode": "explicit"}


def system(*texts: str, marked: bool = True) -> dict[str, Any]:
    mark = {"prompt_cache_breakpoint": EXPLICIT} if marked else {}
    return {"role": "system", "content": [{"type": "text", "text": text, **mark} for text in texts]}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def figures(reply: Reply) -> tuple[int, int]:
    """Tokens written and read."""
    assert reply.status == 200, reply.raw
    details = reply.usage["prompt_tokens_details"]
    return details.get("cache_write_tokens", 0), details["cached_tokens"]


async def test_an_explicit_breakpoint_is_written_once_and_then_read(client: Client) -> None:
    options: dict[str, Any] = {"mode": "explicit"}
    first = await client.openai(messages=[system(LONG), user("First?")], prompt_cache_options=options)
    second = await client.openai(messages=[system(LONG), user("Second?")], prompt_cache_options=options)
    written, read = figures(first)
    assert written > 1_024
    assert read == 0
    assert figures(second) == (0, written)
    assert second.usage["prompt_tokens"] > written


async def test_prompt_tokens_include_what_was_read_and_written(client: Client) -> None:
    totals = {
        (await client.openai(messages=[system(LONG), user("The same?")])).usage["prompt_tokens"] for _ in range(2)
    }
    assert len(totals) == 1


async def test_without_a_mark_a_changed_question_reads_nothing_and_is_written_again(client: Client) -> None:
    first = await client.openai(messages=[system(LONG, marked=False), user("First?")])
    second = await client.openai(messages=[system(LONG, marked=False), user("Second?")])
    assert figures(first)[0] > 1_024
    assert figures(second)[0] > 1_024
    assert figures(second)[1] == 0


async def test_the_implicit_breakpoint_serves_the_next_turn_of_a_conversation(client: Client) -> None:
    opening = [system(LONG, marked=False), user("First?")]
    written, _ = figures(await client.openai(messages=opening))
    grown = [*opening, {"role": "assistant", "content": "An answer."}, user("Second?")]
    again, read = figures(await client.openai(messages=grown))
    assert read == written
    assert 0 < again < 40


async def test_explicit_mode_sets_no_breakpoint_of_its_own(client: Client) -> None:
    body: dict[str, Any] = {
        "messages": [system(LONG, marked=False), user("?")],
        "prompt_cache_options": {"mode": "explicit"},
    }
    assert figures(await client.openai(**body)) == (0, 0)
    assert figures(await client.openai(**body)) == (0, 0)


async def test_only_the_latest_four_new_breakpoints_are_written(client: Client) -> None:
    texts = [f"{number} {LONG}" for number in range(6)]
    options: dict[str, Any] = {"mode": "explicit"}
    await client.openai(messages=[system(*texts), user("?")], prompt_cache_options=options)
    _, second = figures(await client.openai(messages=[system(*texts[:2]), user("?")], prompt_cache_options=options))
    _, third = figures(await client.openai(messages=[system(*texts[:3]), user("?")], prompt_cache_options=options))
    assert second == 0
    assert third > 0


async def test_fewer_than_1024_tokens_are_not_cached(client: Client) -> None:
    for text in ("one " * 900, "one " * 1_100):
        body: dict[str, Any] = {"messages": [system(text), user("?")], "prompt_cache_options": {"mode": "explicit"}}
        await client.openai(**body)
        assert (figures(await client.openai(**body))[1] > 0) == (len(text) > 4_000)


async def test_an_entry_lives_thirty_minutes_from_its_last_use(timed: Client, manual_clock: ManualClock) -> None:
    body: dict[str, Any] = {
        "messages": [system(LONG), user("?")],
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    }
    written, _ = figures(await timed.openai(**body))
    for _ in range(2):
        manual_clock.advance(1_799)
        assert figures(await timed.openai(**body)) == (0, written)
    manual_clock.advance(1_801)
    assert figures(await timed.openai(**body)) == (written, 0)


async def test_cache_keys_separate_entries(client: Client) -> None:
    body: dict[str, Any] = {"messages": [system(LONG), user("?")]}
    written, _ = figures(await client.openai(**body, prompt_cache_key="a"))
    assert figures(await client.openai(**body, prompt_cache_key="b")) == (written, 0)
    assert figures(await client.openai(**body, prompt_cache_key="a"))[1] == written


async def test_cache_options_are_refused_by_earlier_models(client: Client) -> None:
    reply = await client.openai(model="gpt-4o", prompt_cache_options={"mode": "explicit"})
    assert reply.status == 400
    assert reply.json["error"]["param"] == "prompt_cache_options"


async def test_earlier_models_read_the_longest_known_prefix_in_steps_of_128(client: Client) -> None:
    first = await client.openai(model="gpt-4o", messages=[system(LONG, marked=False), user("First?")])
    second = await client.openai(model="gpt-4o", messages=[system(LONG, marked=False), user("Second?")])
    shared = first.usage["prompt_tokens"] - 12
    assert figures(first) == (0, 0)
    read = figures(second)[1]
    assert read >= 1_024
    assert read % 128 == 0
    assert shared - 128 < read <= shared
    assert "cache_write_tokens" not in second.usage["prompt_tokens_details"]


async def test_earlier_models_read_up_to_the_change(client: Client) -> None:
    await client.openai(model="gpt-5", messages=[system(LONG, OTHER, marked=False), user("?")])
    changed = await client.openai(model="gpt-5", messages=[system(LONG, f"New. {OTHER}", marked=False), user("?")])
    whole = await client.openai(model="gpt-5", messages=[system(LONG, OTHER, marked=False), user("?")])
    assert 1_024 <= figures(changed)[1] < figures(whole)[1]


async def test_entries_of_earlier_models_end_after_idle_minutes_and_an_hour_at_most(
    timed: Client, manual_clock: ManualClock
) -> None:
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [system(LONG, marked=False), user("?")]}
    await timed.openai(**body)
    manual_clock.advance(299)
    assert figures(await timed.openai(**body))[1] > 0
    manual_clock.advance(301)
    assert figures(await timed.openai(**body))[1] == 0
    reads = []
    for _ in range(15):
        manual_clock.advance(290)
        reads.append(figures(await timed.openai(**body))[1] > 0)
    assert reads[:12] == [True] * 12
    assert False in reads[12:]


async def test_retention_of_a_day_is_kept(timed: Client, manual_clock: ManualClock) -> None:
    body: dict[str, Any] = {"model": "gpt-5", "messages": [system(LONG), user("?")], "prompt_cache_retention": "24h"}
    await timed.openai(**body)
    manual_clock.advance(20 * 3_600)
    assert figures(await timed.openai(**body))[1] > 0


@pytest_asyncio.fixture
async def forgetful() -> AsyncIterator[Client]:
    settings = SimulatorSettings.instant(seed=3).but(openai_miss_rate=0.5)
    async with ProviderSimulator(settings) as running, aiohttp.ClientSession() as session:
        yield Client(session, running)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-6-sol"])
async def test_misses_can_be_made_to_happen(forgetful: Client, model: str) -> None:
    body: dict[str, Any] = {"model": model, "messages": [system(LONG), user("?")]}
    reads = [figures(await forgetful.openai(**body))[1] > 0 for _ in range(30)]
    assert 5 < sum(reads) < 25

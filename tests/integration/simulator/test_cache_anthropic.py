"""Cache accounting on the Anthropic wire, by the published rules."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from guidance_agent.provider_simulator import Fault, ManualClock
from tests.integration.simulator.conftest import Client, Reply, eventually

LONG = "Guidance explains the options and their risks without a steer. " * 90
OTHER = "Every amount carries the tax year in which it holds good. " * 90
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
ASK = [{"role": "user", "content": "May I take a lump sum?"}]


def block(text: str, control: dict[str, str] | None = None) -> dict[str, Any]:
    return {"type": "text", "text": text} | ({"cache_control": control} if control else {})


def figures(reply: Reply) -> tuple[int, int]:
    """Tokens written and read."""
    assert reply.status == 200, reply.raw
    return reply.usage["cache_creation_input_tokens"], reply.usage["cache_read_input_tokens"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_request_reads_what_the_first_wrote(client: Client, stream: bool) -> None:
    body: dict[str, Any] = {"system": [block(LONG, MARK)], "stream": stream}
    written, read = figures(await client.anthropic(**body))
    assert (written > 900, read) == (True, 0)
    assert figures(await client.anthropic(**body)) == (0, written)


async def test_usage_adds_up_to_the_same_input_with_and_without_the_cache(client: Client) -> None:
    plain = (await client.anthropic(system=[block(LONG)])).usage
    total = plain["input_tokens"]
    for _ in range(2):
        usage = (await client.anthropic(system=[block(LONG, MARK)])).usage
        parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        assert sum(usage[part] for part in parts) == total
        split = usage["cache_creation"]
        assert sum(split.values()) == usage["cache_creation_input_tokens"]


async def test_the_split_by_time_to_live_stands_in_message_start_only(client: Client) -> None:
    reply = await client.anthropic(system=[block(LONG, HOUR)], stream=True)
    start = next(data for name, data in reply.events if name == "message_start")
    end = next(data for name, data in reply.events if name == "message_delta")
    assert start["message"]["usage"]["cache_creation"]["ephemeral_1h_input_tokens"] > 900
    assert "cache_creation" not in end["usage"]
    assert end["usage"]["cache_creation_input_tokens"] == start["message"]["usage"]["cache_creation_input_tokens"]


async def test_a_changed_later_part_leaves_the_earlier_one_readable(client: Client) -> None:
    first = await client.anthropic(system=[block(LONG, MARK), block(OTHER, MARK)])
    second = await client.anthropic(system=[block(LONG, MARK), block(f"{OTHER} New.", MARK)])
    written, _ = figures(first)
    rewritten, read = figures(second)
    assert 0 < read < written
    assert abs(read + rewritten - written) < 5


async def test_a_changed_first_part_leaves_nothing_readable(client: Client) -> None:
    await client.anthropic(system=[block(LONG, MARK), block(OTHER, MARK)])
    _, read = figures(await client.anthropic(system=[block(f"New. {LONG}", MARK), block(OTHER, MARK)]))
    assert read == 0


async def test_tools_stand_before_the_system_part(client: Client) -> None:
    tools = [{"name": "look_up", "description": "Looks a fact up", "input_schema": {"type": "object"}}]
    await client.anthropic(system=[block(LONG, MARK)], tools=tools)
    changed = [{**tools[0], "description": "Looks facts up"}]
    _, read = figures(await client.anthropic(system=[block(LONG, MARK)], tools=changed))
    assert read == 0


@pytest.mark.parametrize(
    "change",
    [{"thinking": {"type": "enabled", "budget_tokens": 1_024}}, {"tool_choice": {"type": "none"}}],
)
async def test_a_changed_mode_spares_the_system_part_but_not_the_messages(client: Client, change: Any) -> None:
    messages = [{"role": "user", "content": [block(OTHER, MARK)]}]
    body: dict[str, Any] = {"system": [block(LONG, MARK)], "messages": messages, "max_tokens": 2_000}
    written, _ = figures(await client.anthropic(**body))
    rewritten, read = figures(await client.anthropic(**body, **change))
    assert 0 < read < written
    assert read + rewritten == written


@pytest.mark.parametrize(("control", "seconds"), [(MARK, 300), (HOUR, 3_600)])
async def test_an_entry_lives_as_long_as_was_asked_for(
    timed: Client, manual_clock: ManualClock, control: dict[str, str], seconds: int
) -> None:
    body: dict[str, Any] = {"system": [block(LONG, control)]}
    written, _ = figures(await timed.anthropic(**body))
    manual_clock.advance(seconds - 1)
    assert figures(await timed.anthropic(**body)) == (0, written)
    manual_clock.advance(seconds + 1)
    assert figures(await timed.anthropic(**body)) == (written, 0)


async def test_a_read_starts_the_time_to_live_again(timed: Client, manual_clock: ManualClock) -> None:
    body: dict[str, Any] = {"system": [block(LONG, MARK)]}
    written, _ = figures(await timed.anthropic(**body))
    for _ in range(3):
        manual_clock.advance(299)
        assert figures(await timed.anthropic(**body)) == (0, written)


async def test_a_read_keeps_shorter_entries_alive_that_the_request_marks(
    timed: Client, manual_clock: ManualClock
) -> None:
    both: dict[str, Any] = {"system": [block(LONG, MARK), block(OTHER, MARK)]}
    await timed.anthropic(**both)
    manual_clock.advance(200)
    await timed.anthropic(**both)
    manual_clock.advance(200)
    _, read = figures(await timed.anthropic(system=[block(LONG, MARK), block("Something else.")]))
    assert read > 900


async def test_nothing_is_readable_before_the_first_response_begins(timed: Client, manual_clock: ManualClock) -> None:
    script = {"x-simulator-script": '{"text": "slow", "first_ms": 5000}'}
    body: dict[str, Any] = {"system": [block(LONG, MARK)], "stream": True, "headers": script}
    cold = [asyncio.create_task(timed.anthropic(**body)) for _ in range(5)]
    log = timed.simulator.requests
    await eventually(lambda: len(log) == 5 and all(record.usage for record in log))
    manual_clock.advance(6)
    replies = await asyncio.gather(*cold)
    written = figures(replies[0])[0]
    assert [figures(reply) for reply in replies] == [(written, 0)] * 5
    reading = asyncio.create_task(timed.anthropic(**body))
    await eventually(lambda: len(log) == 6 and log[5].usage is not None)
    manual_clock.advance(6)
    assert figures(await reading) == (0, written)


async def test_the_clock_of_an_entry_starts_with_the_request(timed: Client, manual_clock: ManualClock) -> None:
    slow = {"x-simulator-script": '{"text": "slow", "first_ms": 240000}'}
    body: dict[str, Any] = {"system": [block(LONG, MARK)]}
    first = asyncio.create_task(timed.anthropic(**body, headers=slow))
    log = timed.simulator.requests
    await eventually(lambda: len(log) == 1 and log[0].usage is not None)
    manual_clock.advance(240)
    written, _ = figures(await first)
    manual_clock.advance(61)
    assert figures(await timed.anthropic(**body)) == (written, 0)


@pytest.mark.parametrize(
    ("model", "minimum"), [("claude-sonnet-5-5", 512), ("claude-sonnet-5", 1_024), ("claude-haiku-4-5", 4_096)]
)
async def test_below_the_models_minimum_nothing_is_cached_and_nothing_is_said(
    client: Client, model: str, minimum: int
) -> None:
    for words, cached in ((minimum // 2, False), (minimum + 50, True)):
        body: dict[str, Any] = {"model": model, "system": [block("one " * words, MARK)]}
        first, second = await client.anthropic(**body), await client.anthropic(**body)
        assert (figures(first)[0] > 0, figures(second)[1] > 0) == (cached, cached)


async def test_a_later_mark_looks_back_twenty_positions_and_no_further(client: Client) -> None:
    async def turn(count: int) -> tuple[int, int]:
        content = [block(f"{LONG} Number {i}." if i == 0 else f"Number {i}.") for i in range(count)]
        content[-1]["cache_control"] = MARK
        return figures(await client.anthropic(messages=[{"role": "user", "content": content}]))

    written, _ = await turn(1)
    assert (await turn(20))[1] == written
    await client.session.delete(f"{client.simulator.base_url}/_simulator/cache")
    written, _ = await turn(1)
    assert (await turn(21))[1] == 0


async def test_a_run_of_tool_results_is_one_position(client: Client) -> None:
    def messages(results: int) -> list[dict[str, Any]]:
        calls = [{"type": "tool_use", "id": f"t{i}", "name": "f", "input": {}} for i in range(results)]
        answers = [{"type": "tool_result", "tool_use_id": f"t{i}", "content": "done"} for i in range(results)]
        opening: dict[str, Any] = {"role": "user", "content": [block(LONG, MARK)]}
        if not results:
            return [opening]
        answers[-1]["cache_control"] = MARK  # type: ignore[assignment]
        return [opening, {"role": "assistant", "content": calls}, {"role": "user", "content": answers}]

    written, _ = figures(await client.anthropic(messages=messages(0)))
    _, read = figures(await client.anthropic(messages=messages(30)))
    assert read == written


async def test_a_growing_conversation_reads_all_but_the_last_exchange(client: Client) -> None:
    history: list[dict[str, Any]] = []
    before = 0
    for turn in range(4):
        history.append({"role": "user", "content": [block(f"Question {turn}. {OTHER}")]})
        marked = [*history[:-1], {"role": "user", "content": [block(history[-1]["content"][0]["text"], MARK)]}]
        written, read = figures(await client.anthropic(system=[block(LONG, MARK)], messages=marked))
        assert read == before
        before = read + written
        history.append({"role": "assistant", "content": f"Answer {turn}."})


async def test_an_hour_and_five_minutes_are_billed_apart(client: Client) -> None:
    usage = (await client.anthropic(system=[block(LONG, HOUR), block(OTHER, MARK)])).usage
    split = usage["cache_creation"]
    assert split["ephemeral_1h_input_tokens"] > 900
    assert split["ephemeral_5m_input_tokens"] > 900
    assert sum(split.values()) == usage["cache_creation_input_tokens"]


async def test_an_hour_after_five_minutes_is_refused(client: Client) -> None:
    reply = await client.anthropic(system=[block(LONG, MARK), block(OTHER, HOUR)])
    assert reply.status == 400
    assert "must not come after" in reply.json["error"]["message"]


async def test_a_fifth_mark_is_refused_also_when_it_is_automatic(client: Client) -> None:
    four = [block(f"{i} {LONG}", MARK) for i in range(4)]
    five = await client.anthropic(system=[*four, block("more", MARK)])
    automatic = await client.anthropic(system=four, cache_control=MARK)
    assert (await client.anthropic(system=four)).status == 200
    for reply in (five, automatic):
        assert reply.status == 400
        assert "maximum of 4 blocks with cache_control" in reply.json["error"]["message"]


async def test_automatic_caching_marks_the_last_block(client: Client) -> None:
    body: dict[str, Any] = {"system": LONG, "cache_control": MARK}
    written, _ = figures(await client.anthropic(**body))
    usage = (await client.anthropic(**body)).usage
    assert usage["cache_read_input_tokens"] == written
    assert usage["input_tokens"] < 10


async def test_a_text_and_a_list_with_that_text_are_the_same_prefix(client: Client) -> None:
    written, _ = figures(await client.anthropic(messages=[{"role": "user", "content": LONG}], cache_control=MARK))
    listed = [{"role": "user", "content": [block(LONG, MARK)]}]
    assert figures(await client.anthropic(messages=listed)) == (0, written)


@pytest.mark.parametrize("other", [{"model": "claude-opus-5-5"}, {"key": "another-workspace"}])
async def test_models_and_workspaces_share_nothing(client: Client, other: dict[str, Any]) -> None:
    body: dict[str, Any] = {"system": [block(LONG, MARK)]}
    await client.anthropic(**body)
    assert figures(await client.anthropic(**body, **other))[1] == 0


async def test_prewarming_writes_without_an_answer(client: Client) -> None:
    warm = await client.anthropic(system=[block(LONG, MARK)], max_tokens=0)
    assert warm.json["content"] == []
    assert warm.json["stop_reason"] == "max_tokens"
    assert figures(await client.anthropic(system=[block(LONG, MARK)])) == (0, figures(warm)[0])


async def test_a_refused_request_writes_nothing(client: Client) -> None:
    body: dict[str, Any] = {"system": [block(LONG, MARK)]}
    client.simulator.faults.add(Fault(kind="status", status=529))
    assert (await client.anthropic(**body)).status == 529
    assert figures(await client.anthropic(**body))[1] == 0

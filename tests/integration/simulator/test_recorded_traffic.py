"""The simulator beside real traffic: same fields in the same order, same events, same cache behaviour."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.simulator.conftest import ANTHROPIC_PATH, OPENAI_PATH, Client, Reply, events_of

# Recent recordings of the plain kind; the fields of older ones are a subset.
ANTHROPIC_STREAM = "anthropic/llm-anthropic__test_sonnet_46_effort_without_thinking__0.sse"
ANTHROPIC_THINKING = "anthropic/dd-trace-py__anthropic_completion_stream_thinking__0.sse"
OPENAI_STREAM = "openai/pydantic-ai__test_dbos_agent_iter__0.sse"
OPENAI_TOOLS = "openai/openllmetry__test_agent_run_streaming_with_tools__0.sse"


def shape(value: Any) -> Any:
    """Keys in their order, lists by their first item, the rest by nothing: null or not says little."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def runs(events: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in groupby(name for name, _ in events)]


def first_of_each(events: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: shape(data) for name, data in reversed(events)}


def index_of(recordings: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((recordings / "index.json").read_text())
    return entries


async def test_anthropic_events_have_the_recorded_order_and_fields(client: Client, recordings: Path) -> None:
    recorded = events_of((recordings / ANTHROPIC_STREAM).read_bytes())
    simulated = (await client.anthropic(stream=True)).events
    if "ping" not in dict(simulated):
        recorded = [event for event in recorded if event[0] != "ping"]
    assert runs(simulated) == runs(recorded)
    assert first_of_each(simulated) == first_of_each(recorded)


async def test_anthropic_thinking_has_the_recorded_order(client: Client, recordings: Path) -> None:
    def deltas(events: list[tuple[str, Any]]) -> list[str]:
        kinds = [d["delta"]["type"] for name, d in events if name == "content_block_delta"]
        return [kind for kind, _ in groupby(kinds)]

    recorded = events_of((recordings / ANTHROPIC_THINKING).read_bytes())
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    simulated = (await client.anthropic(stream=True, max_tokens=3_000, thinking=thinking)).events
    assert deltas(simulated) == deltas(recorded)
    plain = [name for name in runs(simulated) if name != "ping"]
    assert [n for n, _ in groupby(plain)] == [n for n, _ in groupby(n for n in runs(recorded) if n != "ping")]


async def test_anthropic_pads_events_as_the_provider_does(client: Client, recordings: Path) -> None:
    def padded(raw: bytes) -> bool:
        lines = [line for line in raw.split(b"\n") if line.startswith(b"data:")]
        inside = [line for line in lines if line.endswith(b" }")]
        return 0 < len(inside) < len(lines)

    assert padded((recordings / ANTHROPIC_STREAM).read_bytes())
    assert padded((await client.anthropic(stream=True)).raw)


async def test_openai_chunks_have_the_recorded_fields(client: Client, recordings: Path) -> None:
    recorded = [shape(data) for _, data in events_of((recordings / OPENAI_STREAM).read_bytes())]
    options: dict[str, Any] = {"include_usage": True}
    reply = await client.openai(model="gpt-4o", stream=True, stream_options=options)
    simulated = [shape(data) for _, data in reply.events]
    assert simulated[0] == recorded[0]
    assert simulated[1] == recorded[1]
    assert simulated[-3:] == recorded[-3:]
    assert reply.events[-1] == ("", "[DONE]")


async def test_openai_tool_calls_have_the_recorded_fields(client: Client, recordings: Path) -> None:
    def calls(events: list[tuple[str, Any]]) -> list[Any]:
        found = [d["choices"][0]["delta"] for _, d in events if d != "[DONE]" and d["choices"]]
        return [shape(delta["tool_calls"]) for delta in found if "tool_calls" in delta]

    recorded = calls(events_of((recordings / OPENAI_TOOLS).read_bytes()))
    function = {"name": "multiply", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    tools = [{"type": "function", "function": function}]
    reply = await client.openai(stream=True, tools=tools, tool_choice="required")
    simulated = calls(reply.events)
    assert simulated[0] == recorded[0]
    assert simulated[1] == recorded[1]


@pytest.mark.parametrize(
    "name",
    [
        "ruby_llm__chat_error_handling_with_anthropic_claude-haiku-4-5_raises_appropriate__0.json",
        "ruby_llm__chat_real_error_scenarios_anthropic_claude-haiku-4-5_handles_context_l__0.json",
    ],
)
async def test_anthropic_errors_have_the_recorded_body(client: Client, recordings: Path, name: str) -> None:
    recorded = json.loads((recordings / "errors" / name).read_text())
    if "too long" in recorded["error"]["message"]:
        reply = await client.anthropic(
            model="claude-haiku-4-5", messages=[{"role": "user", "content": "one " * 210_000}]
        )
    else:
        reply = await client.anthropic(key="invalid")
    assert shape(reply.json) == shape(recorded)
    assert reply.json["error"]["type"] == recorded["error"]["type"]
    letters = "".join(c for c in reply.json["error"]["message"] if not c.isdigit())
    assert letters == "".join(c for c in recorded["error"]["message"] if not c.isdigit())


async def test_the_openai_key_error_has_the_recorded_body(client: Client, recordings: Path) -> None:
    name = "ruby_llm__chat_error_handling_with_openai_gpt-5-nano_raises_appropriate_auth_err__0.json"
    recorded = json.loads((recordings / "errors" / name).read_text())
    reply = await client.openai(key="invalid")
    recorded["error"]["message"] = recorded["error"]["message"].replace("invalid-key", "invalid")
    assert reply.status == 401
    assert reply.json == recorded


async def test_a_spliced_stream_has_the_recorded_events(client: Client, recordings: Path) -> None:
    entry = next(e for e in index_of(recordings) if "spliced" in e["id"])
    client.simulator.faults.add(Fault(kind="splice", after_chunks=2))
    reply = await client.anthropic(stream=True)
    starts = [name for name, _ in reply.events].count("message_start")
    assert starts == entry["expected"]["event_types"]["message_start"] == 2
    assert reply.events[-1][0] == "message_stop"


@pytest.fixture
def simulator_settings() -> SimulatorSettings:
    # The recorded pairs were made with models that are no longer served.
    return SimulatorSettings.instant(seed=7).but(extra_models={"claude-3-5-sonnet-20240620": "claude-sonnet-4-6"})


async def replayed(client: Client, recordings: Path, name: str) -> tuple[Reply, dict[str, Any]]:
    """The simulator's answer to a recorded request, and the usage that was recorded."""
    request = json.loads((recordings / "cache_pairs" / f"{name}.request.json").read_text())
    path = OPENAI_PATH if request["model"].startswith("gpt") else ANTHROPIC_PATH
    reply = await client.post(path, request)
    entry = next(e for e in index_of(recordings) if e["id"] == f"cp_{name}")
    return reply, entry["expected_usage"]


async def test_the_recorded_anthropic_pair_writes_and_then_reads_the_same(client: Client, recordings: Path) -> None:
    stem = "openllmetry__test_anthropic_prompt_caching_async_stream_legacy"
    first, recorded_first = await replayed(client, recordings, f"{stem}__0-1")
    second, recorded_second = await replayed(client, recordings, f"{stem}__1-1")
    for reply, recorded in ((first, recorded_first), (second, recorded_second)):
        total = recorded["cache_creation_input_tokens"] + recorded["cache_read_input_tokens"]
        assert reply.usage["input_tokens"] == recorded["input_tokens"]
        for name in ("cache_creation_input_tokens", "cache_read_input_tokens"):
            assert reply.usage[name] == pytest.approx(recorded[name] * reply_scale(reply, total), abs=1)


def reply_scale(reply: Reply, recorded_total: int) -> float:
    """Our tokens for each recorded one: tokenisers differ, shares must not."""
    ours: int = reply.usage["cache_creation_input_tokens"] + reply.usage["cache_read_input_tokens"]
    return ours / recorded_total


async def test_the_recorded_openai_pair_with_another_question_reads_the_shared_part(
    client: Client, recordings: Path
) -> None:
    stem = "dd-trace-py__chat_completion_stream_prompt_caching"
    write, recorded_write = await replayed(client, recordings, f"{stem}_cache_write__0-1")
    read, recorded_read = await replayed(client, recordings, f"{stem}_cache_read__0-1")
    for reply, recorded in ((write, recorded_write), (read, recorded_read)):
        ours, theirs = reply.usage, recorded
        assert ours["prompt_tokens"] == pytest.approx(theirs["prompt_tokens"], rel=0.1)
        assert ours["prompt_tokens_details"]["cached_tokens"] == theirs["prompt_tokens_details"]["cached_tokens"]


async def test_the_recorded_repetition_of_a_whole_prompt_reads_it(client: Client, recordings: Path) -> None:
    stem = "openllmetry__test_openai_prompt_caching_async"
    write, recorded_write = await replayed(client, recordings, f"{stem}__0")
    read, recorded_read = await replayed(client, recordings, f"{stem}__1")
    assert write.usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert recorded_write["prompt_tokens_details"]["cached_tokens"] == 0
    ours = read.usage["prompt_tokens_details"]["cached_tokens"] / read.usage["prompt_tokens"]
    theirs = recorded_read["prompt_tokens_details"]["cached_tokens"] / recorded_read["prompt_tokens"]
    assert ours == pytest.approx(theirs, abs=128 / read.usage["prompt_tokens"])


@pytest.mark.parametrize("suffix", ["", "-1"])
async def test_the_recorded_follow_up_reads_what_the_first_turn_wrote(recordings: Path, suffix: str) -> None:
    stem = "pydantic-ai__test_anthropic_code_execution_files_cache_prefix_stable_automatic-sonn"
    async with ProviderSimulator(SimulatorSettings.instant()) as running, aiohttp.ClientSession() as session:
        client = Client(session, running)
        first, _ = await replayed(client, recordings, f"{stem}__1{suffix}")
        second, recorded = await replayed(client, recordings, f"{stem}__2{suffix}")
    wrote = first.usage["cache_creation_input_tokens"]
    assert wrote > 1_024
    assert second.usage["cache_read_input_tokens"] == wrote
    assert recorded["cache_read_input_tokens"] > 10 * recorded["cache_creation_input_tokens"]
    assert second.usage["cache_creation_input_tokens"] > 0
    assert second.usage["input_tokens"] == recorded["input_tokens"] == 4

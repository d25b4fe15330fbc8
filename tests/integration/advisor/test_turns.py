"""One turn from question to record, over real HTTP and a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import (
    AdvisorAgent,
    Completed,
    ContextRetrieved,
    CustomerProfile,
    Event,
    Failed,
    ReasoningDelta,
    Runtime,
    TextDelta,
    TurnStarted,
    event_from_json,
    event_to_json,
)
from guidance_agent.core.schema import consultations, memories, model_calls, turns
from guidance_agent.errors import (
    AuthenticationError,
    ConfigurationError,
    HistoryMismatch,
    NoQuestionError,
    PromptTooLongError,
    ProviderUnavailableError,
    StreamTruncated,
    TurnInProgressError,
)
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import (
    AUTHOR,
    author_fails,
    author_requests,
    author_says,
    bare,
    endless,
    wired_settings,
)


async def events_of(advisor: AdvisorAgent, customer: CustomerProfile, *args: Any, **kwargs: Any) -> list[Event]:
    async with advisor.consult(customer, *args, **kwargs) as turn:
        return [event async for event in turn]


async def rows(runtime: Runtime, table: sa.Table) -> list[dict[str, Any]]:
    with runtime.database.engine.connect() as connection:
        return [dict(row) for row in (connection.execute(sa.select(table))).mappings()]


def public(events: list[Event]) -> list[Event]:
    return [event for event in events if event.public]


async def test_events_come_in_order_with_gapless_numbers_and_whole_text(
    wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    events = await events_of(wired, janet)
    assert [type(event) for event in events[:2]] == [TurnStarted, ContextRetrieved]
    assert any(isinstance(event, ReasoningDelta) for event in events)
    assert isinstance(events[-1], Completed)
    assert [event.sequence for event in public(events)] == list(range(len(public(events))))
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert "".join(delta.text for delta in deltas) == events[-1].text
    assert [delta.start for delta in deltas] == [0, *(delta.end for delta in deltas[:-1])]
    assert events[-1].simulated is True


async def test_the_journal_gives_back_every_public_event_as_it_was(
    wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    events = public(await events_of(wired, janet))
    journaled = await wired_runtime.records.events(events[0].turn_id)
    text = "".join(record.text or "" for record in journaled)
    for event, record in zip(events, journaled, strict=True):
        values = dict(record.payload)
        if isinstance(event, TextDelta):
            values["text"] = record.text
        if isinstance(event, Completed):
            values["text"] = text
        assert event_from_json(values) == event
        assert event_to_json(event)["type"] == record.type


async def test_the_turn_its_calls_and_its_memory_are_on_record(
    wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    completed = (await events_of(wired, janet))[-1]
    assert isinstance(completed, Completed)
    await wired_runtime.journal.__aexit__()
    (turn,) = await rows(wired_runtime, turns)
    assert (turn["state"], turn["judgement"], turn["finish_reason"]) == ("completed", "pending", "stop")
    assert turn["delivered_length"] == turn["text_length"] == len(completed.text)
    assert turn["last_sequence"] == completed.sequence
    assert turn["reasoning"]
    assert turn["context"]["facts"]
    calls = {call["operation"]: call for call in await rows(wired_runtime, model_calls)}
    assert set(calls) == {"reasoning", "guidance"}
    assert all(call["simulated"] and call["turn_id"] == turn["id"] for call in calls.values())
    assert calls["guidance"]["cost_usd"] + calls["reasoning"]["cost_usd"] == pytest.approx(completed.cost_usd)
    assert calls["guidance"]["unit_prices"]["input"] > 0
    (memory,) = await rows(wired_runtime, memories)
    assert (memory["customer_id"], memory["importance"]) == ("janet-56", None)
    assert "roof" in memory["text"]


async def test_without_reasoning_one_call_is_made_and_no_notes_are_kept(
    wired: AdvisorAgent, simulator: ProviderSimulator, janet: CustomerProfile
) -> None:
    events = await events_of(wired, janet, use_reasoning=False)
    assert not any(isinstance(event, ReasoningDelta) for event in events)
    assert len(simulator.requests) == 1


async def test_the_notes_reach_the_author_and_never_the_customer(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    events = await events_of(wired, janet)
    notes = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    (request,) = author_requests(simulator, wire)
    assert notes.strip() in str(request.body["messages"][-1]["content"])
    assert notes not in "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_the_answer_goes_on_without_notes_when_the_fast_model_fails(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    fast = "haiku" if wire == "anthropic" else "luna"
    simulator.faults.add(simulator_fault := _fault(kind="status", status=500, times=None, model=fast))
    assert simulator_fault.times is None
    assert isinstance((await events_of(wired, janet))[-1], Completed)


def _fault(**values: Any) -> Any:
    from guidance_agent.provider_simulator import Fault

    return Fault.model_validate(values)


async def test_a_second_turn_continues_the_consultation_and_reads_the_stable_parts_from_the_cache(
    wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    first = await events_of(wired, janet)
    answer = first[-1]
    assert isinstance(answer, Completed)
    history = [
        {"role": "customer", "content": janet.presenting_question or ""},
        {"role": "advisor", "content": answer.text},
        {"role": "user", "content": "And what about tax?"},
    ]
    second = await events_of(wired, janet, history)
    assert isinstance(second[0], TurnStarted)
    assert isinstance(first[0], TurnStarted)
    assert second[0].consultation_id == first[0].consultation_id
    done = second[-1]
    assert isinstance(done, Completed)
    assert done.usage is not None
    assert done.usage.cache_read_tokens > 2_000
    assert done.cache_outcome == "hit"
    assert [turn["ordinal"] for turn in await rows(wired_runtime, turns)] == [1, 2]
    assert len(await rows(wired_runtime, consultations)) == 1


async def test_a_history_that_was_not_delivered_begins_another_consultation_and_contradicts_a_given_one(
    wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    first = await events_of(wired, janet)
    history = [
        {"role": "customer", "content": janet.presenting_question or ""},
        {"role": "advisor", "content": "Something else."},
        {"role": "customer", "content": "And tax?"},
    ]
    other = await events_of(wired, janet, history)
    assert isinstance(first[0], TurnStarted)
    assert isinstance(other[0], TurnStarted)
    assert other[0].consultation_id != first[0].consultation_id
    with pytest.raises(HistoryMismatch):
        await events_of(wired, janet, history, consultation_id=first[0].consultation_id)


async def test_the_record_serves_as_history_when_none_is_given(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    await events_of(wired, janet, consultation_id="chat-1")
    follow_up = janet.model_copy(update={"presenting_question": "What does it cost?"})
    await events_of(wired, follow_up, consultation_id="chat-1")
    roles = [message["role"] for message in author_requests(simulator, wire)[-1].body["messages"]]
    assert [role for role in roles if role != "system"] == ["user", "assistant", "user"]


async def test_a_changed_profile_moves_no_stable_part_and_is_told_in_the_last_message(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    await events_of(wired, janet, consultation_id="chat-1")
    older = janet.model_copy(update={"age": 57, "presenting_question": "What does it cost?"})
    await events_of(wired, older, consultation_id="chat-1")
    before, after = (request.body for request in author_requests(simulator, wire))
    assert _system(before) == _system(after)
    assert "age: now 57, was 56" in str(after["messages"][-1]["content"])


def _system(body: dict[str, Any]) -> Any:
    return body.get("system") or [message for message in body["messages"] if message["role"] == "system"]


async def test_input_that_cannot_be_answered_leaves_no_trace(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, janet: CustomerProfile
) -> None:
    silent = janet.model_copy(update={"presenting_question": "  "})
    with pytest.raises(NoQuestionError):
        await events_of(wired, silent)
    assert await rows(wired_runtime, turns) == []
    assert len(simulator.requests) == 0


async def test_a_question_longer_than_the_context_window_is_refused_before_anything_is_sent(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, janet: CustomerProfile
) -> None:
    provider = {
        "base_url": simulator.base_url,
        "api_key": "key-of-the-test",
        "context_window": {bare(AUTHOR[wire]): 8_000},
    }
    settings = wired_settings(simulator, wire, tmp_path / "data", providers={wire: provider})
    long = janet.model_copy(update={"presenting_question": "What about my pension? " * 2_000})
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        assert await advisor.provide_guidance(janet)
        with pytest.raises(PromptTooLongError, match="8000"):
            await advisor.provide_guidance(long)
        assert len(author_requests(simulator, wire)) == 1


async def test_a_consultation_answers_one_question_at_a_time(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    async with wired.consult(janet, consultation_id="chat-1") as turn:
        await anext(aiter(turn))
        with pytest.raises(TurnInProgressError):
            await events_of(wired, janet, consultation_id="chat-1")


async def test_an_error_before_the_first_text_is_told_and_recorded(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="status", status=401, times=None)
    events = await events_of(wired, janet)
    assert isinstance(events[-1], Failed)
    assert events[-1].error == "AuthenticationError"
    with pytest.raises(AuthenticationError):
        await wired.provide_guidance(janet)
    (first, _) = await rows(wired_runtime, turns)
    assert (first["state"], first["judgement"], first["delivered_length"]) == ("failed", None, 0)


@pytest.mark.parametrize("kind", ["truncate", "drop", "error_event", "garbage"])
async def test_text_before_a_failure_is_delivered_recorded_and_judged(
    wired: AdvisorAgent,
    wired_runtime: Runtime,
    simulator: ProviderSimulator,
    wire: str,
    janet: CustomerProfile,
    kind: str,
) -> None:
    author_fails(simulator, wire, kind=kind, after_chunks=5, times=None)
    events = await events_of(wired, janet)
    assert isinstance(events[-1], Failed)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    (turn,) = await rows(wired_runtime, turns)
    assert text
    assert (turn["state"], turn["judgement"], turn["delivered_length"]) == ("failed", "pending", len(text))
    if kind == "truncate":
        assert events[-1].error == StreamTruncated.__name__


async def test_a_failed_stream_raises_after_the_text_that_came(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="truncate", after_chunks=5, times=None)
    received: list[str] = []
    with pytest.raises(StreamTruncated):
        async for text in wired.provide_guidance_stream(janet):
            received.append(text)  # noqa: PERF401 - a comprehension would lose it
    assert received


async def test_a_failed_turn_without_text_can_be_asked_again_in_the_same_consultation(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="status", status=503, times=3)
    failed = await events_of(wired, janet)
    assert isinstance(failed[-1], Failed)
    assert failed[-1].error == ProviderUnavailableError.__name__
    again = await events_of(wired, janet)
    assert isinstance(again[-1], Completed)
    assert isinstance(failed[0], TurnStarted)
    assert isinstance(again[0], TurnStarted)
    assert again[0].consultation_id == failed[0].consultation_id


async def test_a_transient_error_is_retried_and_no_text_comes_twice(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_fails(simulator, wire, kind="status", status=500, times=1)
    author_says(simulator, wire, Script(text="Exactly once."))
    assert await wired.provide_guidance(janet) == "Exactly once."
    assert len(author_requests(simulator, wire)) == 2


async def test_unstorable_text_is_replaced_and_split_characters_are_joined(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=("a\x00b £", " 😀 end")))
    assert await wired.provide_guidance(janet) == "a\ufffdb £ 😀 end"


@pytest.mark.parametrize("text", ["<think>Only private thoughts, never closed.", "<think>Thoughts.</think>"])
async def test_an_answer_of_private_reasoning_alone_is_a_failure_and_not_silence(
    wired: AdvisorAgent, simulator: ProviderSimulator, wire: str, janet: CustomerProfile, text: str
) -> None:
    author_says(simulator, wire, Script(text=text))
    events = await events_of(wired, janet)
    assert isinstance(events[-1], Failed)
    assert events[-1].error == "MalformedResponseError"
    assert not any(isinstance(event, TextDelta) for event in events)


async def test_turns_of_many_customers_run_at_once(wired: AdvisorAgent, janet: CustomerProfile) -> None:
    customers = [janet.model_copy(update={"customer_id": f"c{number}"}) for number in range(20)]
    texts = await asyncio.gather(*(wired.provide_guidance(customer) for customer in customers))
    assert all(texts)


async def test_an_outcome_can_be_recorded_and_ends_the_consultation(
    wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile
) -> None:
    first = await events_of(wired, janet, consultation_id="chat-1")
    assert isinstance(first[-1], Completed)
    await wired.record_outcome("chat-1", "passed", reason="the customer said it helped")
    (row,) = await rows(wired_runtime, consultations)
    assert (row["outcome"], row["outcome_source"]) == ("passed", "caller")


async def test_an_advisor_that_is_not_open_says_so(janet: CustomerProfile) -> None:
    with pytest.raises(ConfigurationError, match="not open"):
        await AdvisorAgent().provide_guidance(janet)
